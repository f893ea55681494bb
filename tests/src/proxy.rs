//! A small proxy for bytes in front of a real server: it loses answers when told, so that a scenario sees what a network
//! does rarely. It understands nothing of what passes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is read at once.
const CHUNK_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
struct State {
    cutting: AtomicBool,
    cut: AtomicU64,
}

/// The proxy; its threads end with their connections.
#[derive(Debug)]
pub struct CuttingProxy {
    /// Where it listens.
    pub address: String,
    state: Arc<State>,
}

impl CuttingProxy {
    /// Starts in front of `target`.
    pub fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::new(State::default());
        let (shared, target) = (state.clone(), target.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                pass(client, server, &shared);
            }
        });
        Self { address, state }
    }

    /// From now on every answer is lost: its connection is closed when its first byte comes. Or no more.
    pub fn cut_answers(&self, cutting: bool) {
        self.state.cutting.store(cutting, Ordering::Release);
    }

    /// Returns how many answers were lost.
    pub fn answers_cut(&self) -> u64 {
        self.state.cut.load(Ordering::Acquire)
    }
}

fn pass(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { return };
    std::thread::spawn(move || copy(from_client, to_server, |_| true));
    let state = state.clone();
    std::thread::spawn(move || {
        copy(server, client, |_| {
            let cutting = state.cutting.load(Ordering::Acquire);
            state.cut.fetch_add(u64::from(cutting), Ordering::AcqRel);
            !cutting
        });
    });
}

/// Copies until one side ends or `go_on` says no; then both are closed.
fn copy(mut from: TcpStream, mut to: TcpStream, go_on: impl Fn(&[u8]) -> bool) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count) = from.read(&mut chunk) {
        if count == 0 || !go_on(&chunk[..count]) || to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    // Either may be closed already.
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}
