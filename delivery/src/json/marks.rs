//! Where strings may end, found for many bytes at once.
//!
//! A mark is a quote, a backslash, a control character, or anything behind the last byte. A block of 64 bytes becomes
//! one word, a bit for each byte; the loop over a block has no branch and compiles to vector instructions. Marks are
//! taken from the word one after the other, never back: where the next one is does not depend on the place it is asked
//! for, so the processor runs ahead of the walk (Langdale and Lemire, "Parsing gigabytes of JSON per second", 2019).

const BLOCK: usize = 64;

/// Blocks looked at together: 1 KiB, more than most events have.
const BLOCKS: usize = 16;

const WINDOW: usize = BLOCK * BLOCKS;

/// The marks of a window of bytes, passed in order.
#[derive(Debug)]
pub(super) struct Marks {
    words: [u64; BLOCKS],
    /// The marks of the block under way that were not passed yet.
    word: u64,
    /// Where that block starts.
    base: usize,
    /// Where the window ends, a multiple of its size.
    end: usize,
}

impl Marks {
    /// Returns the marks of `bytes`, none passed.
    #[inline]
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut marks = Self { words: [u64::MAX; BLOCKS], word: 0, base: 0, end: WINDOW };
        marks.fill(bytes, 0);
        marks.word = marks.words[0];
        marks
    }

    /// Passes marks up to the first one at `at` or behind it, that one too, and returns its place; at the end of the
    /// bytes, or behind it, everything is a mark. Who asks goes forwards only.
    #[expect(clippy::inline_always, reason = "measured: as a call it costs more than it does")]
    #[inline(always)]
    pub(super) fn next(&mut self, bytes: &[u8], at: usize) -> usize {
        loop {
            while self.word == 0 {
                self.base += BLOCK;
                if self.base == self.end {
                    self.next_window(bytes);
                }
                self.word = self.words[self.base / BLOCK % BLOCKS];
            }
            let place = self.base + self.word.trailing_zeros() as usize;
            self.word &= self.word - 1;
            if place >= at {
                return place;
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn next_window(&mut self, bytes: &[u8]) {
        self.words = [u64::MAX; BLOCKS];
        self.fill(bytes, self.base);
        self.end = self.base + WINDOW;
    }

    /// Looks at the window at `start`; words behind the end of the bytes stay as they are, all marks.
    #[inline(never)]
    fn fill(&mut self, bytes: &[u8], start: usize) {
        let (blocks, rest) = bytes.get(start..).unwrap_or_default().as_chunks::<BLOCK>();
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
