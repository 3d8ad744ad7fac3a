//! Hostile bytes for the document of a model's graph: what is taken in has a canonical form that is taken in again.
#![no_main]

use mainstay_models::graph::Graph;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(graph) = Graph::parse(bytes) {
        let again = Graph::parse(&graph.canonical()).expect("the canonical form is a document");
        assert_eq!(again.digest(), graph.digest());
    }
});
