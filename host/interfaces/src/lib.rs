//! The host side of every import, and the calls into every world.
