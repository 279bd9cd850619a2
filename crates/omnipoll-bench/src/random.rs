//! Numbers that look random and are the same in every run.

/// Marsaglia's xorshift.
pub struct Random(u64);

impl Random {
    /// Always the same numbers.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// The next number.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    /// The next number, below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Another order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        (1..all.len()).for_each(|index| all.swap(index, self.below(index as u64 + 1) as usize));
    }
}
