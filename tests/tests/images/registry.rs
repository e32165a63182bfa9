//! A real registry on loopback, and the smallest image that stays running.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reqwest::Client;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use roost_tests::process::Process;
use roost_tests::{Result, eventually};
use roostd::containerd::image::Digest;
use roostd::containerd::image::document::Platform;
use serde_json::json;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Programs of the host that the image has.
const PROGRAMS: [&str; 2] = ["/usr/bin/sleep", "/usr/bin/env"];

/// `docker-registry` under a temporary directory.
pub(crate) struct Registry {
    _process: Process,
    _directory: tempfile::TempDir,
    pub(crate) host: String,
    client: Client,
}

/// An image of one layer.
pub(crate) struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
}

/// An image with two programs and one variable.
pub(crate) fn workload(variable: &str) -> Result<Image> {
    let mut builder = tar::Builder::new(Vec::new());
    // A file of its own, so that no two images share their layer.
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(variable.len() as u64);
    builder.append_data(&mut header, "variable", variable.as_bytes())?;
    for program in PROGRAMS {
        builder.append_path_with_name(program, Path::new(program).strip_prefix("/usr")?)?;
    }
    for library in libraries()? {
        builder.append_data(
            &mut file_header(&library)?,
            library.trim_start_matches('/'),
            std::fs::File::open(&library)?,
        )?;
    }
    let layer = builder.into_inner()?;
    let rootfs = json!({ "type": "layers", "diff_ids": [Digest::of(&layer).to_string()] });
    let config = json!({ "Env": ["PATH=/bin", variable], "User": "1000:1000" });
    let architecture = Platform::host().architecture;
    let config = json!({ "os": "linux", "architecture": architecture, "config": config, "rootfs": rootfs });
    Ok(Image { layer, config: config.to_string().into_bytes() })
}

fn file_header(path: &str) -> Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(std::fs::metadata(path)?.len());
    Ok(header)
}

/// The libraries of the programs, and what loads them.
fn libraries() -> Result<Vec<String>> {
    let output = Command::new("ldd").args(PROGRAMS).output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut found: Vec<_> = text.split_whitespace().filter(|w| w.starts_with('/') && !w.ends_with(':')).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found.into_iter().map(str::to_owned).collect())
}

impl Registry {
    pub(crate) async fn start() -> Result<Self> {
        // Whichever test is first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir()?;
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = json!({
            "version": 0.1,
            "log": { "level": "warn" },
            "storage": { "filesystem": { "rootdirectory": directory.path().join("data") } },
            "http": { "addr": address.to_string() },
        });
        let path = directory.path().join("config.yml");
        std::fs::write(&path, config.to_string())?;
        let (program, log) = (Path::new("/usr/bin/docker-registry"), directory.path().join("log"));
        let process = Process::start(program, &["serve", &path.display().to_string()], &log)?;
        let client = Client::builder().no_proxy().tls_certs_only([]).build()?;
        let host = format!("localhost:{}", address.port());
        let url = format!("http://{host}/v2/");
        eventually("the registry answers", Duration::from_secs(20), || async {
            Ok(client.get(&url).send().await.ok())
        })
        .await?;
        Ok(Self { _process: process, _directory: directory, host, client })
    }

    /// Pushes an image.
    pub(crate) async fn push(&self, repository: &str, tag: &str, image: &Image) -> Result<()> {
        for blob in [&image.layer, &image.config] {
            let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.host);
            let begun = self.client.post(url).send().await?.error_for_status()?;
            let location = begun.headers().get(LOCATION).ok_or("no location")?.to_str()?.to_owned();
            let separator = if location.contains('?') { '&' } else { '?' };
            let put = self.client.put(format!("{location}{separator}digest={}", Digest::of(blob)));
            put.body(blob.clone()).send().await?.error_for_status()?;
        }
        let descriptor = |kind: &str, blob: &[u8]| json!({ "mediaType": kind, "digest": Digest::of(blob).to_string(), "size": blob.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &image.config),
            "layers": [descriptor(LAYER, &image.layer)],
        });
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.host);
        let put = self.client.put(url).header(CONTENT_TYPE, MANIFEST).body(manifest.to_string());
        put.send().await?.error_for_status()?;
        Ok(())
    }
}
