//! Randomness behind a trait, so that tests and replays can repeat it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Where random numbers come from.
pub trait Random: Send + Sync + 'static {
    /// Fill the buffer.
    fn fill(&self, buffer: &mut [u8]);

    /// One number, all values equally likely.
    fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// The operating system's generator: fit for secrets.
#[derive(Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, buffer: &mut [u8]) {
        // The system's generator fails only before it is seeded at boot; going on without randomness would be worse.
        getrandom::fill(buffer).expect("the operating system's random generator works");
    }
}

/// SplitMix64 (Steele, Lea & Flood 2014) from a seed: repeatable, not for secrets.
pub struct SeededRandom {
    state: AtomicU64,
}

impl SeededRandom {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> SeededRandom {
        SeededRandom { state: AtomicU64::new(seed) }
    }

    fn next(&self) -> u64 {
        const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.state.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl Random for SeededRandom {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
