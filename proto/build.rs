//! Generates the message and service types from `roost/**/*.proto`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "roost/types/v1/types.proto",
        "roost/node/v1/node_link.proto",
        "roost/node/v1/node_api.proto",
        "roost/node/v1/volume.proto",
        "roost/node/v1/support.proto",
        "roost/central/v1/central.proto",
    ];
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    tonic_prost_build::configure().file_descriptor_set_path(out.join("roost.bin")).compile_protos(&files, &["."])?;
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    Ok(())
}
