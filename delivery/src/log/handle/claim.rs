//! Idempotency keys: known, on their way, or new.

use bytes::Bytes;

use super::Log;
use crate::event::IdempotencyKey;
use crate::log::state::KeyLookup;

/// A key whose batch is on its way into a log.
#[derive(Debug)]
pub struct KeyClaim {
    log: Log,
    name: (Bytes, Bytes),
}

impl Drop for KeyClaim {
    fn drop(&mut self) {
        self.log.shared().claimed.remove(&self.name);
        self.log.inner.claims.notify_waiters();
    }
}

impl Log {
    /// Returns whether a key came before. When a batch with the same key is on its way, waits for what becomes of it; when
    /// the key is new, it is on its way from now on, until the claim is dropped.
    ///
    /// # Cancel safety
    /// May be cancelled at any time.
    pub async fn claim_key(&self, key: &IdempotencyKey) -> (KeyLookup, Option<KeyClaim>) {
        let name = (key.sender.clone(), key.key.clone());
        loop {
            let changed = self.inner.claims.notified();
            let now_ms = self.running_ms();
            {
                let mut shared = self.shared();
                match shared.state.lookup(key, now_ms) {
                    KeyLookup::New => {}
                    known => return (known, None),
                }
                if shared.claimed.insert(name.clone()) {
                    return (KeyLookup::New, Some(KeyClaim { log: self.clone(), name }));
                }
            }
            changed.await;
        }
    }
}
