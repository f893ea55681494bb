//! Where listeners are, as a user writes it: an address, or the file of a socket, or `off`. Pure, but for the folder of the file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::list::{SYSLOG_TCP, SYSLOG_TLS, SYSLOG_UDP};
use super::{Layers, SettingError};
use crate::cli::RunFlags;

/// Most bytes of the path of a Unix socket: the kernel has 108 for it and the byte that ends it.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Where messages of syslog are taken; `None` is nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyslogListeners {
    /// Over TCP, at loopback.
    pub tcp: Option<SocketAddr>,
    /// Over TLS, of those who show a certificate.
    pub tls: Option<SocketAddr>,
    /// In datagrams, at loopback.
    pub udp: Option<SocketAddr>,
}

impl SyslogListeners {
    /// Settles them.
    pub(super) fn settle(layers: &Layers<'_>, flags: &RunFlags) -> Result<Self, SettingError> {
        Ok(Self {
            tcp: layers.parsed(&SYSLOG_TCP, flags.syslog_tcp.as_ref(), address)?.flatten(),
            tls: layers.parsed(&SYSLOG_TLS, flags.syslog_tls.as_ref(), address)?.flatten(),
            udp: layers.parsed(&SYSLOG_UDP, flags.syslog_udp.as_ref(), address)?.flatten(),
        })
    }
}

/// Returns `Some(None)` for `off`.
#[expect(clippy::option_option, reason = "the outer says whether it is understood, the inner whether it is on")]
pub(super) fn address(text: &str) -> Option<Option<SocketAddr>> {
    if text == "off" { Some(None) } else { text.parse().ok().map(Some) }
}

/// Returns `Some(None)` for `off`.
#[expect(clippy::option_option, reason = "the outer says whether it is understood, the inner whether it is on")]
pub(super) fn socket(text: &str) -> Option<Option<PathBuf>> {
    if text == "off" {
        return Some(None);
    }
    let path = PathBuf::from(text);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let is_one =
        (1..=SOCKET_PATH_BYTES_MAX).contains(&text.len()) && !text.contains('\0') && path.file_name().is_some();
    (is_one && folder.is_dir()).then_some(Some(path))
}
