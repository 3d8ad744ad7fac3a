//! What plugins share and what the host's own mechanisms look up: named subjects, their versions with blobs and labels,
//! edges between them, and pointers to versions.
//!
//! Owns the layout of these things in the ordered keys, who may change them, and *protected* pointers: the operator's
//! configuration names evidence that a version needs before such a pointer may move to it, whoever asks. Separate from
//! the store because it has opinions about ownership, and from plugins because a rule that a plugin enforces is a rule
//! that the next plugin does not.
//!
//! Writing adds to a transaction; what a write relies on becomes a guard, so that it still holds when it commits. Reading
//! sees one view, the newest durable state unless another one is given.
//!
//! Bounded by the limits in [`limits`]. On failure: a write that cannot be made is an error at once where that is known,
//! and at the commit where it is not; nothing is half made.
#![forbid(unsafe_code)]

mod directory;
mod evidence;
mod keys;
pub mod limits;
mod model;
mod read;
#[cfg(test)]
mod tests;

pub use directory::Directory;
pub use evidence::{Evidence, LabelEvidence, ProtectionRule};
pub use model::{Attachment, Description, Edge, FoundEdge, Label, Node, Pointer};
pub use read::At;
