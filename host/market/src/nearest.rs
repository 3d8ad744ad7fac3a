//! "Did you mean …?"
//!
//! Owns the one measure of likeness between names, so that every message guesses alike. Bounded by its arguments; finds
//! nothing rather than something far off.

/// The candidate most like `given`, if one is like it enough to be a slip of the pen.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LIKE_ENOUGH: f64 = 0.75;
    let given = given.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&given, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= LIKE_ENOUGH)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        fn check(given: &str, expect: Option<&str>) {
            assert_eq!(nearest(given, ["keys", "index", "blobs", "directory.read"]), expect, "{given}");
        }
        check("key", Some("keys"));
        check("Blob", Some("blobs"));
        check("directory-read", Some("directory.read"));
        check("network", None);
        check("", None);
    }
}
