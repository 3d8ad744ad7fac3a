//! Names for runs that were given none: an adjective, an animal and a number.
//!
//! Pure: randomness comes in as a number. The words are our own; the shape is the one users know.

const ADJECTIVES: &[&str] = &[
    "agile", "amber", "ample", "avid", "bold", "brave", "brisk", "calm", "candid", "clever", "cosmic", "crisp",
    "curious", "daring", "deft", "eager", "earnest", "fair", "fleet", "fond", "gentle", "glad", "golden", "grand",
    "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry", "mighty",
    "modest", "nimble", "noble", "patient", "placid", "plucky", "polite", "proud", "quick", "quiet", "rapid", "ready",
    "robust", "rustic", "serene", "sharp", "silent", "sleek", "smart", "smooth", "snug", "solid", "spry", "steady",
    "stoic", "sturdy", "subtle", "sunny", "swift", "tender", "tidy", "tough", "trusty", "upbeat", "valiant", "vivid",
    "warm", "wary", "whole", "wise", "witty", "zesty",
];

const ANIMALS: &[&str] = &[
    "ant", "ape", "auk", "bat", "bear", "bee", "bison", "boar", "carp", "cat", "cod", "colt", "crab", "crane", "crow",
    "deer", "dog", "dove", "duck", "eel", "elk", "emu", "ewe", "fawn", "finch", "fish", "flea", "foal", "fox", "frog",
    "gnat", "gnu", "goat", "goose", "grouse", "gull", "hare", "hawk", "hen", "heron", "horse", "hound", "ibex", "jay",
    "kite", "koi", "lamb", "lark", "loon", "lynx", "mare", "mink", "mole", "moose", "moth", "mouse", "mule", "newt",
    "otter", "owl", "panda", "perch", "pika", "pony", "quail", "ram", "raven", "robin", "rook", "seal", "shark",
    "shrew", "skink", "sloth", "snail", "snipe", "squid", "stag", "stork", "swan", "tern", "toad", "trout", "vole",
    "wasp", "whale", "wolf", "wren", "yak", "zebra",
];

/// A name from a random number.
pub fn from_number(number: u64) -> String {
    let pick = |words: &[&'static str], number: u64| words[(number % words.len() as u64) as usize];
    format!("{}-{}-{}", pick(ADJECTIVES, number), pick(ANIMALS, number >> 20), (number >> 40) % 1_000)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_have_the_known_shape() {
        for number in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let name = super::from_number(number);
            let parts: Vec<_> = name.split('-').collect();
            assert!(parts.len() == 3 && parts[2].parse::<u16>().is_ok_and(|n| n < 1_000) && name.len() <= 20, "{name}");
        }
    }
}
