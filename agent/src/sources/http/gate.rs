//! Lets in who may send a request.

use std::net::IpAddr;

use http::HeaderMap;
use tokio_rustls::TlsAcceptor;

use super::answer::Refused;
use crate::sources::pushed::security::ListenerSecurity;
use crate::sources::pushed::sender::{Sender, Way};

/// Lets in who may send.
pub(in crate::sources) trait Gate: Send + Sync + 'static {
    /// Returns who sends a request with these headers from `address`.
    fn admit(&self, headers: &HeaderMap, address: IpAddr) -> Result<Sender, Refused>;

    /// Returns whether senders are told apart, and so are held to a share each.
    fn tells_apart(&self) -> bool;

    /// Returns what speaks TLS with clients; `None` where the listener is plain.
    fn tls(&self) -> Option<TlsAcceptor>;
}

impl Gate for ListenerSecurity {
    /// Lets in whoever shows the token, or whoever reaches a loopback address where there is none.
    fn admit(&self, headers: &HeaderMap, _: IpAddr) -> Result<Sender, Refused> {
        let shown = headers.get(http::header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        if self.admits(shown) {
            Ok(Sender::anybody(Way::Http, if self.has_token() { "token" } else { "loopback" }))
        } else {
            Err(Refused::unauthorized())
        }
    }

    fn tells_apart(&self) -> bool {
        false
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        ListenerSecurity::tls(self).cloned()
    }
}
