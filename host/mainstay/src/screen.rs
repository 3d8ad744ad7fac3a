//! The first screen: what a person sees when the server is ready.
//!
//! Owns its words and layout; everything in it is given. One screen: where it listens, who may use it, which plugins run
//! with which rights, and what to type next. What to export comes from the plugins' manifests.

use std::fmt::Write;

/// What the screen tells.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    /// Time from the process's start.
    pub ready_ms: u64,
    /// Where HTTP is, and where it listens if that is another thing.
    pub http: String,
    /// Address of gRPC.
    pub grpc: Option<String>,
    /// The data folder.
    pub data_folder: String,
    /// Its ordered store.
    pub engine: &'static str,
    /// Whether requests need a token.
    pub needs_token: bool,
    /// Whether it can be reached from beyond this machine, and needs no token there.
    pub is_open: bool,
    /// The plugins that run.
    pub plugins: Vec<Line>,
    /// Plugins that should run and do not: name and reason.
    pub problems: Vec<(String, String)>,
    /// What to do when there is no plugin.
    pub without_plugins: String,
}

/// One plugin.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it may do.
    pub grants: Vec<String>,
    /// How many requests it claims.
    pub routes: usize,
    /// What to type next.
    pub hints: Vec<String>,
}

impl Screen {
    /// The screen's text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("strings can be written to");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let seconds = self.ready_ms as f64 / 1000.0;
        writeln!(text, "Mainstay {} is ready after {seconds:.2} s.\n", env!("CARGO_PKG_VERSION"))?;
        writeln!(text, "  HTTP     {}", self.http)?;
        if let Some(grpc) = &self.grpc {
            writeln!(text, "  gRPC     {grpc}")?;
        }
        writeln!(text, "  data     {} ({})", self.data_folder, self.engine)?;
        writeln!(text, "  access   {}", self.access())?;
        self.write_plugins(text)?;
        let hints: Vec<&String> = self.plugins.iter().flat_map(|plugin| &plugin.hints).collect();
        if !hints.is_empty() {
            writeln!(text, "\nNext:\n")?;
            for hint in hints {
                writeln!(text, "  {hint}")?;
            }
        }
        writeln!(text, "\nCtrl-C stops it.")
    }

    fn access(&self) -> &'static str {
        match (self.needs_token, self.is_open) {
            (true, _) => "with a token: `mainstay token create --role editor NAME`",
            (false, false) => "from this machine, without a token",
            (false, true) => "FROM EVERYWHERE, WITHOUT A TOKEN, as the configuration says",
        }
    }

    fn write_plugins(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text)?;
        if self.plugins.is_empty() && self.problems.is_empty() {
            return writeln!(text, "No plugin runs. {}", self.without_plugins);
        }
        writeln!(text, "Plugins, and what they may do:\n")?;
        let width = self.plugins.iter().map(|plugin| plugin.name.len() + plugin.version.len() + 1).max().unwrap_or(0);
        for plugin in &self.plugins {
            let name = format!("{} {}", plugin.name, plugin.version);
            let grants = if plugin.grants.is_empty() { "nothing".into() } else { plugin.grants.join(", ") };
            let routes = if plugin.routes == 1 { "route" } else { "routes" };
            writeln!(text, "  {name:width$}  {grants}; answers {} {routes}", plugin.routes)?;
        }
        for (name, problem) in &self.problems {
            writeln!(text, "  {name}: does not run: {problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_and_without_plugins() {
        let plugin = |name: &str, grants: &[&str], hints: &[&str]| Line {
            name: name.into(),
            version: "0.1.0".into(),
            grants: grants.iter().map(ToString::to_string).collect(),
            routes: 7,
            hints: hints.iter().map(ToString::to_string).collect(),
        };
        let mut screen = Screen {
            ready_ms: 312,
            http: "http://127.0.0.1:7600".into(),
            grpc: Some("127.0.0.1:7601".into()),
            data_folder: "/data".into(),
            engine: "sled",
            plugins: vec![
                plugin("guests", &["keys", "index"], &["export GUESTS=http://127.0.0.1:7600"]),
                plugin("b", &[], &[]),
            ],
            problems: vec![("broken".into(), "its component traps at start".into())],
            ..Screen::default()
        };
        insta::assert_snapshot!("screen_with_plugins", screen.render());
        screen.plugins.clear();
        screen.problems.clear();
        screen.needs_token = true;
        screen.without_plugins = "Install one: `mainstay plugin install FILE`.".into();
        insta::assert_snapshot!("screen_without_plugins", screen.render());
        screen.needs_token = false;
        screen.is_open = true;
        assert!(screen.render().contains("FROM EVERYWHERE"));
    }
}
