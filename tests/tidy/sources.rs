//! Rules over the text of the sources.

use crate::{refuse, root};
use std::fs;
use std::path::{Path, PathBuf};

/// Words of policies. The host has no opinion about machine learning, so it has no use for them.
const POLICY_WORDS: &[&str] = &["mlflow", "experiment", "drift", "fairness", "canary", "feast", "dvc"];
/// The same, where the letters are also found inside other words (`epsilon`): only as a word of its own.
const POLICY_WORDS_ALONE: &[&str] = &["psi"];

/// Folders that are built, not written.
const BUILT: &[&str] = &["target", ".git", ".venv", "__pycache__", "node_modules", "registry-data"];

/// Files below a folder, with their text; what is no text is left out.
fn texts(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    visit(&root().join(folder), &mut found);
    assert!(!found.is_empty(), "nothing was found below {folder}");
    found
}

fn visit(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    let mut entries: Vec<_> = fs::read_dir(folder).expect("the folder is there").flatten().collect();
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !BUILT.contains(&name.as_str()) {
                visit(&path, found);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            let shown = path.strip_prefix(root()).expect("it lies below").to_path_buf();
            found.push((shown, text));
        }
    }
}

fn rust(folder: &str) -> Vec<(PathBuf, String)> {
    let mut files = texts(folder);
    files.retain(|(path, _)| path.extension().is_some_and(|extension| extension == "rs"));
    files
}

/// Every line of these files that breaks a rule, with its place.
fn lines(files: &[(PathBuf, String)], breaks: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            if let Some(problem) = breaks(line) {
                problems.push(format!("{}:{}: {problem}", path.display(), number + 1));
            }
        }
    }
    problems
}

/// The policy's word on this line, if there is one.
fn policy_word(line: &str) -> Option<&'static str> {
    let line = line.to_lowercase();
    let is_word = |word: &str| line.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part == word);
    let inside = POLICY_WORDS.iter().find(|word| line.contains(**word));
    inside.or_else(|| POLICY_WORDS_ALONE.iter().find(|word| is_word(word))).copied()
}

#[test]
fn the_host_has_no_words_of_policies() {
    let mut files = texts("host");
    files.extend(texts("wit"));
    for (path, _) in &mut files {
        assert_eq!(policy_word(&path.to_string_lossy()), None, "in the name of {}", path.display());
    }
    refuse("the host has no words of policies", &lines(&files, |line| policy_word(line).map(str::to_owned)));
}

#[test]
fn policy_words_are_found() {
    fn check(line: &str, expect: Option<&str>) {
        assert_eq!(policy_word(line), expect, "{line}");
    }
    check("// like MLflow does", Some("mlflow"));
    check("let psi = 1;", Some("psi"));
    check("let epsilon = 1;", None);
    check("EXPERIMENTAL", Some("experiment"));
    check("fair sharing", None);
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    // Put together here, so that this file does not find itself.
    let marks = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("#[ig", "nore"), concat!("dbg", "!(")];
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    let mut problems = Vec::new();
    for folder in ["host", "sdk", "plugins", "tests", "xtask"] {
        problems.extend(lines(&rust(folder), |line| {
            let found = marks.iter().chain(&notes).find(|mark| line.contains(**mark))?;
            Some(format!("`{found}`"))
        }));
    }
    refuse("nothing is left undone or switched off", &problems);
}

#[test]
fn every_module_says_what_it_is() {
    let mut problems = Vec::new();
    for folder in ["host", "sdk", "plugins", "tests", "xtask"] {
        for (path, text) in rust(folder) {
            let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
            if header.iter().all(|line| line.trim_start_matches("//!").trim().is_empty()) {
                problems.push(format!("{} does not start with a `//!` header", path.display()));
            }
        }
    }
    refuse(
        "every module starts with what it owns, why it is separate, what bounds it, what happens on failure",
        &problems,
    );
}

#[test]
fn every_room_forbids_unsafe_code_or_names_where_it_is() {
    let mut problems = Vec::new();
    for folder in ["host", "sdk", "plugins", "tests", "xtask"] {
        let files = rust(folder);
        for (path, text) in &files {
            let uses =
                text.lines().map(str::trim_start).filter(|line| !line.starts_with("//")).any(|line| {
                    line.contains("unsafe {") || line.contains("unsafe fn ") || line.contains("unsafe impl ")
                });
            if uses && !text.contains("SAFETY") {
                problems.push(format!("{} has unsafe code without a SAFETY comment", path.display()));
            }
        }
    }
    refuse("unsafe code says why it is sound", &problems);
}

#[test]
fn sources_do_not_mention_the_machine_they_were_written_on() {
    let marks = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let mut problems = Vec::new();
    for folder in ["host", "sdk", "plugins", "tests", "xtask", "docs", "wit", "demo"] {
        problems.extend(lines(&texts(folder), |line| {
            marks.iter().find(|mark| line.contains(**mark)).map(|mark| format!("`{mark}`"))
        }));
    }
    refuse("sources do not mention paths of one machine", &problems);
}
