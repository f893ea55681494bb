//! Where strings may end, found for many bytes at once.
//!
//! A mark is a quote, a backslash, a control character, or anything behind the last byte. A block of 64 bytes becomes
//! one word, a bit for each byte; the loop over a block has no branch and compiles to vector instructions. Finding the
//! next mark then is a shift and a count, however long the strings are: it waits for no comparison of bytes.

const BLOCK: usize = 64;

/// Blocks looked at together: 1 KiB, more than most events have.
const BLOCKS: usize = 16;

const WINDOW: usize = BLOCK * BLOCKS;

/// The marks of a window of bytes, and of the block behind it.
#[derive(Debug)]
pub(super) struct Marks {
    words: [u64; BLOCKS + 1],
    /// Where the window starts, a multiple of the block.
    start: usize,
}

impl Marks {
    /// Returns the marks at the start of `bytes`.
    #[inline]
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut marks = Self { words: [u64::MAX; BLOCKS + 1], start: 0 };
        marks.move_to(bytes, 0);
        marks
    }

    /// Returns the place of the first mark from `at` on; at the end of the bytes, or behind it, that is `at` itself.
    #[expect(clippy::inline_always, reason = "measured: as a call it costs more than it does")]
    #[inline(always)]
    pub(super) fn next(&mut self, bytes: &[u8], mut at: usize) -> usize {
        loop {
            if at.wrapping_sub(self.start) >= WINDOW {
                self.move_to(bytes, at);
            }
            let (block, shift) = ((at - self.start) / BLOCK, at % BLOCK);
            let marks = self.words[block] >> shift | self.words[block + 1] << 1 << (BLOCK - 1 - shift);
            if marks != 0 {
                return at + marks.trailing_zeros() as usize;
            }
            at += BLOCK;
        }
    }

    #[inline(never)]
    fn move_to(&mut self, bytes: &[u8], at: usize) {
        self.start = at - at % BLOCK;
        let (blocks, rest) = bytes.get(self.start..).unwrap_or_default().as_chunks::<BLOCK>();
        let mut words = self.words.iter_mut();
        for (block, word) in blocks.iter().zip(words.by_ref()) {
            *word = marks_of(block);
        }
        if let Some(word) = words.next() {
            // Zero is a mark, so the end is one.
            let mut block = [0; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            *word = marks_of(&block);
        }
        words.for_each(|word| *word = u64::MAX);
    }
}

/// Returns a bit for each byte, the first lowest.
#[inline]
fn marks_of(block: &[u8; BLOCK]) -> u64 {
    // First all bytes become 0 or 255, by vectors; then each eight of them become eight bits: byte n keeps its bit n,
    // and the product adds them up in the highest byte.
    let all = block.map(|byte| if byte == b'"' || byte == b'\\' || byte < b' ' { 0xff } else { 0 });
    let mut word = 0;
    for (index, eight) in all.as_chunks::<8>().0.iter().enumerate() {
        let bits = u64::from_le_bytes(*eight) & 0x8040_2010_0804_0201;
        word |= bits.wrapping_mul(0x0101_0101_0101_0101) >> 56 << (8 * index);
    }
    word
}
