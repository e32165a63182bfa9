//! Generates the message types of protocol version 1 from its frozen files,
//! for the tests that play a peer of that version.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const ROOT: &str = "../proto/golden/v1";
    let files = ["roost/types/v1/types.proto", "roost/node/v1/node_link.proto", "roost/node/v1/node_api.proto"];
    let files = files.map(|file| format!("{ROOT}/{file}"));
    tonic_prost_build::configure().compile_protos(&files, &[ROOT.to_owned()])?;
    println!("cargo:rerun-if-changed={ROOT}");
    Ok(())
}
