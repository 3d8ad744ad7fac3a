//! `mainstay plugin …`: the same words whether a server runs on the data folder or not.
//!
//! Owns what is shown before the operator is asked, and the asking. On a stopped folder the command locks it and works on it;
//! on a running one it goes through the server's admin API, so that the change takes effect at once. On failure nothing has
//! been changed.

use crate::admin_client::AdminClient;
use crate::cli::{Install, PluginCommand};
use crate::data_folder::{DataFolder, Opened};
use crate::exit::{Exit, Failure, print_text, say};
use crate::plugins;
use crate::registry::Registry;
use crate::serve::plugin_host;
use crate::settings::Settings;
use mainstay_base::{Error, Result, SystemClock};
use mainstay_gateway::{PluginDetail, PluginSummary, RouteDetail};
use mainstay_market::located::Document;
use mainstay_market::{Market, Order, Package, check_component};
use mainstay_store::Store;
use mainstay_store::blobs::{BlobBackend, Blobs};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::sync::Arc;

/// Run a plugin command.
pub fn run(settings: &Settings, command: PluginCommand) -> std::result::Result<Exit, Failure> {
    match command {
        PluginCommand::Install(install) => install_plugin(settings, &install),
        PluginCommand::List { json } => list(settings, json),
        PluginCommand::Info { plugin, json } => info(settings, &plugin, json),
        PluginCommand::Remove { name, yes } => remove(settings, &name, yes),
    }
}

/// The data folder, stopped or running.
enum Place {
    Stopped(DataFolder),
    Running(AdminClient),
}

fn place(settings: &Settings) -> Result<Place> {
    match DataFolder::try_open(&settings.data, "plugin", None)? {
        Opened::Ours(folder) => Ok(Place::Stopped(folder)),
        Opened::Held(owner) => AdminClient::new(&settings.data, &owner).map(Place::Running),
    }
}

fn market(folder: &DataFolder) -> Result<Market> {
    Market::open(folder.path(), Arc::new(SystemClock::default()))
}

fn install_plugin(settings: &Settings, install: &Install) -> std::result::Result<Exit, Failure> {
    let registry = Registry::new(install.registry.as_deref().or(settings.registry.as_deref()));
    let package = registry.find(&install.package)?;
    let manifest = &package.manifest;
    let notes = check_component(manifest, &package.component)?;
    let grants = grants(&package, &install.without)?;
    let config = config(install, &package)?;
    let place = place(settings)?;
    let before = match &place {
        Place::Stopped(folder) => {
            let order = Order { package: &package, grants: Some(grants.clone()), config: config.clone() };
            market(folder)?.plan(&order)?.replaces.map(|version| version.to_string())
        }
        Place::Running(client) => {
            client.plugins()?.into_iter().find(|known| known.name == manifest.name).map(|known| known.version)
        }
    };
    show(&package, &grants, before.as_deref(), &notes);
    if !install.yes && !ask(&format!("Install `{}` {}?", manifest.name, manifest.version))? {
        say!("Nothing was changed.");
        return Ok(Exit::Done);
    }
    match place {
        Place::Stopped(folder) => {
            let order = Order { package: &package, grants: Some(grants), config };
            let compile = |package: &Package| compile(settings, package);
            market(&folder)?.install(&order, &compile)?;
            say!("Installed `{}` {}; it runs when the server is started.", manifest.name, manifest.version);
        }
        Place::Running(client) => {
            client.install(package.to_bytes()?, &grants, config.as_ref())?;
            say!("Installed `{}` {}; it answers now.", manifest.name, manifest.version);
        }
    }
    Ok(Exit::Done)
}

/// Compile and link as the server will, so that its start finds the result in the cache, and mistakes are told now.
fn compile(settings: &Settings, package: &Package) -> Result<()> {
    let threads = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::unavailable(format!("cannot start threads: {error}")))?;
    let _inside = threads.enter();
    let store = Store::in_memory();
    let scratch = settings.data.join("cache/no-blobs");
    let backend = BlobBackend::Local { folder: scratch.clone() };
    let blobs = Blobs::open(store.clone(), backend, Arc::new(SystemClock::default()), settings.blob_grace)?;
    let host = plugin_host(settings, settings.services(&store, &blobs, None)?, &settings.data)?;
    let spec = plugins::spec(&package.manifest, &package.component, &[], &Value::Object(Default::default()))?;
    let loaded = host.load(spec).map(|_| ());
    std::fs::remove_dir_all(&scratch).map_err(|error| Error::io("remove", &scratch, error))?;
    loaded
}

fn grants(package: &Package, without: &[String]) -> Result<Vec<String>> {
    let asked = &package.manifest.capabilities;
    if let Some(stranger) = without.iter().find(|name| !asked.contains(name)) {
        let name = &package.manifest.name;
        let list = mainstay_market::located::list(asked);
        return Err(Error::invalid(format!(
            "`--without {stranger}`: `{name}` does not ask for it; it asks for {list}"
        )));
    }
    Ok(asked.iter().filter(|name| !without.contains(name)).cloned().collect())
}

/// The operator's settings, if any were given, checked against the package's schema.
fn config(install: &Install, package: &Package) -> Result<Option<Value>> {
    if install.settings.is_none() && install.set.is_empty() {
        return Ok(None);
    }
    let schema = package.config_schema.as_ref();
    let mut config = match &install.settings {
        Some(path) => read_settings(path, schema, install.set.is_empty())?,
        None => Value::Object(Default::default()),
    };
    for assignment in &install.set {
        assign(&mut config, assignment)?;
    }
    mainstay_market::settings::resolve(schema, &config)
        .map_err(|problems| mainstay_market::settings::describe(&problems))?;
    Ok(Some(config))
}

fn read_settings(path: &Path, schema: Option<&Value>, is_all: bool) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io("read the settings", path, error))?;
    let name = path.display().to_string();
    if path.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_str(&text)
            .map_err(|error| Error::invalid(format!("{name}:{}:{}: {error}", error.line(), error.column())));
    }
    let document = Document::parse(&name, &text)?;
    if is_all && let Err(problems) = mainstay_market::settings::resolve(schema, document.value()) {
        document.refuse(problems)?;
    }
    Ok(document.value().clone())
}

/// `mail.port=25`: a number, a truth, a list or a quoted text as TOML writes them, anything else as text.
fn assign(config: &mut Value, assignment: &str) -> Result<()> {
    let Some((key, text)) = assignment.split_once('=') else {
        return Err(Error::invalid(format!("`--set {assignment}` has no `=`; write `--set KEY=VALUE`")));
    };
    let value = match format!("value = {text}").parse::<toml::Table>() {
        Ok(mut table) => table.remove("value").and_then(|value| serde_json::to_value(value).ok()),
        Err(_) => None,
    };
    let mut here = config;
    for part in key.trim().split('.') {
        if !here.is_object() {
            *here = Value::Object(Default::default());
        }
        // Indexing an object makes the key.
        here = &mut here[part];
    }
    *here = value.unwrap_or_else(|| Value::String(text.into()));
    Ok(())
}

fn show(package: &Package, grants: &[String], before: Option<&str>, notes: &[String]) {
    let manifest = &package.manifest;
    say!("{} {}  {}", manifest.name, manifest.version, manifest.description);
    say!("  licence  {}", manifest.license);
    say!("  digest   {}", package.digest);
    if let Some(before) = before {
        say!("  replaces {before}");
    }
    say!("\nIt may:");
    for name in grants {
        say!("  {name:16} {}", meaning(name));
    }
    if grants.is_empty() {
        say!("  nothing beyond answering");
    }
    for name in manifest.capabilities.iter().filter(|name| !grants.contains(name)) {
        say!("  {name:16} asked for, not granted");
    }
    if !manifest.routes.is_empty() {
        say!("\nIt answers:");
        for route in &manifest.routes {
            say!("  {:40} {}", route.to_string(), route.right.as_str());
        }
    }
    show_calls(manifest);
    show_limits(&plugins::limits_by_name(&manifest.limits));
    for note in notes {
        say!("\nNote: {note}");
    }
    say!();
}

/// What calls it beside requests, and whom it calls.
fn show_calls(manifest: &mainstay_market::Manifest) {
    let timer = |timer: &mainstay_market::Timer| match (&timer.cron, timer.every_s) {
        (Some(cron), _) => format!("the timer `{}`, when `{cron}` comes ({})", timer.name, timer.time_zone),
        (None, every_s) => format!("the timer `{}`, every {} s", timer.name, every_s.unwrap_or_default()),
    };
    let topics = manifest.topics.iter().map(|topic| format!("events of `{topic}`"));
    let called: Vec<String> = manifest.timers.iter().map(timer).chain(topics).collect();
    if !called.is_empty() {
        say!("\nIt is called by:");
        called.iter().for_each(|line| say!("  {line}"));
    }
    if !manifest.hosts.is_empty() {
        say!("\nIt calls:");
        manifest.hosts.iter().for_each(|host| say!("  {host}"));
    }
}

fn show_limits(limits: &BTreeMap<String, u64>) {
    say!("\nIts limits, for each call:");
    for (name, limit) in limits {
        say!("  {name:16} {limit}");
    }
}

/// What a capability allows, in words.
fn meaning(capability: &str) -> &'static str {
    let known = mainstay_interfaces::CAPABILITIES.iter().find(|(name, _)| *name == capability);
    known.map_or("unknown to this host", |(_, allows)| allows)
}

/// Yes only if somebody says so. That nobody can be asked is a failure: a script must not take it for done.
fn ask(question: &str) -> Result<bool> {
    let failed =
        |error: std::io::Error| Error::unavailable(format!("cannot ask: {error}; `--yes` goes without asking"));
    print_text(&format!("{question} [y/N] "));
    let mut answer = String::new();
    let read_bytes = std::io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    if read_bytes == 0 {
        say!();
        return Err(Error::invalid("nobody answered, so nothing was changed; `--yes` goes without asking"));
    }
    if !std::io::stdin().is_terminal() {
        say!();
    }
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn list(settings: &Settings, json: bool) -> std::result::Result<Exit, Failure> {
    let mut all: Vec<PluginSummary> = match place(settings)? {
        Place::Running(client) => client.plugins()?,
        Place::Stopped(folder) => {
            let installed = market(&folder)?.list()?;
            installed.iter().map(|installed| plugins::describe(installed, "stopped", None).summary).collect()
        }
    };
    all.sort_by(|left, right| left.name.cmp(&right.name));
    if json {
        say!("{}", to_json(&all)?);
        return Ok(Exit::Done);
    }
    if all.is_empty() {
        say!("No plugin is installed; `mainstay plugin install FILE` installs one.");
    }
    let width = all.iter().map(|plugin| plugin.name.len()).max().unwrap_or(0);
    for plugin in all {
        say!("{:width$}  {:8}  {:11}  {}", plugin.name, plugin.version, plugin.state, plugin.description);
    }
    Ok(Exit::Done)
}

fn to_json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|error| Error::internal(error.to_string()))
}

fn info(settings: &Settings, what: &str, json: bool) -> std::result::Result<Exit, Failure> {
    if what.contains('/') || Path::new(what).extension().is_some() {
        return package_info(what, json);
    }
    let detail = match place(settings)? {
        Place::Running(client) => client.plugin(what)?,
        Place::Stopped(folder) => plugins::describe(&market(&folder)?.info(what)?, "stopped", None),
    };
    match json {
        true => say!("{}", to_json(&detail)?),
        false => show_detail(&detail),
    }
    Ok(Exit::Done)
}

fn package_info(what: &str, json: bool) -> std::result::Result<Exit, Failure> {
    let package = Package::read(Path::new(what))?;
    let notes = check_component(&package.manifest, &package.component)?;
    match json {
        true => say!("{}", to_json(&package.manifest)?),
        false => show(&package, &package.manifest.capabilities, None, &notes),
    }
    Ok(Exit::Done)
}

fn show_detail(detail: &PluginDetail) {
    let PluginDetail { summary, digest, license, worlds, capabilities, grants, routes, limits, mount, config, problem } =
        detail;
    say!("{} {}  {}", summary.name, summary.version, summary.description);
    say!("  state    {}", summary.state);
    if let Some(problem) = problem {
        say!("  problem  {problem}");
    }
    say!("  licence  {license}\n  digest   {digest}\n  worlds   {}\n  mounted  {mount}", worlds.join(", "));
    say!("  settings {config}");
    say!("\nIt may:");
    for name in capabilities {
        let meaning = if grants.contains(name) { meaning(name) } else { "asked for, not granted" };
        say!("  {name:16} {meaning}");
    }
    say!("\nIt answers:");
    for RouteDetail { route, right } in routes {
        say!("  {route:40} {right}");
    }
    show_limits(limits);
}

fn remove(settings: &Settings, name: &str, yes: bool) -> std::result::Result<Exit, Failure> {
    let place = place(settings)?;
    let version = match &place {
        Place::Running(client) => client.plugin(name)?.summary.version,
        Place::Stopped(folder) => {
            let lockfile = market(folder)?.lockfile()?;
            lockfile.find(name).map(|entry| entry.version.to_string()).unwrap_or_default()
        }
    };
    if !version.is_empty() && !yes && !ask(&format!("Remove `{name}` {version}? What it stored stays."))? {
        say!("Nothing was changed.");
        return Ok(Exit::Done);
    }
    match place {
        Place::Running(client) => client.remove(name)?,
        Place::Stopped(folder) => {
            market(&folder)?.remove(name)?;
        }
    }
    say!("Removed `{name}` {version}; what it stored stays.");
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn manifests_may_ask_for_what_the_host_checks() {
        let checked: Vec<&str> = mainstay_interfaces::CAPABILITIES.iter().map(|(name, _)| *name).collect();
        assert_eq!(checked, mainstay_market::CAPABILITIES);
        let offered: Vec<String> = mainstay_market::worlds().iter().map(ToString::to_string).collect();
        let mut entered = mainstay_interfaces::world_names();
        entered.sort_unstable();
        assert_eq!(offered, entered);
    }

    #[test]
    fn the_market_refuses_what_the_gateway_keeps_for_itself() {
        let sorted = |mut list: Vec<String>| {
            list.sort();
            list
        };
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(sorted(texts(mainstay_market::RESERVED_PREFIXES)), sorted(texts(mainstay_gateway::HOST_PREFIXES)));
        // The market refuses a prefix without its `/` too.
        let bare = mainstay_market::RESERVED_PREFIXES.iter().map(|prefix| prefix.trim_end_matches('/').to_string());
        let refused = texts(mainstay_market::RESERVED_PATHS).into_iter().chain(bare).collect();
        assert_eq!(sorted(refused), sorted(texts(mainstay_gateway::HOST_PATHS)));
    }

    #[test]
    fn assignments_are_typed_as_toml_writes_them() {
        fn check(assignments: &[&str], expect: Value) {
            let mut config = json!({"kept": 1});
            for assignment in assignments {
                assign(&mut config, assignment).unwrap();
            }
            assert_eq!(config, expect);
        }
        check(&["days=30"], json!({"kept": 1, "days": 30}));
        check(&["on=true", "name=ana"], json!({"kept": 1, "on": true, "name": "ana"}));
        check(&["name=\"30\""], json!({"kept": 1, "name": "30"}));
        check(&["list=[1, 2]", "url=http://a/?b=c"], json!({"kept": 1, "list": [1, 2], "url": "http://a/?b=c"}));
        check(&["mail.port=25", "mail.host=h"], json!({"kept": 1, "mail": {"port": 25, "host": "h"}}));
        assert!(assign(&mut json!({}), "days").is_err());
    }
}
