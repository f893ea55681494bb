//! A listener on a free port with a thread per connection, for receivers.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

/// The listener. Dropping it stops listening.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Server {
    /// Starts listening; `serve` is called for each connection, on its own thread.
    pub(super) fn start(
        serve: impl Fn(TcpStream) -> anyhow::Result<()> + Clone + Send + 'static,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening for a receiver")?;
        let server = Self { address: listener.local_addr()?, stopped: Arc::default() };
        let stopped = Arc::clone(&server.stopped);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let serve = serve.clone();
                // A connection that breaks shows as what is missing in the end.
                std::thread::spawn(move || drop(serve(stream)));
            }
        });
        Ok(server)
    }

    /// Returns where it listens.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the thread that waits for a connection.
        drop(TcpStream::connect(self.address));
    }
}
