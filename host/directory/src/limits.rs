//! Every limit of the directory. Crossing one is `invalid`, and the message names it.

/// The longest kind of a node, and the longest relation of an edge.
pub const WORD_BYTES_MAX: usize = 64;
/// The longest name of a subject.
pub const NAME_BYTES_MAX: usize = 512;
/// The longest name of a pointer, and the longest key of a label.
pub const KEY_BYTES_MAX: usize = 256;
/// The longest value of a label.
pub const LABEL_VALUE_BYTES_MAX: usize = 8 << 10;
/// Most labels in one call.
pub const LABELS_PER_CALL_MAX: usize = 1_000;
/// Most attachments of one node; each takes four operations of a transaction.
pub const ATTACHMENTS_MAX: usize = 1_000;
/// Most subjects that one call lists.
pub const SUBJECTS_LIMIT_MAX: u32 = 10_000;
/// Most edges that one call lists.
pub const EDGES_MAX: usize = 10_000;
/// Most protection rules, pieces of evidence of a rule, and steps of a path.
pub const RULES_MAX: usize = 1_000;
/// See [`RULES_MAX`].
pub const EVIDENCE_PER_RULE_MAX: usize = 64;
/// See [`RULES_MAX`].
pub const PATH_STEPS_MAX: usize = 8;
/// How many edges a search for evidence looks at.
pub const SEARCHED_EDGES_MAX: usize = 5_000;
