//! Which plugin answers which path.
//!
//! Plugins claim exact paths and prefixes at the root, and everything they claim is also found under their mount point,
//! `/plugins/NAME/`. The table is built whole, checked whole, and swapped atomically, so a request sees either the old one
//! or the new one. A lookup allocates nothing: one hash for an exact path, one binary search for a prefix.
//!
//! Bounded by the manifests' claims. On failure: a claim that overlaps another plugin's or the host's is refused with both
//! names, and the table stays as it was.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use http::{HeaderValue, Method};
use mainstay_base::{Error, Result};

use crate::api::ApiTarget;
use crate::metrics::RouteMeters;

/// Prefixes that the host keeps for itself.
pub const HOST_PREFIXES: &[&str] = &["/-/", "/plugins/", "/v2/"];
/// Paths that the host keeps for itself.
pub const HOST_PATHS: &[&str] = &["/-", "/plugins", "/v2", "/healthz", "/readyz", "/metrics"];

/// What a caller needs to use a route. Each right includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Nothing, not even credentials.
    None,
    /// To look.
    Read,
    /// To change.
    Write,
    /// To administer.
    Admin,
}

impl Right {
    /// As manifests write it.
    pub fn parse(word: &str) -> Result<Right> {
        match word {
            "none" => Ok(Right::None),
            "read" => Ok(Right::Read),
            "write" => Ok(Right::Write),
            "admin" => Ok(Right::Admin),
            other => Err(Error::invalid(format!("`{other}` is no right; use `none`, `read`, `write` or `admin`"))),
        }
    }

    /// As manifests write it.
    pub fn word(self) -> &'static str {
        match self {
            Right::None => "none",
            Right::Read => "read",
            Right::Write => "write",
            Right::Admin => "admin",
        }
    }
}

/// A path that a plugin claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutePath {
    /// Just this one.
    Exact(String),
    /// Everything that starts with this; ends with `/`.
    Prefix(String),
}

/// A claim of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Which paths.
    pub path: RoutePath,
    /// In capitals; none means all. `GET` includes `HEAD`.
    pub methods: Vec<String>,
    /// What callers need.
    pub right: Right,
    /// Bodies up to this come with the request.
    pub inline_body_bytes: u64,
}

/// A plugin that answers HTTP, and what it claims.
pub struct PluginRoutes {
    /// Its name.
    pub name: String,
    /// What answers.
    pub target: Arc<dyn ApiTarget>,
    /// Its claims. A plugin without any answers everything under its mount point: reading with `GET`, `HEAD` and
    /// `OPTIONS`, writing with other methods.
    pub routes: Vec<RouteSpec>,
}

/// The table in use. Clones share it.
#[derive(Clone, Default)]
pub struct Routes {
    table: Arc<ArcSwap<Table>>,
}

impl Routes {
    /// No plugins.
    pub fn new() -> Routes {
        Routes::default()
    }

    /// Put these in place of what was there, all at once.
    ///
    /// `invalid` if a claim is malformed, `conflict` if it overlaps another plugin's or the host's; the table stays then.
    pub fn replace(&self, plugins: Vec<PluginRoutes>) -> Result<()> {
        self.table.store(Arc::new(Table::build(plugins)?));
        Ok(())
    }

    /// Names of the plugins that answer.
    pub fn plugins(&self) -> Vec<String> {
        let mut names: Vec<String> = self.table.load().mounts.keys().map(|name| name.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Who answers this path, and which path it sees.
    pub(crate) fn find<'p>(&self, path: &'p str) -> Option<(Arc<Claim>, &'p str)> {
        let table = self.table.load();
        if let Some(mounted) = path.strip_prefix("/plugins/") {
            let end = mounted.find('/').unwrap_or(mounted.len());
            let relative = if end == mounted.len() { "/" } else { &mounted[end..] };
            return table.mounts.get(&mounted[..end])?.find(relative).map(|claim| (claim.clone(), relative));
        }
        table.root.find(path).map(|claim| (claim.clone(), path))
    }
}

/// A set of methods, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Methods(u8);

/// Every method there is a bit for.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

impl Methods {
    const GET: u8 = 1;
    const HEAD: u8 = 2;
    const READING: Methods = Methods(Methods::GET | Methods::HEAD | 64);
    const WRITING: Methods = Methods(127 & !Methods::READING.0);

    fn parse(words: &[String]) -> Result<Methods> {
        if words.is_empty() {
            return Ok(Methods(127));
        }
        let mut set = 0;
        for word in words {
            let Some(position) = METHODS.iter().position(|method| method.as_str() == word) else {
                return Err(Error::invalid(format!(
                    "`{word}` is no method that can be routed; use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS"
                )));
            };
            set |= 1 << position;
        }
        Ok(Methods(set))
    }

    fn bit(method: &Method) -> u8 {
        METHODS.iter().position(|known| known == method).map_or(0, |position| 1 << position)
    }

    /// Those that clients may use: HEAD wherever there is GET.
    fn answered(self) -> u8 {
        if self.0 & Methods::GET != 0 { self.0 | Methods::HEAD } else { self.0 }
    }
}

/// What holds for some methods of a claimed path.
pub(crate) struct Rule {
    methods: Methods,
    pub(crate) right: Right,
    pub(crate) inline_body_bytes: u64,
}

/// A claimed path.
pub(crate) struct Claim {
    pub(crate) plugin: Arc<str>,
    pub(crate) target: Arc<dyn ApiTarget>,
    /// As the manifest has it; a prefix ends with `*`.
    pub(crate) pattern: String,
    rules: Vec<Rule>,
    /// For the header `Allow`.
    pub(crate) allow: HeaderValue,
    pub(crate) meters: OnceLock<RouteMeters>,
}

impl Claim {
    /// What holds for this method, and the method that the plugin sees: GET for a HEAD that it does not claim itself.
    pub(crate) fn rule(&self, method: &Method) -> Option<(&Rule, Method)> {
        let bit = Methods::bit(method);
        if let Some(rule) = self.rules.iter().find(|rule| rule.methods.0 & bit != 0) {
            return Some((rule, method.clone()));
        }
        let get = self.rules.iter().find(|rule| rule.methods.0 & Methods::GET != 0);
        get.filter(|_| bit == Methods::HEAD).map(|rule| (rule, Method::GET))
    }
}

struct Prefix {
    prefix: Box<str>,
    /// Position of the longest other prefix that this one starts with.
    parent: Option<usize>,
    claim: Arc<Claim>,
}

/// Exact paths and prefixes.
#[derive(Default)]
struct Index {
    exact: HashMap<Box<str>, Arc<Claim>>,
    /// Sorted.
    prefixes: Vec<Prefix>,
}

impl Index {
    fn new(claims: Vec<(RoutePath, Arc<Claim>)>) -> Index {
        let mut index = Index::default();
        for (path, claim) in claims {
            match path {
                RoutePath::Exact(path) => drop(index.exact.insert(path.into(), claim)),
                RoutePath::Prefix(prefix) => {
                    index.prefixes.push(Prefix { prefix: prefix.into(), parent: None, claim });
                }
            }
        }
        index.prefixes.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        for position in 1..index.prefixes.len() {
            index.prefixes[position].parent = index.ancestor(Some(position - 1), &index.prefixes[position].prefix);
        }
        index
    }

    /// Every prefix of `path` that sorts at or before `from` is `from` or one of its ancestors: whatever sorts between a
    /// prefix and the path starts with that prefix too.
    fn ancestor(&self, from: Option<usize>, path: &str) -> Option<usize> {
        let mut position = from;
        while let Some(at) = position {
            if path.starts_with(&*self.prefixes[at].prefix) {
                return Some(at);
            }
            position = self.prefixes[at].parent;
        }
        None
    }

    fn find(&self, path: &str) -> Option<&Arc<Claim>> {
        if let Some(claim) = self.exact.get(path) {
            return Some(claim);
        }
        let after = self.prefixes.partition_point(|prefix| &*prefix.prefix <= path);
        self.ancestor(after.checked_sub(1), path).map(|at| &self.prefixes[at].claim)
    }
}

#[derive(Default)]
struct Table {
    root: Index,
    mounts: HashMap<Box<str>, Index>,
}

impl Table {
    fn build(plugins: Vec<PluginRoutes>) -> Result<Table> {
        let mut table = Table::default();
        let mut root: Vec<(RoutePath, Arc<Claim>)> = Vec::new();
        for plugin in plugins {
            let name = plugin.name.clone();
            let claims = claims_of(plugin)?;
            let mount = match claims.at_root {
                true => {
                    refuse_overlaps(&root, &claims.list)?;
                    root.extend(claims.list.iter().cloned());
                    claims.list
                }
                false => claims.list,
            };
            if table.mounts.insert(name.as_str().into(), Index::new(mount)).is_some() {
                return Err(Error::conflict(format!("two plugins are named `{name}`; remove one")));
            }
        }
        table.root = Index::new(root);
        Ok(table)
    }
}

struct Claims {
    list: Vec<(RoutePath, Arc<Claim>)>,
    at_root: bool,
}

/// The claims of one plugin; several specifications of one path become one claim with several rules.
fn claims_of(plugin: PluginRoutes) -> Result<Claims> {
    let at_root = !plugin.routes.is_empty();
    let mut grouped: Vec<(RoutePath, Vec<Rule>)> = Vec::new();
    for spec in plugin.routes {
        check_spec(&plugin.name, &spec.path)?;
        let methods = Methods::parse(&spec.methods)
            .map_err(|error| error.context(format!("plugin `{}`, route `{}`", plugin.name, pattern(&spec.path))))?;
        let rule = Rule { methods, right: spec.right, inline_body_bytes: spec.inline_body_bytes };
        match grouped.iter_mut().find(|(path, _)| *path == spec.path) {
            None => grouped.push((spec.path, vec![rule])),
            Some((path, rules)) => {
                if rules.iter().any(|other| other.methods.0 & rule.methods.0 != 0) {
                    return Err(Error::invalid(format!(
                        "the plugin `{}` claims `{}` twice for the same method; give each method one right",
                        plugin.name,
                        pattern(path)
                    )));
                }
                rules.push(rule);
            }
        }
    }
    if !at_root {
        const INLINE_BODY_BYTES: u64 = 1 << 20;
        let rule = |methods, right| Rule { methods, right, inline_body_bytes: INLINE_BODY_BYTES };
        let rules = vec![rule(Methods::READING, Right::Read), rule(Methods::WRITING, Right::Write)];
        grouped.push((RoutePath::Prefix("/".to_owned()), rules));
    }
    let name: Arc<str> = plugin.name.into();
    let list = grouped.into_iter().map(|(path, rules)| {
        let claim = Claim {
            plugin: name.clone(),
            target: plugin.target.clone(),
            pattern: pattern(&path),
            allow: allow(&rules),
            rules,
            meters: OnceLock::new(),
        };
        (path, Arc::new(claim))
    });
    Ok(Claims { list: list.collect(), at_root })
}

fn pattern(path: &RoutePath) -> String {
    match path {
        RoutePath::Exact(path) => path.clone(),
        RoutePath::Prefix(prefix) => format!("{prefix}*"),
    }
}

fn allow(rules: &[Rule]) -> HeaderValue {
    let set = rules.iter().fold(0, |set, rule| set | rule.methods.answered());
    let words: Vec<&str> =
        METHODS.iter().filter(|method| set & Methods::bit(method) != 0).map(|method| method.as_str()).collect();
    HeaderValue::try_from(words.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn check_spec(plugin: &str, path: &RoutePath) -> Result<()> {
    let refuse = |text: &str, why: &str| {
        Err(Error::invalid(format!("the plugin `{plugin}` claims `{text}`, but {why}; correct its manifest")))
    };
    let text = match path {
        RoutePath::Exact(text) | RoutePath::Prefix(text) => text,
    };
    match crate::path::clean_path(text) {
        Err(fault) => return refuse(text, &format!("that is no clean path: {fault}")),
        Ok(clean) if clean != text.as_str() => return refuse(text, "paths in a manifest are not percent-encoded"),
        Ok(_) => {}
    }
    if matches!(path, RoutePath::Prefix(_)) && !text.ends_with('/') {
        return refuse(text, "a prefix ends with `/`");
    }
    if matches!(path, RoutePath::Prefix(prefix) if prefix == "/") {
        return refuse(text, "no plugin may have the whole root");
    }
    let of_host = HOST_PATHS.contains(&text.as_str()) || HOST_PREFIXES.iter().any(|prefix| text.starts_with(prefix));
    if of_host { refuse(text, "the host keeps that for itself") } else { Ok(()) }
}

fn refuse_overlaps(taken: &[(RoutePath, Arc<Claim>)], wanted: &[(RoutePath, Arc<Claim>)]) -> Result<()> {
    for (path, claim) in wanted {
        if let Some((_, other)) = taken.iter().find(|(other, _)| overlap(path, other)) {
            return Err(Error::conflict(format!(
                "the plugin `{}` claims `{}`, which overlaps `{}` of the plugin `{}`; remove one of the two",
                claim.plugin, claim.pattern, other.pattern, other.plugin
            )));
        }
    }
    Ok(())
}

fn overlap(a: &RoutePath, b: &RoutePath) -> bool {
    match (a, b) {
        (RoutePath::Exact(a), RoutePath::Exact(b)) => a == b,
        (RoutePath::Exact(path), RoutePath::Prefix(prefix)) | (RoutePath::Prefix(prefix), RoutePath::Exact(path)) => {
            path.starts_with(prefix.as_str())
        }
        (RoutePath::Prefix(a), RoutePath::Prefix(b)) => a.starts_with(b.as_str()) || b.starts_with(a.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use mainstay_base::ErrorKind;
    use mainstay_interfaces::HttpRequest;
    use mainstay_store::blobs::BlobInfo;

    use super::*;
    use crate::api::ApiFuture;

    struct Silent;

    impl ApiTarget for Silent {
        fn handle(&self, _: HttpRequest) -> ApiFuture<'_> {
            Box::pin(std::future::pending())
        }
        fn received(&self, _: HttpRequest, _: BlobInfo) -> ApiFuture<'_> {
            Box::pin(std::future::pending())
        }
    }

    fn spec(path: &str, methods: &[&str], right: Right) -> RouteSpec {
        let path = match path.strip_suffix('*') {
            Some(prefix) => RoutePath::Prefix(prefix.to_owned()),
            None => RoutePath::Exact(path.to_owned()),
        };
        let methods = methods.iter().map(|method| method.to_string()).collect();
        RouteSpec { path, methods, right, inline_body_bytes: 0 }
    }

    fn plugin(name: &str, routes: Vec<RouteSpec>) -> PluginRoutes {
        PluginRoutes { name: name.to_owned(), target: Arc::new(Silent), routes }
    }

    #[test]
    fn the_exact_path_then_the_longest_prefix() {
        let routes = Routes::new();
        let paths = ["/a/*", "/a/b/*", "/a/b/c", "/a/b-c/*", "/a/b/c/d/*", "/m/*", "/version"];
        let one = plugin("one", paths.iter().map(|path| spec(path, &[], Right::Read)).collect());
        routes.replace(vec![one, plugin("two", vec![])]).unwrap();
        let check = |path: &str, expect: Option<(&str, &str)>| {
            let found = routes.find(path);
            let found = found.as_ref().map(|(claim, relative)| (claim.pattern.as_str(), *relative));
            assert_eq!(found, expect, "{path}");
        };
        check("/a/", Some(("/a/*", "/a/")));
        check("/a", None);
        check("/a/x", Some(("/a/*", "/a/x")));
        check("/a/b", Some(("/a/*", "/a/b")));
        check("/a/b/", Some(("/a/b/*", "/a/b/")));
        check("/a/b/c", Some(("/a/b/c", "/a/b/c")));
        check("/a/b/c/d", Some(("/a/b/*", "/a/b/c/d")));
        check("/a/b/c/d/e", Some(("/a/b/c/d/*", "/a/b/c/d/e")));
        check("/a/b-c/x", Some(("/a/b-c/*", "/a/b-c/x")));
        check("/a/b-d/x", Some(("/a/*", "/a/b-d/x")));
        check("/a/c", Some(("/a/*", "/a/c")));
        check("/b", None);
        check("/", None);
        check("/zz", None);
        check("/versions", None);
        check("/plugins/one/version", Some(("/version", "/version")));
        check("/plugins/one/other", None);
        check("/plugins/one", None);
        check("/plugins/two", Some(("/*", "/")));
        check("/plugins/two/", Some(("/*", "/")));
        check("/plugins/two/x/y", Some(("/*", "/x/y")));
        check("/plugins/three/x", None);
        check("/plugins/", None);
        assert_eq!(routes.plugins(), ["one", "two"]);
    }

    #[test]
    fn methods_and_rights() {
        let routes = Routes::new();
        let claims = vec![spec("/x", &["GET"], Right::None), spec("/x", &["POST", "DELETE"], Right::Write)];
        routes.replace(vec![plugin("one", claims), plugin("open", vec![])]).unwrap();
        let check = |path: &str, method: Method, expect: Option<(Right, Method)>| {
            let (claim, _) = routes.find(path).unwrap();
            assert_eq!(claim.rule(&method).map(|(rule, seen)| (rule.right, seen)), expect, "{method} {path}");
        };
        check("/x", Method::GET, Some((Right::None, Method::GET)));
        check("/x", Method::HEAD, Some((Right::None, Method::GET)));
        check("/x", Method::POST, Some((Right::Write, Method::POST)));
        check("/x", Method::PUT, None);
        check("/x", Method::TRACE, None);
        check("/x", Method::from_bytes(b"BREW").unwrap(), None);
        check("/plugins/open/y", Method::OPTIONS, Some((Right::Read, Method::OPTIONS)));
        check("/plugins/open/y", Method::PATCH, Some((Right::Write, Method::PATCH)));
        assert_eq!(routes.find("/x").unwrap().0.allow, "GET, HEAD, POST, DELETE");
    }

    #[test]
    fn bad_claims_are_refused_and_change_nothing() {
        let routes = Routes::new();
        routes.replace(vec![plugin("one", vec![spec("/keep", &[], Right::Read)])]).unwrap();
        let check = |first: &[&str], second: &[&str], kind: ErrorKind, words: &[&str]| {
            let claims = |paths: &[&str]| paths.iter().map(|path| spec(path, &["GET"], Right::Read)).collect();
            let error = routes.replace(vec![plugin("one", claims(first)), plugin("two", claims(second))]).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(words.iter().all(|word| error.message().contains(word)), "{error}");
            assert!(routes.find("/keep").is_some());
        };
        check(&["/a"], &["/a"], ErrorKind::Conflict, &["`one`", "`two`", "`/a`"]);
        check(&["/a/*"], &["/a/b"], ErrorKind::Conflict, &["`/a/*`", "`/a/b`"]);
        check(&["/a/b/*"], &["/a/*"], ErrorKind::Conflict, &["`/a/b/*`", "`/a/*`"]);
        check(&["/-/x"], &["/a"], ErrorKind::Invalid, &["`one`", "`/-/x`"]);
        check(&["/healthz"], &["/a"], ErrorKind::Invalid, &["the host keeps"]);
        check(&["/*"], &["/a"], ErrorKind::Invalid, &["whole root"]);
        check(&["/a/../b"], &["/a"], ErrorKind::Invalid, &["`..`"]);
        check(&["/a%20b"], &["/a"], ErrorKind::Invalid, &["percent"]);
        check(&["/a*"], &["/b"], ErrorKind::Invalid, &["ends with `/`"]);
        check(&["/a", "/a"], &["/b"], ErrorKind::Invalid, &["twice"]);
    }
}
