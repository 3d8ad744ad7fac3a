//! The author's first page, followed word by word.
//!
//! Every block of `docs/guide/first-plugin.md` that names a file is that file of `plugins/hello` (or a part of it), and
//! every `curl` is sent to the packed plugin in a real host and answered as the page says.

use crate::{refuse, root};
use mainstay_testing::TestHost;
use std::fs;

const PAGE: &str = "docs/guide/first-plugin.md";

/// A fenced block: what stands behind the opening fence, and its text.
struct Block {
    info: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let page = fs::read_to_string(root().join(PAGE)).expect("the page is there");
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_inside = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(_) if is_inside => is_inside = false,
            Some(info) => {
                is_inside = true;
                blocks.push(Block { info: info.to_owned(), text: String::new() });
            }
            None if is_inside => {
                let block = blocks.last_mut().expect("a block was begun");
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    blocks
}

#[test]
fn the_files_on_the_page_are_the_plugin_s() {
    let mut problems = Vec::new();
    let mut shown = 0;
    for block in blocks() {
        let Some((_, path)) = block.info.split_once(' ') else { continue };
        shown += 1;
        match fs::read_to_string(root().join(path)) {
            Ok(file) if file.contains(&block.text) => {}
            Ok(_) => problems.push(format!("the block of {path} is not what stands there")),
            Err(error) => problems.push(format!("{path}: {error}")),
        }
    }
    assert!(shown >= 5, "the page shows {shown} blocks of files; it should tell the whole plugin");
    refuse("the page shows the plugin as it is", &problems);
}

#[test]
fn the_commands_on_the_page_answer_as_it_says() {
    let package = root().join("registry-data/examples/hello-0.1.0.mainstay");
    assert!(package.exists(), "the guest book is not packed: run `cargo xtask plugins` first");
    let host = TestHost::new().install(package).expect("the guest book installs");
    let mut asked = 0;
    for block in blocks().iter().filter(|block| block.info == "console") {
        let mut lines = block.text.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(command) = line.strip_prefix("$ curl ") else { continue };
            asked += 1;
            let (method, target, body) = request(command);
            let answer = host.call(&method, &target, body);
            host.advance_ms(1);
            let expect = lines.next_if(|line| !line.starts_with('$')).unwrap_or_default();
            match answer.status {
                200 => assert_eq!(answer.as_text(), expect, "{command}"),
                status => {
                    assert!(expect.contains(&format!("\"status\":{status}")), "{command}: {answer:?}, not {expect}")
                }
            }
        }
    }
    assert!(asked >= 4, "the page asks {asked} times; it should try what it built");
}

/// Method, target and body of a command line: `[--json 'BODY'] [-X METHOD] [-s] http://HOST/TARGET`.
fn request(command: &str) -> (String, String, String) {
    let (mut method, mut target, mut body) = (None, None, String::new());
    let mut rest = command.trim();
    while !rest.is_empty() {
        let (word, behind) = word(rest);
        rest = behind;
        let value = |rest: &mut &str| {
            let (value, behind) = self::word(rest);
            *rest = behind;
            value
        };
        match word.as_str() {
            "-X" => method = Some(value(&mut rest)),
            "--json" => body = value(&mut rest),
            url => {
                let behind_host = url.trim_start_matches("http://").split_once('/').map(|(_, path)| format!("/{path}"));
                target = Some(behind_host.unwrap_or_else(|| panic!("`{url}` has no path")));
            }
        }
    }
    let usual = if body.is_empty() { "GET" } else { "POST" };
    (method.unwrap_or_else(|| usual.to_owned()), target.expect("the command names a URL"), body)
}

/// The first word of a command line, single quotes taken away, and what stands behind it.
fn word(line: &str) -> (String, &str) {
    let (word, behind) = match line.strip_prefix('\'') {
        Some(quoted) => quoted.split_once('\'').expect("the quote is closed"),
        None => line.split_once(' ').unwrap_or((line, "")),
    };
    (word.to_owned(), behind.trim_start())
}

#[test]
fn command_lines_are_read() {
    let (method, target, body) = request("-X PUT --json '{\"a b\": 1}' http://127.0.0.1:7600/x/y?z=1");
    assert_eq!((method.as_str(), target.as_str(), body.as_str()), ("PUT", "/x/y?z=1", "{\"a b\": 1}"));
    assert_eq!(request("http://127.0.0.1:7600/x").0, "GET");
}
