//! Where decisions come from: a seed, or a fuzzer's input.

/// A stream of decisions. From a seed it never ends; from bytes, every decision after the last byte
/// is 0, so whatever asks must come to an end with zeros, and should make the simplest thing of them.
#[derive(Debug, Clone)]
pub struct Source<'a>(From<'a>);

#[derive(Debug, Clone)]
enum From<'a> {
    /// The state of a `SplitMix64` (Steele, Lea, Flood, "Fast splittable pseudorandom number
    /// generators", 2014): the fuzz crate has no other generator, and seeds stay what they are.
    Seed(u64),
    Bytes(&'a [u8]),
}

impl<'a> Source<'a> {
    /// Decisions from a seed.
    pub fn seeded(seed: u64) -> Self {
        Self(From::Seed(seed))
    }

    /// Decisions from a fuzzer's input.
    pub fn bytes(bytes: &'a [u8]) -> Self {
        Self(From::Bytes(bytes))
    }

    /// Whether a fuzzer's input is used up.
    pub fn is_empty(&self) -> bool {
        matches!(self.0, From::Bytes([]))
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        match n {
            0 | 1 => 0,
            2..=0x100 => self.take(1) as usize % n,
            0x101..=0x1_0000 => self.take(2) as usize % n,
            _ => (self.take(8) % n as u64) as usize,
        }
    }

    /// True once in so many times, and false where all is 0.
    pub fn chance(&mut self, one_in: usize) -> bool {
        one_in <= 1 || self.below(one_in) == one_in - 1
    }

    /// One of these. Panics if there are none.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.take(8)
    }

    fn take(&mut self, bytes: usize) -> u64 {
        match &mut self.0 {
            From::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }
            From::Bytes(input) => {
                let (now, later) = input.split_at(bytes.min(input.len()));
                *input = later;
                now.iter()
                    .fold(0, |value, byte| value << 8 | u64::from(*byte))
            }
        }
    }
}
