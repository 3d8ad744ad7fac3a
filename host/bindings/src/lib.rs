//! Generated bindings for the worlds, and nothing else.
