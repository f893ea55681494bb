//! Images of one static program, made without an engine and handed to both nodes without a registry, or to a file.
//!
//! # Guarantees
//! - The same program gives the same bytes. In the image are the program, the authorities that the system trusts, the
//!   programs of this machine that it names, and nothing else; it runs as the user it says.
//! - An image that is written to a file has at most [`IMAGE_BYTES_MAX`].

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::layout::{NODES, state};
use super::processes;
use crate::servers::tools;

/// Where the system keeps the authorities that it trusts.
pub(super) const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Most bytes of an image for others, unpacked: what a node fetches before its first pod starts.
pub const IMAGE_BYTES_MAX: u64 = 40_000_000;

/// An image whose entry point is one static program.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name with a tag, such as `spillway.test/agent:1`.
    pub name: String,
    /// The program; it lies at the root of the image under its own name.
    pub program: PathBuf,
    /// The number of the user it runs as unless told otherwise.
    pub user: u32,
    /// Programs of this machine that lie in it as well, at their own paths, with the libraries that they load.
    pub beside: &'static [&'static str],
}

/// Makes an image and imports it on both nodes. Returns its size.
pub fn load(image: &Image) -> anyhow::Result<u64> {
    let folder = tempfile::tempdir_in(state()).context("making a folder for an image")?;
    let (archive, bytes) = write(image, folder.path())?;
    for node in &NODES {
        let mut import = processes::in_node(node, "ctr")?;
        import.args(["-n", "k8s.io", "images", "import", "--snapshotter", "overlayfs"]).arg(&archive);
        tools::run(&mut import)?;
    }
    Ok(bytes)
}

/// Gives an image that is on both nodes one more name.
pub fn tag(name: &str, other: &str) -> anyhow::Result<()> {
    NODES.iter().try_for_each(|node| {
        tools::run(processes::in_node(node, "ctr")?.args(["-n", "k8s.io", "images", "tag", "--force", name, other]))
    })
}

/// Writes an image to `file`, as `ctr images import`, `skopeo copy oci-archive:…` and `docker load` take it. Returns its
/// size.
pub fn save(image: &Image, file: &Path) -> anyhow::Result<u64> {
    let folder = tempfile::tempdir().context("making a folder for an image")?;
    let (archive, bytes) = write(image, folder.path())?;
    if bytes > IMAGE_BYTES_MAX {
        bail!("the image {} has {bytes} bytes, allowed: {IMAGE_BYTES_MAX}", image.name);
    }
    fs::copy(&archive, file).with_context(|| format!("writing {}", file.display()))?;
    Ok(bytes)
}

/// Writes an archive in the image layout of the OCI; returns where, and how many bytes the image has unpacked.
fn write(image: &Image, folder: &Path) -> anyhow::Result<(PathBuf, u64)> {
    let (root, layout) = (folder.join("root"), folder.join("layout"));
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    fs::create_dir_all(root.join("etc/ssl/certs"))?;
    let name = image.program.file_name().context("a program has a name")?.to_string_lossy().into_owned();
    fs::copy(&image.program, root.join(&name)).context("copying the program")?;
    let missing = || format!("no authorities in {AUTHORITIES}: install ca-certificates");
    fs::copy(AUTHORITIES, root.join("etc/ssl/certs/ca-certificates.crt")).with_context(missing)?;
    image.beside.iter().try_for_each(|program| copy_with_libraries(program, &root))?;
    let layer = folder.join("layer.tar");
    tar(&root, &layer)?;
    let bytes = fs::read(&layer)?;
    let (layer, layer_bytes) = (blob(&layout, &bytes)?, bytes.len());
    let config = json!({
        "architecture": architecture_of(&image.program)?, "os": "linux",
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
    Ok((archive, layer_bytes as u64))
}

/// Copies a program of this machine and the libraries that it loads below `root`, each to the path that it has here.
fn copy_with_libraries(program: &str, root: &Path) -> anyhow::Result<()> {
    let said = Command::new("ldd").arg(program).output().with_context(|| format!("asking what {program} loads"))?;
    if !said.status.success() {
        bail!("ldd {program}: {}", String::from_utf8_lossy(&said.stderr).trim());
    }
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let libraries = said.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    for path in std::iter::once(program).chain(libraries) {
        let copy = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().context("a program has a folder")?)?;
        fs::copy(path, copy).with_context(|| format!("copying {path}"))?;
    }
    Ok(())
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

/// Returns what a program is for, in the words of the OCI: its header says it.
fn architecture_of(program: &Path) -> anyhow::Result<&'static str> {
    let mut header = [0; 20];
    File::open(program)?.read_exact(&mut header).context("reading the header of the program")?;
    match (&header[..4], u16::from_le_bytes([header[18], header[19]])) {
        (b"\x7fELF", 62) => Ok("amd64"),
        (b"\x7fELF", 183) => Ok("arm64"),
        _ => bail!("{} is no program for amd64 or arm64", program.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_program_gives_the_same_image_and_another_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let program = dir.path().join("program");
        let archive = |machine: u8, content: &str| {
            let header = [b"\x7fELF".as_slice(), &[0; 14], &[machine, 0], content.as_bytes()].concat();
            fs::write(&program, header).expect("a file");
            let image =
                Image { name: "example.test/program:1".to_owned(), program: program.clone(), user: 65532, beside: &[] };
            let file = dir.path().join("image.tar");
            save(&image, &file).expect("an image");
            fs::read(file).expect("an archive")
        };
        let (first, again, other) = (archive(62, "one"), archive(62, "one"), archive(183, "one"));
        assert!(first == again && first != other && first != archive(62, "two"));
        let says = |archive: &[u8], text: &str| String::from_utf8_lossy(archive).contains(text);
        assert!(says(&first, "example.test/program:1") && says(&first, "65532:65532"));
        assert!(says(&first, r#""architecture":"amd64""#) && says(&other, r#""architecture":"arm64""#));
    }
}
