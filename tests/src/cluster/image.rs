//! Images of one static program, made without an engine and handed to both nodes without a registry.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::layout::{NODES, state};
use super::processes;
use crate::servers::tools;

/// Where the system keeps the authorities that it trusts.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// An image whose entry point is one static program.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name with a tag, such as `spillway.test/agent:1`.
    pub name: String,
    /// The program; it lies at the root of the image under its own name.
    pub program: PathBuf,
    /// The number of the user it runs as unless told otherwise.
    pub user: u32,
}

/// Makes an image and imports it on both nodes.
pub fn load(image: &Image) -> anyhow::Result<()> {
    let folder = state().join("image");
    let archive = write(image, &folder)?;
    for node in &NODES {
        let mut import = processes::in_node(node, "ctr")?;
        import.args(["-n", "k8s.io", "images", "import", "--snapshotter", "overlayfs"]).arg(&archive);
        tools::run(&mut import)?;
    }
    fs::remove_dir_all(folder).context("removing a draft")
}

/// Writes an archive in the image layout of the OCI.
fn write(image: &Image, folder: &Path) -> anyhow::Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let (root, layout) = (folder.join("root"), folder.join("layout"));
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    fs::create_dir_all(root.join("etc/ssl/certs"))?;
    let name = image.program.file_name().context("a program has a name")?.to_string_lossy().into_owned();
    fs::copy(&image.program, root.join(&name)).context("copying the program")?;
    if Path::new(AUTHORITIES).exists() {
        fs::copy(AUTHORITIES, root.join("etc/ssl/certs/ca-certificates.crt"))?;
    }
    let layer = folder.join("layer.tar");
    tar(&root, &layer)?;
    let bytes = fs::read(&layer)?;
    let (layer, layer_bytes) = (blob(&layout, &bytes)?, bytes.len());
    let config = json!({
        "architecture": architecture()?, "os": "linux",
        "config": {"Entrypoint": [format!("/{name}")], "User": format!("{0}:{0}", image.user), "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    });
    let config = described(&layout, "application/vnd.oci.image.config.v1+json", &config)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": layer_bytes}],
    });
    let mut manifest = described(&layout, "application/vnd.oci.image.manifest.v1+json", &manifest)?;
    manifest["annotations"] = json!({"io.containerd.image.name": image.name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
    let archive = folder.join("image.tar");
    tar(&layout, &archive)?;
    Ok(archive)
}

/// Writes a JSON blob and returns what describes it.
fn described(layout: &Path, kind: &str, value: &Value) -> anyhow::Result<Value> {
    let bytes = value.to_string().into_bytes();
    Ok(json!({"mediaType": kind, "digest": blob(layout, &bytes)?, "size": bytes.len()}))
}

fn blob(layout: &Path, bytes: &[u8]) -> anyhow::Result<String> {
    let mut hash = String::new();
    digest(&SHA256, bytes).as_ref().iter().try_for_each(|byte| write!(hash, "{byte:02x}"))?;
    fs::write(layout.join("blobs/sha256").join(&hash), bytes)?;
    Ok(format!("sha256:{hash}"))
}

/// Archives a folder so that the same files give the same bytes.
fn tar(folder: &Path, archive: &Path) -> anyhow::Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-c", "-C"]);
    let status = tar.arg(folder).arg(".").stdin(Stdio::null()).stdout(File::create(archive)?).status()?;
    if status.success() { Ok(()) } else { bail!("tar failed ({status})") }
}

fn architecture() -> anyhow::Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no image is made for {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_program_gives_the_same_image_and_another_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let program = dir.path().join("program");
        let archive = |content: &str| {
            fs::write(&program, content).expect("a file");
            let image = Image { name: "example.test/program:1".to_owned(), program: program.clone(), user: 65532 };
            fs::read(write(&image, &dir.path().join("image")).expect("an image")).expect("an archive")
        };
        let (first, again, other) = (archive("one"), archive("one"), archive("two"));
        assert!(first == again && first != other);
        let text = String::from_utf8_lossy(&first);
        assert!(text.contains("example.test/program:1") && text.contains("65532:65532"));
    }
}
