//! Memory of batches, used again.
//!
//! A batch of some hundred KiB in fresh memory costs one page fault for every 4 KiB: more than writing it costs. So a
//! source takes its buffers here, and each comes back when the last view of the batch is gone, which is when the log
//! lets go of its frame. The same holds for bodies of requests, which come back when they are sent.
//!
//! Limits: [`KEPT_BYTES_MAX`] are kept for a source, and what [`Arenas::keeping`] says for others; buffers below
//! [`KEPT_BYTES_MIN`] are left to the allocator, which has such at hand. A buffer is at most twice as large as what was asked
//! for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Most bytes of buffers that wait to be used again: five turns of a log reader, each with an eighth to spare, which is what
/// the delivery of one batch gives back at once; or 15 bodies of 400 KB.
pub const KEPT_BYTES_MAX: usize = 6 << 20;

/// Least bytes of a buffer that is worth keeping.
pub const KEPT_BYTES_MIN: usize = 32 << 10;

/// Buffers that came back. A clone shares them.
#[derive(Debug, Clone)]
pub struct Arenas {
    kept: Arc<Mutex<Kept>>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Default for Arenas {
    fn default() -> Self {
        Self::keeping(KEPT_BYTES_MAX)
    }
}

/// A buffer on its way through the log.
#[derive(Debug)]
struct Lent {
    buffer: Vec<u8>,
    home: Arenas,
}

impl Arenas {
    /// Returns arenas of which at most `bytes_max` bytes wait to be used again.
    pub fn keeping(bytes_max: usize) -> Self {
        Self { kept: Arc::default(), bytes_max }
    }

    /// Returns an empty buffer with room for `bytes`.
    pub fn take(&self, bytes: usize) -> Vec<u8> {
        let mut kept = self.kept();
        let fits = |buffer: &Vec<u8>| (bytes..=bytes.saturating_mul(2)).contains(&buffer.capacity());
        match kept.buffers.iter().rposition(fits) {
            Some(index) => {
                let buffer = kept.buffers.swap_remove(index);
                kept.bytes -= buffer.capacity();
                buffer
            }
            None => {
                drop(kept);
                Vec::with_capacity(bytes)
            }
        }
    }

    /// Returns what is in `buffer`, in memory of about its own size, which comes back with the last view of it.
    pub fn seal(&self, mut buffer: Vec<u8>) -> Bytes {
        if buffer.capacity() > 2 * buffer.len() {
            buffer.shrink_to_fit();
        }
        if buffer.capacity() < KEPT_BYTES_MIN {
            return buffer.into();
        }
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }

    fn take_back(&self, mut buffer: Vec<u8>) {
        let mut kept = self.kept();
        if kept.bytes + buffer.capacity() <= self.bytes_max {
            buffer.clear();
            kept.bytes += buffer.capacity();
            kept.buffers.push(buffer);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.take_back(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(arenas: &Arenas, bytes: usize) -> Bytes {
        let mut buffer = arenas.take(bytes);
        assert!(buffer.is_empty() && buffer.capacity() >= bytes);
        buffer.resize(bytes, 7);
        arenas.seal(buffer)
    }

    #[test]
    fn a_buffer_comes_back_with_the_last_view_of_it() {
        let arenas = Arenas::default();
        let whole = sealed(&arenas, 100_000);
        let (at, part) = (whole.as_ptr(), whole.slice(50_000..));
        drop(whole);
        assert!(arenas.kept().buffers.is_empty());
        assert!(part.iter().all(|byte| *byte == 7));
        drop(part);
        assert_eq!(sealed(&arenas, 90_000).as_ptr(), at);
    }

    #[test]
    fn a_buffer_far_too_large_is_not_used_and_none_is_kept_beyond_the_bound() {
        let arenas = Arenas::default();
        drop(sealed(&arenas, 1 << 20));
        drop(sealed(&arenas, 40_000));
        assert_eq!(arenas.kept().buffers.len(), 2);
        let many: Vec<Bytes> = (0..9).map(|_| sealed(&arenas, 1 << 20)).collect();
        drop(many);
        let kept = arenas.kept();
        assert!(kept.bytes <= KEPT_BYTES_MAX);
        assert_eq!(kept.bytes, kept.buffers.iter().map(Vec::capacity).sum::<usize>());
    }

    #[test]
    fn a_buffer_that_was_hardly_filled_is_not_kept_whole() {
        let arenas = Arenas::default();
        let mut buffer = arenas.take(1 << 20);
        buffer.resize(100_000, 1);
        drop(arenas.seal(buffer));
        assert!(arenas.kept().bytes <= 200_000);
        drop(sealed(&arenas, 100));
        assert_eq!(arenas.kept().buffers.len(), 1);
    }
}
