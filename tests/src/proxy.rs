//! A small proxy for bytes in front of a real server: it loses answers when told, so that a scenario sees what a network
//! does rarely, and leads to another server when told, as a Service of several replicas does. It understands nothing of what
//! passes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The header by which Elasticsearch is known, and what stands in its place: as long.
const PRODUCT: &[u8] = b"x-elastic-product";
const HIDDEN: &[u8] = b"x-elastic-removed";

#[derive(Debug, Default)]
struct State {
    cutting: AtomicBool,
    hiding: AtomicBool,
    cut: AtomicU64,
    route: Mutex<Route>,
}

/// Where connections lead, and those that are open.
#[derive(Debug, Default)]
struct Route {
    target: String,
    open: Vec<TcpStream>,
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
        let route = Mutex::new(Route { target: target.to_owned(), open: Vec::new() });
        let state = Arc::new(State { route, ..State::default() });
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut route = shared.route();
                let Ok(server) = TcpStream::connect(&route.target) else { continue };
                route.open.extend(client.try_clone());
                drop(route);
                pass(client, server, &shared);
            }
        });
        Self { address, state }
    }

    /// From now on every answer is lost: its connection is closed when its first byte comes. Or no more.
    pub fn cut_answers(&self, cutting: bool) {
        self.state.cutting.store(cutting, Ordering::Release);
    }

    /// From now on answers do not say which product they are from, as proxies do that pass on few headers.
    pub fn hide_product(&self) {
        self.state.hiding.store(true, Ordering::Release);
    }

    /// From now on connections lead to `target`; those that are open are closed.
    pub fn lead_to(&self, target: &str) {
        let mut route = self.state.route();
        target.clone_into(&mut route.target);
        for client in route.open.drain(..) {
            // It may be closed already.
            client.shutdown(Shutdown::Both).ok();
        }
    }

    /// Returns how many answers were lost.
    pub fn answers_cut(&self) -> u64 {
        self.state.cut.load(Ordering::Acquire)
    }
}

impl State {
    fn route(&self) -> std::sync::MutexGuard<'_, Route> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pass(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { return };
    std::thread::spawn(move || copy(from_client, to_server, |_| true));
    let state = state.clone();
    std::thread::spawn(move || {
        copy(server, client, |bytes| {
            if state.hiding.load(Ordering::Acquire) {
                hide(bytes);
            }
            let cutting = state.cutting.load(Ordering::Acquire);
            state.cut.fetch_add(u64::from(cutting), Ordering::AcqRel);
            !cutting
        });
    });
}

/// Gives the header another name; servers write the head of an answer at once.
fn hide(bytes: &mut [u8]) {
    if let Some(at) = bytes.windows(PRODUCT.len()).position(|window| window.eq_ignore_ascii_case(PRODUCT)) {
        bytes[at..at + PRODUCT.len()].copy_from_slice(HIDDEN);
    }
}

/// Copies until one side ends or `go_on` says no, which may change the bytes; then both are closed.
fn copy(mut from: TcpStream, mut to: TcpStream, go_on: impl Fn(&mut [u8]) -> bool) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count) = from.read(&mut chunk) {
        if count == 0 || !go_on(&mut chunk[..count]) || to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    // Either may be closed already.
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}
