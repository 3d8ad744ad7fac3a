//! A set of document ordinals, one bit each: what every term of a filter yields.
//!
//! Bounded by the number of ordinals of the index; grows only through [`Bitmap::insert`].

/// A set of ordinals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    /// The empty set with room for `ordinals`.
    pub fn empty(ordinals: usize) -> Bitmap {
        Bitmap { words: vec![0; ordinals.div_ceil(64)] }
    }

    pub fn insert(&mut self, ordinal: u32) {
        let word = ordinal as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (ordinal % 64);
    }

    pub fn remove(&mut self, ordinal: u32) {
        if let Some(word) = self.words.get_mut(ordinal as usize / 64) {
            *word &= !(1 << (ordinal % 64));
        }
    }

    pub fn contains(&self, ordinal: u32) -> bool {
        self.words.get(ordinal as usize / 64).is_some_and(|word| word >> (ordinal % 64) & 1 == 1)
    }

    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Keep what is in both.
    pub fn intersect(&mut self, other: &Bitmap) {
        self.words.truncate(other.words.len());
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= other;
        }
    }

    /// Add what is in the other.
    pub fn unite(&mut self, other: &Bitmap) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    /// Remove what is in the other.
    pub fn subtract(&mut self, other: &Bitmap) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= !other;
        }
    }

    /// The ordinals, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(at as u32 * 64 + bit)
            })
        })
    }

    /// Sixty-four ordinals at a time.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Sixty-four ordinals at a time, to be set.
    pub fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }
}
