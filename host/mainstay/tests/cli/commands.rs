//! Commands that need no server: help, configuration, completions, doctor, tokens.

use crate::support::Place;
use std::fs;

fn check(name: &str, arguments: &[&str], prepare: impl FnOnce(&Place)) {
    let place = Place::new();
    prepare(&place);
    let output = place.run(arguments);
    insta::assert_snapshot!(name, place.told(&output));
}

#[test]
fn help_and_mistakes_on_the_line() {
    check("help", &["--help"], |_| {});
    check("unknown_command", &["sevre"], |_| {});
    check("unknown_engine", &["serve", "--engine", "sledge"], |_| {});
    check("address_without_port", &["serve", "--listen", "localhost"], |_| {});
    check("wrong_log_filter", &["doctor", "--log", "mainstay=loud"], |_| {});
}

#[test]
fn configuration_files_are_checked() {
    let write = |text: &'static str| move |place: &Place| fs::write(place.path("mainstay.toml"), text).unwrap();
    let arguments = ["--config", "mainstay.toml", "config", "show"];
    check("config_unknown_key", &arguments, write("[http]\nlisten = \"127.0.0.1:1\"\nrequest-max = 3\n"));
    check("config_broken", &arguments, write("[http\n"));
    check("config_missing", &arguments, |_| {});
    check("config_rule_refused", &["--config", "mainstay.toml", "serve"], |place| {
        let text = "[http]\nlisten = \"127.0.0.1:0\"\n[grpc]\nlisten = \"off\"\n[[protect]]\nkind = \"model\"\n\
                    name-pattern = \"*\"\npointer = \"production\"\nrequires = [{}]\n";
        fs::write(place.path("mainstay.toml"), text).unwrap();
    });
}

#[test]
fn values_come_from_flags_then_environment_then_file() {
    let place = Place::new();
    fs::write(place.path("mainstay.toml"), "data = \"from-file\"\n[log]\nfilter = \"error\"\nformat = \"json\"\n")
        .unwrap();
    let shown = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut all = vec!["--config", "mainstay.toml"];
        all.extend(arguments);
        all.extend(["config", "show"]);
        let output =
            place.command(&all).env_remove("MAINSTAY_DATA").envs(environment.iter().copied()).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let text = shown(&["--log", "debug"], &[("MAINSTAY_LOG", "warn"), ("MAINSTAY_LOG_FORMAT", "human")]);
    for line in [
        "data = \"from-file\"  # file",
        "filter = \"debug\"  # --log",
        "format = \"human\"  # MAINSTAY_LOG_FORMAT",
        "drain-s = 30  # default",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[test]
fn the_schema_and_completions_are_printed() {
    let place = Place::new();
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/config.schema.json");
    assert_eq!(place.must(&["config", "schema"]), fs::read_to_string(committed).unwrap());
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.must(&["completions", shell]);
        assert!(script.contains("ready-file") && !script.contains("no-such-flag"), "{shell}");
        assert!(!script.contains("internal-compile"), "{shell} offers what only the host calls");
    }
}

#[test]
fn a_reader_that_leaves_is_no_panic() {
    use std::io::Read;
    let place = Place::new();
    let mut command = place.command(&["completions", "bash"]);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    child.wait().unwrap();
    assert_eq!(errors, "");
}

#[test]
fn tokens_are_shown_once_and_kept_as_digests() {
    let place = Place::new();
    let output = place.run(&["token", "create", "--role", "editor", "ana"]);
    assert!(output.status.success());
    let token = String::from_utf8(output.stdout).unwrap().trim().to_string();
    assert!(token.starts_with("mst_") && token.len() > 50, "{token}");
    let secret = token.rsplit('_').next().unwrap();
    let mut files = vec![place.data()];
    while let Some(path) = files.pop() {
        match path.is_dir() {
            true => files.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path())),
            false => {
                let bytes = fs::read(&path).unwrap();
                let has = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!has, "the secret stands in {}", path.display());
            }
        }
    }
    insta::assert_snapshot!("token_twice", place.told(&place.run(&["token", "create", "--role", "viewer", "ana"])));
    insta::assert_snapshot!("token_list", place.told(&place.run(&["token", "list"])));
    insta::assert_snapshot!("token_revoke", place.told(&place.run(&["token", "revoke", "ana"])));
    insta::assert_snapshot!("token_revoke_again", place.told(&place.run(&["token", "revoke", "ana"])));
    insta::assert_snapshot!("token_list_empty", place.told(&place.run(&["token", "list"])));
}

#[test]
fn doctor_without_a_folder() {
    check("doctor_no_folder", &["doctor"], |_| {});
}

/// State and remedy of one check.
fn diagnosis(place: &Place, check: &str) -> (String, String, i32) {
    let output = place.run(&["doctor", "--json"]);
    let report: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let finding =
        report.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("{check} in {report:?}"));
    let found = format!("{} {}", finding["found"].as_str().unwrap(), finding["remedy"].as_str().unwrap_or_default());
    (finding["state"].as_str().unwrap().into(), place.plain(&found), output.status.code().unwrap())
}

#[test]
fn doctor_names_what_is_wrong() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.must(&["token", "create", "--role", "admin", "ana"]);
    place.must(&["plugin", "install", &place.plugin("box", 204, ""), "--yes"]);
    for check in ["data folder", "permissions", "disk sync", "log", "store", "plugins", "compiled plugins"] {
        assert_eq!(diagnosis(&place, check).0, "ok", "{check}: {:?}", diagnosis(&place, check));
    }

    let secrets = place.data().join("secrets");
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o755)).unwrap();
    let (state, found, code) = diagnosis(&place, "permissions");
    assert_eq!((state.as_str(), code), ("warn", 0));
    assert!(found.contains("other users of this machine can look inside chmod 700"), "{found}");

    let component =
        fs::read_dir(place.data().join("plugins/box")).unwrap().next().unwrap().unwrap().path().join("answer.wasm");
    fs::write(&component, crate::support::answering(205)).unwrap();
    let (state, found, code) = diagnosis(&place, "plugins");
    assert_eq!((state.as_str(), code), ("fail", 1));
    assert!(found.contains("the lockfile says") && found.contains("install `box` 0.1.0 again"), "{found}");

    fs::write(place.data().join("version"), "format = 7\n").unwrap();
    let (state, found, code) = diagnosis(&place, "data folder");
    assert_eq!((state.as_str(), code), ("fail", 1));
    assert!(found.contains("has format 7, this host reads 1"), "{found}");
}

/// Two blobs of five bytes, and where they lie.
fn store_blobs(data: &std::path::Path) -> (std::path::PathBuf, std::path::PathBuf) {
    use mainstay_store::blobs::{BlobBackend, Blobs};
    let store = mainstay_store::Store::open(mainstay_store::StoreOptions::new(data.join("store"))).unwrap();
    let backend = BlobBackend::Local { folder: data.join("blobs") };
    let clock = std::sync::Arc::new(mainstay_base::SystemClock::default());
    let blobs = Blobs::open(store.clone(), backend, clock, std::time::Duration::from_secs(60)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let put = |bytes: &'static str| {
        let sha256 = runtime.block_on(blobs.put_bytes(bytes.into())).unwrap().sha256;
        data.join("blobs/sha256").join(&sha256[..2]).join(sha256)
    };
    (put("right"), put("there"))
}

/// A bit that rotted in the index, and a blob that is gone or changed, are found and named.
#[test]
fn a_damaged_index_and_damaged_blobs_are_found() {
    let place = Place::new();
    place.must(&["token", "create", "--role", "admin", "ana"]);
    for check in ["store", "blobs"] {
        let (state, found, _) = diagnosis(&place, check);
        assert_eq!(state, "ok", "{found}");
    }
    assert!(place.must(&["doctor", "--deep"]).contains("read and have their digests"));

    let (rotten, gone) = store_blobs(&place.data());
    fs::remove_file(&gone).unwrap();
    let (state, found, code) = diagnosis(&place, "blobs");
    assert_eq!((state.as_str(), code), ("fail", 1), "{found}");
    let digest = gone.file_name().unwrap().to_str().unwrap();
    assert!(found.contains("1 of 2 blobs") && found.contains(digest) && found.contains("missing"), "{found}");
    fs::write(&rotten, "other").unwrap();
    let deep = String::from_utf8(place.run(&["doctor", "--deep"]).stdout).unwrap();
    assert!(deep.contains("2 of 2 blobs") && deep.contains(rotten.file_name().unwrap().to_str().unwrap()), "{deep}");

    let index = place.data().join("store/ordered.redb");
    let mut bytes = fs::read(&index).unwrap();
    let rotten: Vec<usize> = (0..bytes.len() - 3).filter(|&at| &bytes[at..at + 3] == b"ana").collect();
    assert!(!rotten.is_empty());
    for at in rotten {
        bytes[at] ^= 1;
    }
    fs::write(&index, bytes).unwrap();
    let (state, found, code) = diagnosis(&place, "store");
    assert_eq!((state.as_str(), code), ("fail", 1), "{found}");
    assert!(found.contains("damaged"), "{found}");
}

#[test]
fn a_damaged_log_is_found() {
    let place = Place::new();
    for name in ["ana", "ben", "cem"] {
        place.must(&["token", "create", "--role", "admin", name]);
    }
    let log = place.data().join("store/log");
    let segment = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    // The first record's text is changed: what follows it is whole, so this is damage and no torn tail.
    let place_of_ana = bytes.windows(3).position(|window| window == b"ana").unwrap();
    bytes[place_of_ana] = b'x';
    fs::write(&segment, bytes).unwrap();
    let (state, found, code) = diagnosis(&place, "log");
    assert_eq!((state.as_str(), code), ("fail", 1), "{found}");
}
