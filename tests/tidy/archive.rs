//! Packages of released contracts still run.
//!
//! `tests/archive/` holds a guest book built against each released version of the contract, as it was packed then. It is
//! never built again: whoever breaks a compiled plugin learns it here.

use crate::root;
use mainstay_testing::TestHost;
use std::fs;
use std::path::PathBuf;

fn packages() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("tests/archive")).expect("the archive is there");
    let files = folder.map(|entry| entry.expect("the archive can be read").path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "mainstay")).collect()
}

#[test]
fn every_released_contract_is_still_kept() {
    let packages = packages();
    assert!(!packages.is_empty(), "the archive has no package");
    for package in packages {
        let host = TestHost::new().install(&package).unwrap_or_else(|error| panic!("{}: {error:?}", package.display()));
        let put = host.call("PUT", "/hello/guests/ada", r#"{"message": "was here"}"#);
        assert_eq!(put.status, 200, "{}: {put:?}", package.display());
        let list = host.call("GET", "/hello/guests", "");
        assert!(list.as_text().contains("ada"), "{}: {list:?}", package.display());
    }
}
