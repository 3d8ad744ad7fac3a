//! The generated references: command line and configuration, as Markdown.
//!
//! Owns the form of `docs/reference/cli.md`, `config.md` and `config.schema.json`. Separate so that the texts have one
//! source, the definitions themselves; a test compares the committed files with what is generated here. Compiled for
//! tests only.

use crate::cli::Cli;
use crate::config;
use crate::exit::Exit;
use clap::{Arg, ArgAction, CommandFactory};
use serde_json::Value;

/// Environment variables that the host reads besides those of flags.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "where traces are sent by OTLP over HTTP, unless the configuration says so"),
    ("NO_COLOR", "no colours in log lines, whatever its value"),
];

/// A rule with both kinds of evidence; a test reads it as a configuration file.
const PROTECT_EXAMPLE: &str = r#"# A model's `production` moves only to a version that was produced from a known commit and a known data set.
[[protect]]
kind = "model"
name-pattern = "*"
pointer = "production"
requires = [
    { path = ["produced-by"], label = { key = "source-commit" } },
    { path = ["produced-by", "trained-on"] },
]
"#;

/// Generated references by file name, each with its text.
pub fn all() -> Vec<(&'static str, String)> {
    vec![
        ("cli.md", command_line()),
        ("config.md", configuration()),
        ("config.schema.json", format!("{:#}\n", config::schema())),
    ]
}

fn command_line() -> String {
    let mut text = String::from(
        "# Command line\n\n<!-- Generated from the definitions in host/mainstay. -->\n\n\
         Flags win over environment variables, those over the configuration file, that over defaults.\n",
    );
    let mut root = Cli::command();
    root.build();
    let mut commands = vec![(root.get_name().to_string(), root.clone())];
    let mut at = 0;
    while at < commands.len() {
        let (name, command) = commands[at].clone();
        let inner = command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help");
        let inner: Vec<_> = inner.map(|inner| (format!("{name} {}", inner.get_name()), inner.clone())).collect();
        for (offset, one) in inner.into_iter().enumerate() {
            commands.insert(at + 1 + offset, one);
        }
        at += 1;
    }
    for (name, command) in &commands {
        describe_command(&mut text, name, command);
    }
    text.push_str("\n## Other environment variables\n\n| variable | what it does |\n| --- | --- |\n");
    for (name, meaning) in ENVIRONMENT {
        text.push_str(&format!("| `{name}` | {meaning} |\n"));
    }
    text.push_str("\n## Exit codes\n\n| code | meaning |\n| --- | --- |\n");
    for (exit, meaning) in Exit::ALL {
        text.push_str(&format!("| {} | {meaning} |\n", exit.code()));
    }
    text
}

fn describe_command(text: &mut String, name: &str, command: &clap::Command) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    text.push_str(&format!("\n## `{name}`\n\n{about}.\n", about = about.trim_end_matches('.')));
    let is_root = !name.contains(' ');
    let shown = |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
    let rows: Vec<String> = command
        .get_arguments()
        .filter(shown)
        .filter(|arg| is_root || !arg.is_global_set())
        .map(describe_argument)
        .collect();
    if !rows.is_empty() {
        text.push_str("\n| argument | what it does | environment |\n| --- | --- | --- |\n");
        text.push_str(&rows.concat());
    }
    if is_root {
        text.push_str("\nThe arguments above go with every command.\n");
    }
}

fn describe_argument(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let mut name = match arg.get_long() {
        Some(long) if takes_value => format!("`--{long} {value}`"),
        Some(long) => format!("`--{long}`"),
        None => format!("`{value}`"),
    };
    if let Some(short) = arg.get_short() {
        name = format!("`-{short}`, {name}");
    }
    let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
    let choices: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|_| takes_value)
        .map(|choice| format!("`{}`", choice.get_name()))
        .collect();
    if !choices.is_empty() {
        help.push_str(&format!("; one of {}", choices.join(", ")));
    }
    let variable = arg.get_env().map(|name| format!("`{}`", name.display())).unwrap_or_default();
    format!("| {name} | {help} | {variable} |\n")
}

fn configuration() -> String {
    let mut text = String::from(
        "# Configuration\n\n<!-- Generated from the definitions in host/mainstay. -->\n\n\
         A TOML file given with `--config FILE` or `MAINSTAY_CONFIG`; `mainstay config show` prints what applies and where it\n\
         comes from, `mainstay config schema` the schema for an editor. Unknown keys are refused.\n",
    );
    let schema = config::schema();
    let (tables, plain) = properties(schema);
    text.push_str("\n## At the top\n\n");
    table(&mut text, &plain);
    for (name, property) in tables {
        section(&mut text, "##", name, property);
        if name == "protect" {
            text.push_str(&format!("\nFor example:\n\n```toml\n{PROTECT_EXAMPLE}```\n"));
        }
    }
    text
}

/// A table of the file and, below it, the tables in it.
fn section(text: &mut String, level: &str, name: &str, property: &Value) {
    let is_list = property.get("type").and_then(Value::as_str) == Some("array");
    let heading = if is_list { format!("`[[{name}]]`") } else { format!("`[{name}]`") };
    text.push_str(&format!("\n{level} {heading}\n\n{}\n\n", words(property)));
    let inner = if is_list { property.get("items").unwrap_or(property) } else { property };
    let must: Vec<&str> =
        inner.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let (tables, plain) = properties(inner);
    table(text, &plain);
    if !must.is_empty() {
        let must: Vec<String> = must.iter().map(|name| format!("`{name}`")).collect();
        text.push_str(&format!("\nNever left out: {}.\n", must.join(", ")));
    }
    for (inner_name, property) in tables {
        section(text, "###", &format!("{name}.{inner_name}"), property);
    }
}

type Properties<'a> = Vec<(&'a String, &'a Value)>;

fn properties(schema: &Value) -> (Properties<'_>, Properties<'_>) {
    let has_keys = |value: &Value| value.get("properties").is_some() || value.pointer("/items/properties").is_some();
    schema.get("properties").and_then(Value::as_object).into_iter().flatten().partition(|(_, value)| has_keys(value))
}

fn table(text: &mut String, properties: &Properties<'_>) {
    text.push_str("| key | default | what it does |\n| --- | --- | --- |\n");
    for (name, property) in properties {
        let default = property.get("default").map(|value| format!("`{value}`")).unwrap_or_default();
        let range = match (property.get("minimum"), property.get("maximum")) {
            (Some(least), Some(most)) => format!(" From {least} to {most}."),
            _ => String::new(),
        };
        text.push_str(&format!("| `{name}` | {default} | {}{range}{} |\n", words(property), choices(property)));
    }
}

fn choices(property: &Value) -> String {
    let branches = property.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let choices: Vec<String> = branches
        .filter_map(|branch| Some((branch.get("const")?.as_str()?, words(branch))))
        .map(|(name, meaning)| format!(" `{name}`: {}", meaning.trim_end_matches('.').to_lowercase()))
        .collect();
    if choices.is_empty() { String::new() } else { format!("{}.", choices.join(";")) }
}

fn words(property: &Value) -> String {
    let text = property.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_is_a_configuration() {
        let value = super::config::parse("example", super::PROTECT_EXAMPLE).unwrap();
        let config: super::config::Config = serde_json::from_value(value).unwrap();
        assert_eq!(config.protect[0].requires.len(), 2);
        let shown = super::configuration();
        for key in ["`[[protect.requires]]`", "`[protect.requires.label]`", "Never left out: `kind`"] {
            assert!(shown.contains(key), "{key}");
        }
    }

    #[test]
    fn the_committed_references_are_current() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
        for (name, fresh) in super::all() {
            let path = folder.join(name);
            if std::env::var_os("MAINSTAY_BLESS").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &fresh).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == fresh,
                "{name} is not current; run the tests once with MAINSTAY_BLESS=1 and commit it"
            );
        }
    }
}
