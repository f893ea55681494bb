//! Programs that install: called as they are set up on this machine, installed from the system's packages when absent.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Returns where a program of the search path lies.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Returns a program of the search path; when it is absent, installs `package` with `apt-get` first.
pub fn program(program: &str, package: &str) -> anyhow::Result<PathBuf> {
    if let Some(path) = find(program) {
        return Ok(path);
    }
    apt_install(&[package])?;
    find(program).with_context(|| format!("{program} is not there after the installation of {package}"))
}

/// Installs packages of the system: needs `apt-get` and the right to use it.
pub fn apt_install(packages: &[&str]) -> anyhow::Result<()> {
    let Some(apt) = find("apt-get") else {
        bail!("apt-get is not there: install {} by other means", packages.join(" "));
    };
    println!("      apt-get install {}", packages.join(" "));
    let mut install = Command::new(&apt);
    install.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "-q", "--no-install-recommends"]);
    if run(install.args(packages)).is_ok() {
        return Ok(());
    }
    // The list of packages may be absent or old.
    run(Command::new(&apt).args(["update", "-q"]))?;
    run(&mut install)
}

/// Unpacks packages of the system into a folder, without installing them: what would start by itself does not.
pub fn apt_unpack(folder: &Path, packages: &[&str]) -> anyhow::Result<()> {
    let apt = find("apt-get").context("apt-get is not there")?;
    println!("      apt-get download {}", packages.join(" "));
    let mut download = Command::new(&apt);
    download.current_dir(folder).args(["download", "-q"]).args(packages);
    if run(&mut download).is_err() {
        // The list of packages may be absent or old.
        run(Command::new(&apt).args(["update", "-q"]))?;
        run(&mut download)?;
    }
    for entry in std::fs::read_dir(folder).context("looking for what was downloaded")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new(program("dpkg-deb", "dpkg")?).arg("-x").arg(&path).arg(folder))?;
            std::fs::remove_file(&path).context("removing a package")?;
        }
    }
    Ok(())
}

/// Installs packages of Python into a folder.
pub fn pip_install(folder: &Path, words: &[&str]) -> anyhow::Result<()> {
    let python = program("python3", "python3")?;
    if run(Command::new(&python).args(["-m", "pip", "--version"])).is_err() {
        apt_install(&["python3-pip"])?;
    }
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
    run(pip.arg("--target").arg(folder).args(words))
}

/// Runs a command to its end, without input; fails with what it printed.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    let shown = shown.join(" ");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {shown}"))?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("`{shown}` failed ({}):\n{}\n{}", output.status, out.trim(), err.trim());
    }
    Ok(())
}

/// Fetches an artifact `group:name:version:kind` with Maven and unpacks it into `folder`; returns the one folder in it.
pub fn maven_zip(artifact: &str, folder: &Path) -> anyhow::Result<()> {
    let archive = maven_file(artifact, folder)?;
    run(Command::new(program("unzip", "unzip")?).arg("-q").arg(&archive).arg("-d").arg(folder))?;
    std::fs::remove_file(&archive).context("removing the archive")
}

/// Fetches an artifact `group:name:version:kind` with Maven into `folder` and returns where it lies.
pub fn maven_file(artifact: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy";
    let parts: Vec<_> = artifact.split(':').collect();
    let [_, name, version, kind] = parts[..] else {
        bail!("{artifact} is no artifact");
    };
    println!("      mvn: {artifact}");
    let mut command = Command::new(program("mvn", "maven")?);
    command.args(["-q", "-B", COPY]).arg(format!("-Dartifact={artifact}"));
    run(command.arg(format!("-DoutputDirectory={}", folder.display())).current_dir(folder))?;
    Ok(folder.join(format!("{name}-{version}.{kind}")))
}
