//! The floors of the house: each room imports only rooms on floors below.

use crate::{refuse, root};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Every room, from the ground up. A room that is not here has no place yet: give it one, below everything that needs it.
const FLOORS: &[&[&str]] = &[
    &["mainstay-base"],
    &[
        "mainstay-log",
        "mainstay-arrays",
        "mainstay-inference",
        "mainstay-runtime",
        "mainstay-bindings",
        "mainstay-market",
    ],
    &["mainstay-store", "mainstay-statistics", "mainstay-models"],
    &[
        "mainstay-directory",
        "mainstay-networks",
        "mainstay-cuda",
        "mainstay-kernels",
        "mainstay-schedule",
        "mainstay-tables",
        "mainstay-events",
        "mainstay-traffic",
    ],
    &["mainstay-outbound", "mainstay-predictions", "mainstay-sql", "mainstay-upstreams"],
    &["mainstay-interfaces"],
    &["mainstay-serving"],
    &["mainstay-gateway"],
    &["mainstay"],
    &["mainstay-sdk", "mainstay-testing", "xtask"],
    &["mainstay-tests"],
];

/// What stores, schedules, computes and moves. Knows nothing of components.
const MECHANISMS: &[&str] = &[
    "mainstay-log",
    "mainstay-store",
    "mainstay-directory",
    "mainstay-schedule",
    "mainstay-arrays",
    "mainstay-statistics",
    "mainstay-models",
    "mainstay-networks",
    "mainstay-cuda",
    "mainstay-kernels",
    "mainstay-tables",
    "mainstay-events",
    "mainstay-outbound",
    "mainstay-predictions",
    "mainstay-sql",
    "mainstay-inference",
    "mainstay-traffic",
    "mainstay-upstreams",
];
/// What runs components. Knows nothing of mechanisms.
const COMPONENTS: &[&str] = &["mainstay-runtime", "mainstay-bindings"];
/// The one room that sees both, and what stands above the house and wires or tests it.
const SEES_BOTH: &[&str] =
    &["mainstay-interfaces", "mainstay-serving", "mainstay", "mainstay-testing", "mainstay-tests"];

/// Families that are slow to compile, and the only rooms that may pull them in.
const HEAVY: &[(&str, &[&str])] = &[
    ("wasmtime", &["mainstay-runtime", "mainstay-bindings", "mainstay-interfaces"]),
    ("sled", &["mainstay-store"]),
    ("redb", &["mainstay-store"]),
    ("rten", &["mainstay-networks"]),
    ("ort", &["mainstay-networks"]),
    ("cudarc", &["mainstay-cuda"]),
    ("tokio-rustls", &["mainstay-outbound", "mainstay-upstreams"]),
    ("datafusion", &["mainstay-sql"]),
    ("parquet", &["mainstay-tables"]),
    ("tonic", &["mainstay-gateway", "mainstay-inference", "mainstay-upstreams"]),
    ("axum", &["mainstay-gateway"]),
];

fn metadata() -> Metadata {
    MetadataCommand::new().current_dir(root()).no_deps().exec().expect("cargo describes the workspace")
}

/// Names of what a room is built from; what only its tests need is left out.
fn built_from(package: &Package) -> impl Iterator<Item = &str> {
    package.dependencies.iter().filter(|each| each.kind != DependencyKind::Development).map(|each| each.name.as_str())
}

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&name))
}

#[test]
fn each_room_imports_only_rooms_on_floors_below() {
    let mut problems = Vec::new();
    for package in &metadata().packages {
        let Some(own) = floor(&package.name) else {
            problems.push(format!("`{}` has no floor; add it to FLOORS", package.name));
            continue;
        };
        for import in built_from(package) {
            if floor(import).is_some_and(|below| below >= own) {
                problems.push(format!("`{}` imports `{import}`, which is not on a floor below", package.name));
            }
        }
    }
    refuse("each room imports only rooms on floors below", &problems);
}

/// The house as docs/architecture.md shows it: floor and room, for each row of its table.
fn shown_floors() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join("docs/architecture.md")).expect("the page is there");
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let floor = cells.next()?.parse::<usize>().ok()?.to_string();
        Some((floor, cells.next()?.to_owned()))
    });
    let one = |(floor, rooms): (String, String)| {
        let rooms: Vec<String> = rooms.split(", ").map(|room| room.trim_matches('`').to_owned()).collect();
        rooms.into_iter().map(move |room| (floor.clone(), room))
    };
    rows.flat_map(one).collect()
}

#[test]
fn the_architecture_page_shows_these_floors() {
    let mut held = Vec::new();
    for (floor, rooms) in FLOORS.iter().enumerate() {
        for room in *rooms {
            let folder = format!("host/{}", room.strip_prefix("mainstay-").unwrap_or(room));
            if root().join(&folder).is_dir() {
                held.push((floor.to_string(), folder));
            }
        }
    }
    let mut shown = shown_floors();
    held.sort();
    shown.sort();
    assert!(held.len() > 8, "{held:?}");
    assert_eq!(shown, held, "docs/architecture.md shows other floors than tests/tidy/floors.rs");
}

#[test]
fn only_interfaces_sees_mechanisms_and_components() {
    let mut problems = Vec::new();
    for package in &metadata().packages {
        let imports: Vec<&str> = built_from(package).collect();
        let sees = |rooms: &[&str]| rooms.iter().any(|room| imports.contains(room) || package.name.as_str() == *room);
        if sees(MECHANISMS) && sees(COMPONENTS) && !SEES_BOTH.contains(&package.name.as_str()) {
            problems.push(format!("`{}` sees a mechanism and the components' side", package.name));
        }
    }
    refuse("mechanisms never import what runs components; only interfaces sees both", &problems);
}

#[test]
fn slow_families_stay_behind_their_rooms() {
    let mut problems = Vec::new();
    for package in &metadata().packages {
        for (family, rooms) in HEAVY {
            let pulls = built_from(package).any(|import| import == *family);
            if pulls && !rooms.contains(&package.name.as_str()) {
                problems.push(format!(
                    "`{}` pulls in `{family}`, which belongs behind {}",
                    package.name,
                    rooms.join(", ")
                ));
            }
        }
    }
    refuse("families that are slow to compile stay behind the room that needs them", &problems);
}

#[test]
fn a_dependency_has_one_version_for_the_whole_house() {
    let mut problems = Vec::new();
    for package in &metadata().packages {
        let text = std::fs::read_to_string(&package.manifest_path).expect("a manifest is there");
        let mut in_dependencies = false;
        for line in text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && line.contains('=') && !line.starts_with('#') && !line.contains("workspace") {
                problems.push(format!("{}: `{line}`", package.name));
            }
        }
    }
    refuse("versions stand in the workspace's Cargo.toml only", &problems);
}
