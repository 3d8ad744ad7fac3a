//! Build, demo, test, bench: the tools of this repository.
fn main() {}
