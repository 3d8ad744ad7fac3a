//! The list of capabilities: what a manifest may ask for, and what an operator is shown before granting it.
//!
//! One of the two lists that register things (the other is [`crate::worlds::WORLDS`]). A new interface adds its rows
//! here and its file under `imports/`.

use mainstay_runtime::Capability;

/// The plugin's own ordered key space, and transactions.
pub const KEYS: Capability =
    Capability { bit: 0, name: "keys", allows: "keep data of its own: ordered keys, changed in transactions" };
/// The plugin's own indexes.
pub const INDEX: Capability =
    Capability { bit: 1, name: "index", allows: "keep indexes of its own over what it stores, and search them" };
/// The plugin's own blobs.
pub const BLOBS: Capability =
    Capability { bit: 2, name: "blobs", allows: "store large files under names of its own, and read them back" };
/// Reading what plugins share.
pub const DIRECTORY_READ: Capability = Capability {
    bit: 3,
    name: "directory.read",
    allows: "see the subjects, versions, labels, edges and pointers that plugins share",
};
/// Writing what plugins share.
pub const DIRECTORY_WRITE: Capability = Capability {
    bit: 4,
    name: "directory.write",
    allows: "create and change subjects and versions of its own, connect them, and move their pointers",
};

/// Computing on columns that the host holds.
pub const ARRAYS: Capability = Capability {
    bit: 5,
    name: "arrays",
    allows: "compute on columns that the host holds, without seeing their values",
};
/// Reading the values of columns.
pub const ARRAYS_READ: Capability =
    Capability { bit: 6, name: "arrays.read", allows: "read the values of columns that the host holds" };
/// Loading models and applying them.
pub const MODELS: Capability =
    Capability { bit: 7, name: "models", allows: "load models from its blobs and apply them to columns" };

/// Publishing events.
pub const EVENTS_PUBLISH: Capability =
    Capability { bit: 8, name: "events.publish", allows: "publish events to topics of its own" };
/// Being told of events: checked when the plugin starts, because the host calls then and not the plugin.
pub const EVENTS_SUBSCRIBE: Capability = Capability {
    bit: 9,
    name: "events.subscribe",
    allows: "be told of the events of the topics that its manifest names",
};
/// Starting jobs.
pub const JOBS_START: Capability =
    Capability { bit: 10, name: "jobs.start", allows: "start those jobs of the operator's that name it" };
/// Calling other hosts.
pub const OUTBOUND: Capability = Capability {
    bit: 11,
    name: "outbound",
    allows: "call the hosts that the operator grants it, and keep secrets for that",
};
/// Making and filling tables.
pub const TABLES_APPEND: Capability =
    Capability { bit: 12, name: "tables.append", allows: "make tables of its own and append rows to them" };
/// Reading tables.
pub const TABLES_READ: Capability = Capability { bit: 13, name: "tables.read", allows: "read the rows of all tables" };
/// Judging tables that cannot be read.
pub const TABLES_AGGREGATE: Capability = Capability {
    bit: 14,
    name: "tables.aggregate",
    allows: "compute aggregates over the rows of all tables without seeing them",
};

/// Asking endpoints.
pub const TRAFFIC_INFER: Capability =
    Capability { bit: 15, name: "traffic.infer", allows: "ask the models behind endpoints and see their answers" };
/// Looking at endpoints.
pub const TRAFFIC_READ: Capability = Capability {
    bit: 16,
    name: "traffic.read",
    allows: "see which endpoints there are, and which variant answers whom",
};

/// All of them.
pub const REGISTERED: &[Capability] = &[
    KEYS,
    INDEX,
    BLOBS,
    DIRECTORY_READ,
    DIRECTORY_WRITE,
    ARRAYS,
    ARRAYS_READ,
    MODELS,
    EVENTS_PUBLISH,
    EVENTS_SUBSCRIBE,
    JOBS_START,
    OUTBOUND,
    TABLES_APPEND,
    TABLES_READ,
    TABLES_AGGREGATE,
    TRAFFIC_INFER,
    TRAFFIC_READ,
];

/// Names and what they allow, for manifests, prompts and references.
pub const CAPABILITIES: &[(&str, &str)] = &{
    let mut rows = [("", ""); REGISTERED.len()];
    let mut at = 0;
    while at < rows.len() {
        rows[at] = (REGISTERED[at].name, REGISTERED[at].allows);
        at += 1;
    }
    rows
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_are_distinct() {
        for (at, one) in REGISTERED.iter().enumerate() {
            assert!(one.bit < Capability::AMBIENT.bit, "{}", one.name);
            assert_eq!(CAPABILITIES[at], (one.name, one.allows));
            for other in &REGISTERED[at + 1..] {
                assert!(one.bit != other.bit && one.name != other.name, "{} and {}", one.name, other.name);
            }
        }
    }
}
