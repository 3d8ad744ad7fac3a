//! A server: its screen, its plugins, its neighbours, its end.

use crate::support::{PATIENCE, Place, answering, client, trapping_when_asked, wait_until};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

#[test]
fn an_empty_folder_gets_the_packages_of_a_registry() {
    let place = Place::new();
    fs::create_dir(place.path("registry")).unwrap();
    for (name, status) in [("box", 204), ("can", 202)] {
        let folder = place.plugin(name, status, "");
        mainstay_market::Package::write(folder.as_ref(), &place.path(&format!("registry/{name}.mainstay"))).unwrap();
    }
    let server = place.serve(&["--registry", "registry"]);
    insta::assert_snapshot!("screen", server.screen());
    assert_eq!((server.get("/box"), server.get("/can"), server.get("/other")), (204, 202, 404));
    assert_eq!(server.get("/plugins/box/box"), 204, "also under its mount point");
    server.stop();
    assert!(!place.path("ready.json").exists());

    // Once there is a data folder, what is installed counts; choosing does not uninstall.
    let server = place.serve(&["--plugins", "can"]);
    assert_eq!((server.get("/box"), server.get("/can")), (404, 202));
    assert!(place.must(&["plugin", "list"]).contains("box  0.1.0     stopped"));
    server.stop();
    let server = place.serve(&["--plugins", "none"]);
    assert_eq!((server.get("/box"), server.get("/can")), (404, 404));
    insta::assert_snapshot!("screen_none", server.screen());
    server.stop();
    fs::write(place.path("plugins-box/answer.wasm"), answering(201)).unwrap();
    let (folder, file) = (place.path("plugins-box"), place.path("registry/box.mainstay"));
    mainstay_market::Package::write(&folder, &file).unwrap();
    let server = place.serve(&["--registry", "registry"]);
    assert_eq!((server.get("/box"), server.get("/can")), (204, 202), "what is installed stays");
    wait_until("the other build is told of", || server.errors().contains("`mainstay plugin install box` replaces"));
    assert!(!server.errors().contains("install can"), "{}", server.errors());
    server.stop();
}

#[test]
fn what_was_installed_before_the_first_start_is_no_reason_to_leave_the_standard_ones_out() {
    let place = Place::new();
    fs::create_dir(place.path("registry")).unwrap();
    let standard = place.plugin("can", 202, "");
    mainstay_market::Package::write(standard.as_ref(), &place.path("registry/can.mainstay")).unwrap();
    place.must(&["plugin", "install", "--yes", &place.plugin("box", 204, "")]);
    let server = place.serve(&["--registry", "registry"]);
    assert_eq!((server.get("/box"), server.get("/can")), (204, 202));
    place.must(&["plugin", "remove", "--yes", "box"]);
    place.must(&["plugin", "remove", "--yes", "can"]);
    server.stop();
    // What was removed does not come back by itself; the screen says that it could.
    let server = place.serve(&["--registry", "registry"]);
    assert_eq!(server.get("/can"), 404);
    assert!(server.screen().contains("None is installed; `registry` has `can`:"), "{}", server.screen());
    server.stop();
}

#[test]
fn a_cut_lockfile_is_no_empty_one() {
    let place = Place::new();
    place.must(&["plugin", "install", "--yes", &place.plugin("box", 204, "")]);
    let lock = place.data().join("plugins/plugins.lock");
    let text = fs::read_to_string(&lock).unwrap();
    fs::write(&lock, &text[..text.find("[[plugins]]").unwrap()]).unwrap();
    let told = place.told(&place.run(&["serve", "--listen", "127.0.0.1:0", "--grpc", "off"]));
    assert!(told.starts_with("exit 2") && told.contains("it was cut or changed"), "{told}");
    assert!(fs::read_dir(place.data().join("plugins/box")).unwrap().next().is_some(), "its files stay");
}

#[test]
fn traces_that_cannot_be_sent_are_told_of() {
    let place = Place::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}");
    let mut server = place.serve_with(&[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]);
    assert_eq!(server.get("/nothing"), 404);
    server.signal("-TERM");
    assert_eq!(server.wait(), 0);
    let errors = server.errors();
    assert!(errors.contains("traces cannot be sent") && errors.contains(&url), "{errors}");
}

#[test]
fn a_chosen_package_file_is_installed() {
    let place = Place::new();
    let folder = place.plugin("box", 204, "");
    let server = place.serve(&["--plugins", &folder]);
    assert_eq!(server.get("/box"), 204);
    server.stop();
    insta::assert_snapshot!(
        "chosen_unknown",
        place.told(&place.run(&["serve", "--plugins", "cann", "--listen", "127.0.0.1:0", "--grpc", "off"]))
    );
}

#[test]
fn plugins_change_while_it_runs() {
    let place = Place::new();
    let folder = place.plugin("box", 204, "");
    let server = place.serve(&[]);
    assert_eq!(server.get("/box"), 404);
    insta::assert_snapshot!("install_running", place.told(&place.run(&["plugin", "install", "--yes", &folder])));
    assert_eq!(server.get("/box"), 204);

    // Another version, which answers otherwise.
    fs::write(place.path("plugins-box/answer.wasm"), answering(202)).unwrap();
    let manifest = place.path("plugins-box/plugin.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("version = \"0.1.0\"", "version = \"0.2.0\"")).unwrap();
    let told = place.told(&place.run(&["plugin", "install", "--yes", &folder, "--without", "blobs"]));
    assert!(told.contains("replaces 0.1.0") && told.contains("it answers now"), "{told}");
    assert_eq!(server.get("/box"), 202);
    assert!(place.must(&["plugin", "list"]).contains("box  0.2.0     running"));

    // A version that does not start leaves the one before in place.
    fs::write(place.path("plugins-box/answer.wasm"), crate::support::trapping()).unwrap();
    let told = place.told(&place.run(&["plugin", "install", "--yes", &folder]));
    assert!(told.starts_with("exit 2") && told.contains("did not start"), "{told}");
    assert_eq!(server.get("/box"), 202);

    let other = place.plugin("can", 204, "").clone();
    let manifest = place.path("plugins-can/plugin.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("path = \"/can\"", "path = \"/box\"")).unwrap();
    let told = place.told(&place.run(&["plugin", "install", "--yes", &other]));
    assert!(told.contains("which meets `GET /box` of the installed `box` 0.2.0"), "{told}");

    insta::assert_snapshot!("remove_running", place.told(&place.run(&["plugin", "remove", "box", "--yes"])));
    assert_eq!(server.get("/box"), 404);
    let told = place.told(&place.run(&["plugin", "remove", "box", "--yes"]));
    assert!(told.starts_with("exit 2") && told.contains("is not installed"), "{told}");
    assert!(place.must(&["blobs", "gc"]).starts_with("Looked at 0 blobs"));
    server.stop();
    assert!(place.must(&["plugin", "list"]).contains("No plugin is installed"));
}

#[test]
fn a_second_server_is_refused() {
    let place = Place::new();
    let server = place.serve(&[]);
    let told = place.told(&place.run(&["serve", "--listen", "127.0.0.1:0", "--grpc", "off"]));
    insta::assert_snapshot!("second", told);
    assert_eq!(server.get("/healthz"), 200, "the first goes on");
    let doctor = place.must(&["doctor"]);
    assert!(doctor.contains("in use by process") && doctor.contains("skipped: the server has it open"), "{doctor}");
    server.stop();
}

#[test]
fn a_taken_port_is_told_at_once() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = place.run(&["serve", "--listen", &address, "--grpc", "off"]);
    insta::assert_snapshot!("taken_port", place.told(&output));
}

#[test]
fn beyond_this_machine_a_token_is_needed() {
    let place = Place::new();
    let folder = place.plugin("box", 204, "");
    let everywhere = ["serve", "--listen", "0.0.0.0:0", "--grpc", "off"];
    fs::create_dir(place.path("registry")).unwrap();
    let file = place.path("registry/box.mainstay");
    mainstay_market::Package::write(folder.as_ref(), &file).unwrap();
    let mut first = everywhere.to_vec();
    first.extend(["--registry", "registry"]);
    insta::assert_snapshot!("no_token_yet", place.told(&place.run(&first)));
    assert!(!place.data().join("plugins/plugins.lock").exists(), "nothing is installed before it is refused");
    let token = place.must(&["token", "create", "--role", "viewer", "ana"]).trim().to_string();
    let server = place.serve(&["--listen", "0.0.0.0:0", "--plugins", &folder]);
    let screen = server.screen();
    let port = server.url.rsplit(':').next().unwrap();
    for words in ["with a token", &format!("http://0.0.0.0:{port} (every address)"), "export BOX_TOKEN=TOKEN"] {
        assert!(screen.contains(words), "{words} is missing in {screen}");
    }
    assert!(server.url.starts_with("http://127.0.0.1:"), "what clients here can use: {}", server.url);
    assert_eq!(server.get("/box"), 401);
    assert_eq!(server.get_with("/box", Some("mst_0_wrong")), 401);
    assert_eq!(server.get_with("/box", Some(&token)), 204);

    // Commands of the data folder's owner need no token of their own, and take effect at once.
    assert!(place.must(&["plugin", "list"]).contains("running"));
    let second = place.must(&["token", "create", "--role", "editor", "ben"]).trim().to_string();
    assert_eq!(server.get_with("/box", Some(&second)), 204);
    place.must(&["token", "revoke", "ben"]);
    assert_eq!(server.get_with("/box", Some(&second)), 401);
    let refused = client().delete(format!("{}/-/plugins/box", server.url)).bearer_auth(&token).send().unwrap();
    assert_eq!(refused.status().as_u16(), 403, "a viewer removes nothing");
    let local = place.data().join("secrets/local-token");
    assert!(local.exists());
    server.stop();
    assert!(!local.exists());
    assert_eq!(place.must(&["token", "list"]), "ana  viewer\n");
}

#[test]
fn a_killed_server_leaves_nothing_in_the_way() {
    let place = Place::new();
    place.must(&["token", "create", "--role", "admin", "ana"]);
    let folder = place.plugin("box", 204, "");
    let mut server = place.serve(&["--listen", "0.0.0.0:0", "--plugins", &folder]);
    server.signal("-KILL");
    assert_eq!(server.wait(), -1);
    drop(server);
    fs::remove_file(place.path("ready.json")).unwrap();
    // Its token for this machine is of no use to the next server, and in nobody's way.
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        let server = place.serve(&["--listen", listen]);
        assert!(place.must(&["plugin", "list"]).contains("running"));
        server.stop();
    }
    assert_eq!(place.must(&["token", "list"]), "ana  admin\n");
}

#[test]
fn a_damaged_plugin_does_not_stop_the_others() {
    let place = Place::new();
    for (name, status) in [("box", 204), ("can", 202)] {
        place.must(&["plugin", "install", "--yes", &place.plugin(name, status, "")]);
    }
    let folder = fs::read_dir(place.data().join("plugins/box")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(folder.join("answer.wasm")).unwrap();
    let server = place.serve(&[]);
    assert_eq!((server.get("/box"), server.get("/can"), server.get("/readyz")), (424, 202, 503));
    let problem: serde_json::Value = client().get(format!("{}/box", server.url)).send().unwrap().json().unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("`box` is damaged"), "{problem}");
    assert!(server.screen().contains("box: does not run: installed plugin `box` is damaged"), "{}", server.screen());
    assert!(place.must(&["plugin", "list"]).contains("failed"));
    // Installing it again repairs it.
    place.must(&["plugin", "install", "--yes", &place.plugin("box", 204, "")]);
    assert_eq!((server.get("/box"), server.get("/readyz")), (204, 200));
    server.stop();
}

/// A request whose body never comes: its connection keeps a drain waiting. The host is reading it when this returns.
fn unfinished_request(url: &str) -> TcpStream {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    let head = "POST /-/tokens HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: \
                100\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
    stream
}

#[test]
fn a_signal_drains_and_a_second_one_ends() {
    let place = Place::new();
    let mut server = place.serve(&[]);
    let stream = unfinished_request(&server.url);
    server.signal("-INT");
    wait_until("it drains", || server.errors().contains("draining"));
    assert!(server.child.try_wait().unwrap().is_none(), "it waits for the request");
    let address = server.url.trim_start_matches("http://").to_string();
    wait_until("it takes no new connection", || TcpStream::connect(&address).is_err());
    server.signal("-TERM");
    assert_eq!(server.wait(), 1);
    assert!(server.errors().contains("ended at once"));
    drop(stream);
}

#[test]
fn draining_is_bounded() {
    let place = Place::new();
    fs::write(place.path("mainstay.toml"), "[shutdown]\ndrain-s = 1\n").unwrap();
    let mut server = place.serve(&["--config", "mainstay.toml"]);
    let stream = unfinished_request(&server.url);
    server.signal("-TERM");
    assert_eq!(server.wait(), 0);
    drop(stream);
}

#[test]
fn log_lines_can_be_json() {
    let place = Place::new();
    let server = place.serve(&["--log-format", "json"]);
    wait_until("it says that it is ready", || server.errors().contains("\"ready\""));
    let errors = server.errors();
    for line in errors.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["level"], "INFO", "{line}");
    }
    server.stop();
}

/// A collector of traces that keeps the bodies it is sent.
fn collector() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = Vec::new();
            let mut buffer = [0; 65536];
            let (head, length) = loop {
                let count = stream.read(&mut buffer).unwrap();
                bytes.extend_from_slice(&buffer[..count]);
                let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
                break (end + 4, length.unwrap_or(0));
            };
            while bytes.len() < head + length {
                let count = stream.read(&mut buffer).unwrap();
                bytes.extend_from_slice(&buffer[..count]);
            }
            let line = String::from_utf8_lossy(&bytes[..head]).lines().next().unwrap_or_default().to_string();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            if sender.send((line, bytes[head..].to_vec())).is_err() {
                return;
            }
        }
    });
    (url, receiver)
}

#[test]
fn traces_continue_the_clients_and_are_sent() {
    let place = Place::new();
    let folder = place.plugin("box", 204, "");
    let (url, received) = collector();
    let server = place.serve_with(&["--plugins", &folder], &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request =
        client().get(format!("{}/box", server.url)).header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
    assert_eq!(request.send().unwrap().status().as_u16(), 204);
    server.stop();
    let id: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&trace[at * 2..at * 2 + 2], 16).unwrap()).collect();
    let mut wanted: Vec<&[u8]> = vec![&id, b"GET /box", b"box handle", b"http.route"];
    while let Ok((line, body)) = received.recv_timeout(std::time::Duration::from_secs(5).min(PATIENCE)) {
        assert_eq!(line, "POST /v1/traces HTTP/1.1");
        wanted.retain(|part| !body.windows(part.len()).any(|window| window == *part));
        if wanted.is_empty() {
            break;
        }
    }
    assert!(wanted.is_empty(), "spans of the client's trace lack {wanted:?}");
}

#[test]
fn the_engine_of_a_folder_stays() {
    let place = Place::new();
    place.serve(&["--engine", "sled"]).stop();
    let told = place.told(&place.run(&["serve", "--engine", "redb", "--listen", "127.0.0.1:0", "--grpc", "off"]));
    insta::assert_snapshot!("other_engine", told);
    let server = place.serve(&[]);
    assert!(server.screen().contains("(sled)"), "{}", server.screen());
    server.stop();
}

/// One line says why, with the plugin's own frames and the request's trace; nothing of the host's stack.
#[test]
fn a_trap_is_logged_once_and_without_the_hosts_stack() {
    let place = Place::new();
    let folder = place.plugin_with("box", "", &trapping_when_asked());
    let server = place.serve_with(&["--plugins", &folder], &[("RUST_BACKTRACE", "1")]);
    let answer = client().get(format!("{}/box", server.url)).send().unwrap();
    assert_eq!(answer.status().as_u16(), 500);
    let problem: serde_json::Value = serde_json::from_str(&answer.text().unwrap()).unwrap();
    let trace_id = problem["trace_id"].as_str().unwrap();
    let errors = server.errors();
    assert_eq!(errors.matches("the plugin trapped").count(), 1, "{errors}");
    assert_eq!(errors.matches("unreachable").count(), 1, "{errors}");
    assert!(errors.contains("wasm backtrace") && errors.contains(trace_id), "{errors}");
    for host in ["Stack backtrace", "tokio::", "wasmtime::", "std::"] {
        assert!(!errors.contains(host), "{host} in {errors}");
    }
    server.stop();
}
