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
    assert!(found.contains("1 of 2 blobs are damaged:\n[DIGEST]: its bytes are missing"), "{found}");
    let shown = String::from_utf8(place.run(&["doctor"]).stdout).unwrap();
    assert!(shown.contains(gone.file_name().unwrap().to_str().unwrap()), "{shown}");
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

/// The newest segment of the log.
fn segment(place: &Place) -> std::path::PathBuf {
    fs::read_dir(place.data().join("store/log")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap()
}

/// Change a byte that stands in the log's segment behind these.
fn damage_log(place: &Place, before: &[u8]) {
    let path = segment(place);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(before.len()).position(|window| window == before).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
}

/// The commands in a message.
fn commands(message: &str) -> Vec<Vec<String>> {
    let quoted = message.split('`').filter(|part| part.starts_with("mainstay doctor --repair"));
    quoted.map(|command| command.split_whitespace().skip(1).map(Into::into).collect()).collect()
}

fn token_names(place: &Place) -> Vec<String> {
    let listed: serde_json::Value = serde_json::from_str(&place.must(&["token", "list", "--json"])).unwrap();
    listed.as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap().into()).collect()
}

/// A record and the header: what a stopped server left is damaged, the server says what to do, and everything is there.
#[test]
fn a_damaged_log_is_mended_as_the_message_says() {
    for damaged in [&b"ana"[..], b"mainstay"] {
        let place = Place::new();
        for name in ["ana", "ben", "cem"] {
            place.must(&["token", "create", "--role", "admin", name]);
        }
        damage_log(&place, damaged);
        let before = fs::read(segment(&place)).unwrap();
        let (state, found, code) = diagnosis(&place, "log");
        assert_eq!((state.as_str(), code), ("fail", 1), "{found}");
        let refused = place.told(&place.run(&["serve", "--plugins", "none", "--listen", "127.0.0.1:0"]));
        for words in [&refused, &found] {
            assert!(words.contains("is damaged at byte") && words.contains("nothing is lost"), "{words}");
            assert_eq!(commands(words), [["doctor", "--repair"]]);
        }
        assert_eq!(fs::read(segment(&place)).unwrap(), before, "nothing was changed");

        let told = place.must(&["doctor", "--repair"]);
        assert!(told.contains("store/log.damaged-1`; keep it") && told.contains("was lost"), "{told}");
        let set_aside = fs::read_dir(place.data().join("store/log.damaged-1")).unwrap().next().unwrap().unwrap();
        assert_eq!(fs::read(set_aside.path()).unwrap(), before);
        assert_eq!(token_names(&place), ["ana", "ben", "cem"]);
        place.serve(&["--plugins", "none"]).stop();
        for check in ["log", "store", "blobs"] {
            assert_eq!(diagnosis(&place, check).0, "ok", "{:?}", diagnosis(&place, check));
        }
        assert!(place.must(&["doctor", "--repair"]).contains("nothing was changed"));
    }
}

/// What a killed server left above its index cannot be had twice: the loss is named, and asked for.
#[test]
fn a_damaged_log_that_alone_had_commits_says_which_are_lost() {
    let place = Place::new();
    place.must(&["token", "create", "--role", "admin", "ana"]);
    let mut server = place.serve(&["--plugins", "none"]);
    for name in ["ben", "cem"] {
        place.must(&["token", "create", "--role", "admin", name]);
    }
    server.signal("-KILL");
    server.wait();
    // Not the last one: that would look like a write that was never acknowledged.
    damage_log(&place, b"ben");
    let refused = place.run(&["serve", "--plugins", "none", "--listen", "127.0.0.1:0"]);
    let refused = String::from_utf8(refused.stderr).unwrap();
    // The applier may have been quicker than the kill: then nothing is lost.
    let command = commands(&refused).pop().unwrap_or_else(|| panic!("{refused}"));
    let is_lost = refused.contains("cannot be read any more");
    assert_eq!(command.contains(&"--give-up-from".to_owned()), is_lost, "{refused}");
    if is_lost {
        let output = place.run(&["doctor", "--repair"]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && error.contains("nothing was changed"), "{error}");
    }
    place.must(&command.iter().map(String::as_str).collect::<Vec<_>>());
    let names = token_names(&place);
    assert_eq!(names, if is_lost { vec!["ana"] } else { vec!["ana", "ben", "cem"] });
}

/// Every file and folder below, with its mode, and a file's bytes.
fn everything(folder: &std::path::Path) -> Vec<(std::path::PathBuf, u32, Vec<u8>)> {
    use std::os::unix::fs::PermissionsExt;
    let (mut all, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            let bytes = if path.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
            if path.is_dir() {
                folders.push(path.clone());
            }
            all.push((path, mode, bytes));
        }
    }
    all.sort();
    all
}

/// Whatever is or is not there, and however the server ended, the doctor only looks.
#[test]
fn doctor_changes_nothing() {
    fn check(what: &str, prepare: impl FnOnce(&Place)) {
        let place = Place::new();
        fs::create_dir(place.data()).unwrap();
        prepare(&place);
        let before = everything(&place.data());
        for arguments in [&["doctor"][..], &["doctor", "--deep", "--json"]] {
            let output = place.run(arguments);
            let after = everything(&place.data());
            let names = |all: &[(std::path::PathBuf, u32, Vec<u8>)]| -> Vec<String> {
                all.iter().map(|(path, mode, bytes)| format!("{path:?} {mode:o} {}", bytes.len())).collect()
            };
            assert_eq!(names(&before), names(&after), "{what}: {}", place.told(&output));
            assert!(before == after, "{what}: some bytes changed: {}", place.told(&output));
        }
    }
    let token = |place: &Place| drop(place.must(&["token", "create", "--role", "admin", "ana"]));
    let killed = |place: &Place| {
        token(place);
        let mut server = place.serve(&["--plugins", "none"]);
        place.must(&["token", "create", "--role", "admin", "ben"]);
        server.signal("-KILL");
        server.wait();
    };
    check("an empty folder", |_| {});
    check("only a version", |place| {
        fs::write(place.data().join("version"), "format = 1\nengine = \"redb\"\n").unwrap()
    });
    check("after a command", token);
    check("after a server", |place| {
        token(place);
        place.serve(&["--plugins", "none"]).stop();
    });
    check("after a killed server", killed);
    check("without a log", |place| {
        token(place);
        fs::remove_dir_all(place.data().join("store/log")).unwrap();
    });
    check("without an index", |place| {
        token(place);
        fs::remove_file(place.data().join("store/ordered.redb")).unwrap();
    });
    check("a torn log", |place| {
        killed(place);
        let path = segment(place);
        let bytes = fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        fs::write(&path, [&bytes[..end - 10], &[7; 600]].concat()).unwrap();
    });
    check("a damaged log", |place| {
        token(place);
        damage_log(place, b"ana");
    });
    check("a damaged index", |place| {
        token(place);
        let path = place.data().join("store/ordered.redb");
        let mut bytes = fs::read(&path).unwrap();
        bytes[..64].fill(1);
        fs::write(&path, bytes).unwrap();
    });
}

/// sled cannot be opened without writing: the doctor says so, and changes nothing else.
#[test]
fn doctor_says_what_sled_changes() {
    let place = Place::new();
    place.serve(&["--plugins", "none", "--engine", "sled"]).stop();
    let others = || -> Vec<_> {
        let all = everything(&place.data());
        all.into_iter().filter(|(path, ..)| !path.to_str().unwrap().contains("ordered.sled/")).collect()
    };
    let before = others();
    let (state, found, _) = diagnosis(&place, "store");
    assert_eq!(state, "ok", "{found}");
    assert!(found.contains("sled tidied its files, as at every start"), "{found}");
    assert!(others() == before);
}

/// The cache holds nothing that cannot be made again: a key that was cut costs a compilation and one line in the log.
#[test]
fn a_damaged_cache_key_is_made_anew() {
    let place = Place::new();
    place.must(&["plugin", "install", &place.plugin("box", 204, ""), "--yes"]);
    place.serve(&[]).stop();
    let key = place.data().join("cache/key");
    fs::write(&key, "short").unwrap();
    let (state, found, code) = diagnosis(&place, "compiled plugins");
    assert_eq!((state.as_str(), code), ("warn", 0), "{found}");
    assert!(found.contains("has 5 bytes instead of 32") && found.contains("compiles the plugins again"), "{found}");
    let server = place.serve(&[]);
    assert_eq!(server.get("/box"), 204);
    let errors = server.errors();
    assert_eq!(errors.matches("the key of compiled code is damaged").count(), 1, "{errors}");
    assert!(!errors.contains("was changed or is not from this host"), "{errors}");
    server.stop();
    assert_eq!(diagnosis(&place, "compiled plugins").0, "ok");
}
