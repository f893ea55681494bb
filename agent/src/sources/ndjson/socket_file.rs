//! The file of a Unix socket.
//!
//! # Guarantees
//! - The file that a process left which was killed is replaced; one behind which somebody listens, and one that is no socket, is
//!   left alone and told. Two that start at once do not take each other's: they take turns by a lock of the folder.
//! - Nobody can connect before the file has its permissions ([`MODE`]): the owner's and the group's.
//! - It is removed at the end, if it still is the one that was made.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::time::timeout;

/// Who may connect: the user of the agent, and the group of the file.
const MODE: u32 = 0o660;

/// How many connections wait to be accepted.
const BACKLOG: u32 = 1024;

/// How long another process may hold the folder's lock: it makes its own file meanwhile.
const LOCK_TRIES: u32 = 40;

/// How long is waited between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// How long somebody who listens may take to show it.
const LIVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why there can be no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketFileError {
    /// Somebody listens there.
    #[error("{} is the socket of a process that runs", path.display())]
    Live {
        /// The file.
        path: PathBuf,
    },
    /// There is something else.
    #[error("{} is there and is no socket", path.display())]
    Other {
        /// The file.
        path: PathBuf,
    },
    /// The folder cannot be locked.
    #[error("folder {} cannot be locked", folder.display())]
    Lock {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be looked at or made.
    #[error("{} cannot be made a socket", path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The file of a socket that listens.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

/// Listens at `path`.
pub(super) async fn listen(path: &Path) -> Result<(UnixListener, SocketFile), SocketFileError> {
    let make = |source| SocketFileError::Make { path: path.to_owned(), source };
    let _locked = lock(path).await?;
    remove_stale(path).await?;
    let socket = UnixSocket::new_stream().map_err(make)?;
    socket.bind(path).map_err(make)?;
    let identity = fs::set_permissions(path, fs::Permissions::from_mode(MODE)).and_then(|()| identity(path));
    let file = SocketFile { path: path.to_owned(), identity: identity.map_err(make)? };
    let listener = socket.listen(BACKLOG).map_err(make)?;
    Ok((listener, file))
}

/// Locks the folder for as long as the returned file is open.
async fn lock(path: &Path) -> Result<File, SocketFileError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |source| SocketFileError::Lock { folder: folder.to_owned(), source };
    let file = File::open(folder).map_err(failed)?;
    let mut tries = 0;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if tries < LOCK_TRIES => tries += 1,
            Err(error) => return Err(failed(error.into())),
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// Removes a socket behind which nobody listens.
async fn remove_stale(path: &Path) -> Result<(), SocketFileError> {
    let make = |source| SocketFileError::Make { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(make(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketFileError::Other { path: path.to_owned() }),
        Ok(_) => {}
    }
    match timeout(LIVE_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(make),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => Err(make(error)),
        // A process that listens and accepts nothing at the moment is one that runs, too.
        Ok(Ok(_) | Err(_)) | Err(_) => Err(SocketFileError::Live { path: path.to_owned() }),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // Who cannot remove it leaves a stale file, which the next one replaces.
            drop(fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_file_is_replaced_and_a_live_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        // What a killed process leaves: a socket that nobody listens at any more.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (listener, file) = listen(&path).await.unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, MODE);
        let (connected, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
        drop((connected.unwrap(), accepted.unwrap()));
        let error = listen(&path).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{} is the socket of a process that runs", path.display()));
        UnixStream::connect(&path).await.expect("it was left alone");
        drop((listener, file));
        assert!(!path.exists());
        let (_listener, file) = listen(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "of somebody else").unwrap();
        drop(file);
        assert!(path.exists(), "what is not ours stays");
        let error = listen(&path).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{} is there and is no socket", path.display()));
        assert!(matches!(listen(&folder.path().join("no/x")).await, Err(SocketFileError::Lock { .. })));
    }

    #[tokio::test]
    async fn of_many_that_start_at_once_over_a_stale_file_one_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let all = futures_util::future::join_all((0..8).map(|_| listen(&path))).await;
        assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 1, "{all:?}");
        UnixStream::connect(&path).await.expect("the one listens there");
    }
}
