//! `mainstay plugin …` on a folder that no server uses.

use crate::support::{Place, answering, trapping};
use std::fs;

#[test]
fn nothing_happens_without_a_yes() {
    let place = Place::new();
    let folder = place.plugin("box", 204, "");
    insta::assert_snapshot!("install_asks", place.told(&place.run_with(&["plugin", "install", &folder], "n\n")));
    let silent = place.told(&place.run(&["plugin", "install", &folder]));
    assert!(silent.starts_with("exit 2") && silent.contains("nothing was changed; `--yes`"), "{silent}");
    assert!(!place.data().join("plugins/plugins.lock").exists());
    insta::assert_snapshot!("list_empty", place.told(&place.run(&["plugin", "list"])));
}

#[test]
fn install_list_info_remove() {
    let place = Place::new();
    let folder = place.plugin("box", 204, "");
    insta::assert_snapshot!("install", place.told(&place.run_with(&["plugin", "install", &folder], "y\n")));
    insta::assert_snapshot!("list", place.told(&place.run(&["plugin", "list"])));
    insta::assert_snapshot!("info", place.told(&place.run(&["plugin", "info", "box"])));
    insta::assert_snapshot!("info_unknown", place.told(&place.run(&["plugin", "info", "bo"])));
    let again = place.run(&["plugin", "install", &folder, "--yes", "--without", "blobs"]);
    insta::assert_snapshot!("install_again", place.told(&again));
    let json = place.must(&["plugin", "info", "box", "--json"]);
    let detail: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(detail["grants"], serde_json::json!(["keys"]));
    let silent = place.told(&place.run(&["plugin", "remove", "box"]));
    assert!(silent.starts_with("exit 2") && silent.contains("nothing was changed; `--yes`"), "{silent}");
    insta::assert_snapshot!("remove", place.told(&place.run_with(&["plugin", "remove", "box"], "y\n")));
    insta::assert_snapshot!("remove_again", place.told(&place.run(&["plugin", "remove", "box", "--yes"])));
}

#[test]
fn a_package_file_is_the_same_as_its_folder() {
    let place = Place::new();
    let folder = place.plugin("box", 204, "");
    let file = place.path("box.mainstay");
    let written = mainstay_market::Package::write(folder.as_ref(), &file).unwrap();
    let from_folder = place.must(&["plugin", "info", &folder]);
    let from_file = place.must(&["plugin", "info", &file.display().to_string()]);
    assert_eq!(from_folder, from_file);
    assert!(from_file.contains(&written.digest));
}

#[test]
fn what_cannot_be_installed_says_why() {
    let place = Place::new();
    let check = |name: &str, arguments: &[&str]| {
        let mut all = vec!["plugin", "install", "--yes"];
        all.extend(arguments);
        insta::assert_snapshot!(name, place.told(&place.run(&all)));
    };
    check("refused_unknown_name", &["tracker"]);
    check("refused_missing_file", &["./nowhere.mainstay"]);
    let folder = place.plugin("box", 204, "");
    check("refused_stranger_right", &[&folder, "--without", "index"]);
    check("refused_settings", &[&folder, "--set", "days=3"]);
    place.must(&["plugin", "install", "--yes", &folder]);

    let manifest = place.path("plugins-can/plugin.toml");
    let folder = place.plugin("can", 204, "[limits]\nmemory-mib = 0\n");
    check("refused_manifest", &[&folder]);
    place.plugin("can", 204, "");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("[\"keys\", \"blobs\"]", "[\"key\"]")).unwrap();
    check("refused_capability", &[&folder]);
    fs::write(&manifest, text.replace("api@0.1.0", "api@0.9.0")).unwrap();
    check("refused_world", &[&folder]);
    fs::write(&manifest, text.replace("path = \"/can\"", "prefix = \"/box/\"").replace("/can\"", "/box\"")).unwrap();
    assert!(place.run(&["plugin", "install", "--yes", &folder]).status.success(), "`/box` and `/box/…` do not meet");
    place.must(&["plugin", "remove", "can", "--yes"]);
    fs::write(&manifest, text.replace("path = \"/can\"", "path = \"/box\"")).unwrap();
    check("refused_overlap", &[&folder]);
    fs::write(&manifest, &text).unwrap();
    fs::write(place.path("plugins-can/answer.wasm"), b"no component").unwrap();
    check("refused_no_component", &[&folder]);
    let mut broken = answering(204);
    let middle = broken.len() / 2;
    broken[middle] ^= 0xff;
    fs::write(place.path("plugins-can/answer.wasm"), broken).unwrap();
    let output = place.run(&["plugin", "install", "--yes", &folder]);
    assert_eq!(output.status.code(), Some(2), "{}", place.told(&output));
    assert_eq!(place.must(&["plugin", "list"]).lines().count(), 1, "only the first is installed");
}

#[test]
fn settings_come_from_a_file_and_from_the_line() {
    let place = Place::new();
    let folder = place.plugin("box", 204, "[config]\nschema = \"c.json\"\n");
    let schema = r#"{"type": "object", "additionalProperties": false,
        "properties": {"days": {"type": "integer", "minimum": 1, "default": 30}, "city": {"type": "string"}}}"#;
    fs::write(place.path("plugins-box/c.json"), schema).unwrap();
    fs::write(place.path("s.toml"), "city = \"Ulm\"\ndays = 0\n").unwrap();
    let install = |more: &[&str]| {
        let mut all = vec!["plugin", "install", "--yes", &folder];
        all.extend(more);
        place.run(&all)
    };
    insta::assert_snapshot!("settings_refused", place.told(&install(&["--settings", "s.toml"])));
    let settings = || {
        let detail: serde_json::Value =
            serde_json::from_str(&place.must(&["plugin", "info", "box", "--json"])).unwrap();
        detail["config"].to_string()
    };
    assert!(install(&["--settings", "s.toml", "--set", "days=7"]).status.success());
    assert_eq!(settings(), r#"{"city":"Ulm","days":7}"#);
    assert!(install(&[]).status.success());
    assert_eq!(settings(), r#"{"city":"Ulm","days":7}"#, "kept when nothing is given");
    assert!(install(&["--set", "city=Bonn"]).status.success());
    assert_eq!(settings(), r#"{"city":"Bonn","days":30}"#);
}

#[test]
fn a_trapping_component_compiles_but_does_not_start() {
    let place = Place::new();
    let folder = place.plugin_with("trap", "", &trapping());
    place.must(&["plugin", "install", "--yes", &folder]);
    let server = place.serve(&[]);
    assert!(server.screen().contains("trap: does not run: "), "{}", server.screen());
    assert_eq!((server.get("/trap"), server.get("/readyz"), server.get("/healthz")), (424, 503, 200));
    let problem: serde_json::Value =
        crate::support::client().get(format!("{}/trap", server.url)).send().unwrap().json().unwrap();
    assert_eq!(problem["type"], "/-/problems/plugin-not-running");
    assert!(problem["detail"].as_str().unwrap().contains("did not start"), "{problem}");
    assert_eq!(server.get("/plugins/trap/trap"), 424);
    let list = place.must(&["plugin", "list"]);
    assert!(list.contains("trap  0.1.0     failed"), "{list}");
    server.stop();
}
