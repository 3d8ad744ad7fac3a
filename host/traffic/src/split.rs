//! Who gets which variant.
//!
//! Owns [`Wheel`]: weighted rendezvous hashing (Thaler, Ravishankar 1998; weights by Schindelhauer, Schomaker 2005). Each
//! variant draws a number for each key, from an exponential distribution whose rate is its weight; the smallest wins. A
//! variant's draw depends on the key, its name and the endpoint's salt alone, so:
//!
//! - a key moves from one variant to another only if the other's weight grew against the one's. Growing a share, while the
//!   others shrink alike, only moves keys in; removing a variant only moves its own; the order of variants says nothing;
//! - going back to an earlier plan gives everybody the variant that they had under it.
//!
//! Separate because it is pure. The hash is SipHash-2-4 with a salt that only this host knows: whoever chooses keys cannot
//! choose variants. Bounded by the number of variants; allocates nothing; does not fail.

use siphasher::sip::SipHasher24;

use crate::plan::Split;

/// The secret of an endpoint's hashes.
pub(crate) type Salt = [u8; 16];

struct Arm {
    variant: usize,
    /// One over the weight.
    scale: f64,
    hasher: SipHasher24,
}

/// The shares of a split, made ready.
pub(crate) struct Wheel {
    /// By name, so that equal draws are decided alike whatever the order of the plan.
    arms: Box<[Arm]>,
}

impl Wheel {
    /// `place` gives the number of a variant by its name; variants without one and without a share are left out.
    pub fn new(split: &Split, salt: &Salt, place: impl Fn(&str) -> Option<usize>) -> Wheel {
        let mut shares: Vec<_> = split.shares.iter().filter(|share| share.percent > 0.0).collect();
        shares.sort_by(|a, b| a.variant.cmp(&b.variant));
        let arm = |share: &&crate::plan::Share| {
            Some(Arm {
                variant: place(&share.variant)?,
                scale: 1.0 / share.percent,
                hasher: hasher_of(salt, &share.variant),
            })
        };
        Wheel { arms: shares.iter().filter_map(arm).collect() }
    }

    /// The variant of a key, by its hash.
    pub fn choose(&self, key: u64) -> Option<usize> {
        if let [only] = &*self.arms {
            return Some(only.variant);
        }
        let mut best = (f64::INFINITY, None);
        for arm in &self.arms {
            let draw = exponential(arm.hasher.hash(&key.to_le_bytes())) * arm.scale;
            if draw < best.0 {
                best = (draw, Some(arm.variant));
            }
        }
        best.1
    }
}

/// The hash of a key.
pub(crate) fn key_hash(salt: &Salt, key: &[u8]) -> u64 {
    SipHasher24::new_with_key(salt).hash(key)
}

fn hasher_of(salt: &Salt, variant: &str) -> SipHasher24 {
    let salted = SipHasher24::new_with_key(salt);
    let half = |number: u8| salted.hash(&[&[number], variant.as_bytes()].concat());
    SipHasher24::new_with_keys(half(0), half(1))
}

/// A draw with rate 1 from 53 random bits.
fn exponential(hash: u64) -> f64 {
    let unit = ((hash >> 11) + 1) as f64 * (1.0 / (1_u64 << 53) as f64);
    -unit.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Share;
    use proptest::prelude::*;

    const SALT: Salt = *b"a salt for tests";
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    fn split(weights: &[(&str, f64)]) -> Split {
        let shares = weights.iter().map(|(name, percent)| Share { variant: (*name).into(), percent: *percent });
        Split { shares: shares.collect(), key: None }
    }

    fn place(name: &str) -> Option<usize> {
        NAMES.iter().position(|known| *known == name)
    }

    fn wheel(weights: &[(&str, f64)]) -> Wheel {
        Wheel::new(&split(weights), &SALT, place)
    }

    fn keys(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|user| key_hash(&SALT, format!("user-{user}").as_bytes()))
    }

    #[test]
    fn growing_a_share_from_5_to_20_percent_moves_nobody_out_of_it() {
        let (before, after) = (wheel(&[("a", 95.0), ("b", 5.0)]), wheel(&[("a", 80.0), ("b", 20.0)]));
        let mut joined = 0;
        for key in keys(20_000) {
            let (was, is) = (before.choose(key), after.choose(key));
            assert!(was == is || is == Some(1), "{key} moved from {was:?} to {is:?}");
            joined += u32::from(was != is);
        }
        assert!((2_700..3_300).contains(&joined), "15 % of 20000 should move; {joined} did");
    }

    #[test]
    fn removing_a_variant_moves_only_its_own() {
        let all = [("a", 50.0), ("b", 30.0), ("c", 20.0)];
        let (before, after) = (wheel(&all), wheel(&[("a", 62.5), ("b", 37.5)]));
        for key in keys(20_000) {
            let was = before.choose(key);
            assert!(was == Some(2) || was == after.choose(key));
        }
    }

    #[test]
    fn going_back_gives_everybody_what_they_had() {
        let (before, again) = (wheel(&[("a", 95.0), ("b", 5.0)]), wheel(&[("b", 5.0), ("a", 95.0)]));
        assert!(keys(20_000).all(|key| before.choose(key) == again.choose(key)));
    }

    /// Within five standard deviations of a binomial, for each variant.
    #[test]
    fn shares_are_right_within_the_error_of_sampling() {
        fn check(weights: &[(&str, f64)]) {
            const COUNT: u64 = 50_000;
            let wheel = wheel(weights);
            let mut found = [0_u32; 4];
            keys(COUNT).for_each(|key| found[wheel.choose(key).unwrap()] += 1);
            for (name, percent) in weights {
                let (share, n) = (percent / 100.0, COUNT as f64);
                let error = 5.0 * (n * share * (1.0 - share)).sqrt();
                let count = f64::from(found[place(name).unwrap()]);
                assert!((count - n * share).abs() <= error, "{name}: {count} of {n} for {percent} %");
            }
        }
        check(&[("a", 100.0)]);
        check(&[("a", 99.9), ("b", 0.1)]);
        check(&[("a", 50.0), ("b", 50.0)]);
        check(&[("a", 70.0), ("b", 20.0), ("c", 9.0), ("d", 1.0)]);
    }

    #[test]
    fn another_salt_places_everybody_anew() {
        let even = split(&[("a", 50.0), ("b", 50.0)]);
        let (one, other) = (Wheel::new(&even, &SALT, place), Wheel::new(&even, b"another 16 bytes", place));
        let same = keys(10_000).filter(|key| one.choose(*key) == other.choose(*key)).count();
        assert!((4_700..5_300).contains(&same), "{same} of 10000 stayed");
    }

    #[test]
    fn a_share_of_zero_gets_nobody() {
        let wheel = wheel(&[("a", 100.0), ("b", 0.0)]);
        assert!(keys(5_000).all(|key| wheel.choose(key) == Some(0)));
    }

    fn weights() -> impl Strategy<Value = [u32; 4]> {
        prop::array::uniform4(0_u32..1_000).prop_filter("one has a share", |w| w.iter().sum::<u32>() > 0)
    }

    fn of(weights: &[u32; 4]) -> Wheel {
        let named: Vec<(&str, f64)> = NAMES.into_iter().zip(weights.iter().map(|w| f64::from(*w))).collect();
        wheel(&named)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..Default::default() })]

        /// Of every change of weights: a key moves from one to another only if the other grew against the one.
        #[test]
        fn keys_move_only_towards_what_grew_against_theirs(before in weights(), after in weights()) {
            let (old, new) = (of(&before), of(&after));
            for key in keys(500) {
                let (was, is) = (old.choose(key).unwrap(), new.choose(key).unwrap());
                if was != is {
                    let grew = u64::from(after[is]) * u64::from(before[was]);
                    let stayed = u64::from(before[is]) * u64::from(after[was]);
                    prop_assert!(grew > stayed, "{key}: {was} to {is}, {before:?} to {after:?}");
                }
            }
        }

        /// Growing one variant, whatever the others are: nobody leaves it, and nobody moves between the others.
        #[test]
        fn growing_one_variant_only_moves_keys_into_it(before in weights(), which in 0_usize..4, by in 1_u32..1_000) {
            let mut after = before;
            after[which] += by;
            let (old, new) = (of(&before), of(&after));
            for key in keys(500) {
                let (was, is) = (old.choose(key).unwrap(), new.choose(key).unwrap());
                prop_assert!(was == is || is == which);
            }
        }

        #[test]
        fn the_order_of_variants_says_nothing(weights in weights(), turn in 0_usize..4) {
            let mut named: Vec<(&str, f64)> = NAMES.into_iter().zip(weights.map(f64::from)).collect();
            let straight = wheel(&named);
            named.rotate_left(turn);
            let turned = wheel(&named);
            prop_assert!(keys(300).all(|key| straight.choose(key) == turned.choose(key)));
        }
    }
}
