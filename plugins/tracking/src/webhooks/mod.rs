//! Webhooks: who else is told of the registry, and where.
//!
//! Owns the records and their requests; `words` knows the API's events and what is sent for each, `delivery` hands them to the
//! host. A secret goes to the host in the transaction that keeps the webhook, and never comes back: only the host signs with
//! it. An address that no grant of the operator covers is refused here, where somebody can read why, and not silently later.
//! Separate from `registry`, which publishes events and knows no webhooks. Bounded by [`WEBHOOKS_MAX`]: all of them together
//! are one short scan, and what one event sends fits one transaction. On failure: nothing was changed.

pub mod delivery;
pub mod words;

use crate::errors::{Code, Failure, Outcome};
use crate::json::{self, Object};
use crate::search::plan::{self, Fingerprint};
use crate::store::{self, change};
use crate::validate;
use crate::wire::{Args, Field, Kind, optional, required};
use mainstay_sdk::outbound::Call;
use mainstay_sdk::{ErrorKind, Transaction, clock, keys, log, random};
use serde::{Deserialize, Serialize};
use words::EventName;

/// Most webhooks.
pub const WEBHOOKS_MAX: usize = 200;
/// Longest name, in characters.
const NAME_CHARS_MAX: usize = 63;
/// Longest address, in bytes.
const URL_BYTES_MAX: usize = 2_048;
/// Longest description, in characters.
const DESCRIPTION_CHARS_MAX: usize = 1_000;
/// Longest secret, in bytes; the host takes no longer ones.
const SECRET_BYTES_MAX: usize = 4_096;
/// Schemes of addresses.
const SCHEMES: &[&str] = &["https", "http"];
/// Rows of a page unless the client says otherwise, and at most.
const PAGE_ROWS: (i64, i64) = (100, 1_000);

const STATUSES: &[(&str, i64)] = &[("ACTIVE", 1), ("DISABLED", 2)];
const DISABLED: i64 = 2;

/// What is kept of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Its id.
    pub id: String,
    /// Larger than those of all before it.
    pub number: u64,
    /// Its name, which need not be unlike others.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Where it leads.
    pub url: String,
    /// What it is told of.
    pub events: Vec<EventName>,
    /// Whether it is told at all.
    pub is_active: bool,
    /// Whether the host keeps a secret for it.
    pub is_signed: bool,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it was changed, in milliseconds since 1970.
    pub updated_ms: i64,
}

impl Webhook {
    /// The name of its secret.
    pub fn secret(&self) -> String {
        format!("webhook.{}", self.id)
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut object = Object::new(out);
        object
            .text("webhook_id", &self.id)
            .text("name", &self.name)
            .maybe_text("description", self.description.as_deref())
            .text("url", &self.url)
            .list("events", &self.events, |out, event| {
                let (entity, action) = event.on_the_wire();
                Object::new(out).text("entity", &entity).text("action", &action).end();
            })
            .text("status", if self.is_active { "ACTIVE" } else { "DISABLED" })
            .integer("creation_timestamp", self.created_ms)
            .integer("last_updated_timestamp", self.updated_ms)
            .end();
    }

    fn answer(&self) -> Vec<u8> {
        let mut out = b"{\"webhook\":".to_vec();
        self.write(&mut out);
        out.push(b'}');
        out
    }
}

/// All webhooks, the newest first.
pub fn all() -> Outcome<Vec<Webhook>> {
    let mut all: Vec<Webhook> = Vec::new();
    for entry in keys::scan(store::webhooks_prefix().prefix()) {
        all.push(serde_json::from_slice(&entry?.value).map_err(damaged)?);
    }
    all.sort_unstable_by_key(|webhook| std::cmp::Reverse(webhook.number));
    Ok(all)
}

fn damaged(error: serde_json::Error) -> Failure {
    Failure::new(Code::InternalError, format!("a stored webhook is damaged: {error}; check the host's data folder"))
}

/// A webhook.
pub fn find(id: &str) -> Outcome<Webhook> {
    let not_found = || Failure::missing(format!("Webhook with ID {id} not found."));
    // An id of another length than ours is no key worth asking for.
    if id.len() > 64 {
        return Err(not_found());
    }
    keys::get_json(store::webhook_key(id))?.ok_or_else(not_found)
}

const CREATE: &[Field] = &[
    required("name", Kind::Text),
    required("url", Kind::Text),
    required("events", Kind::List),
    optional("description", Kind::Text),
    optional("secret", Kind::Text),
    optional("status", Kind::Word(STATUSES)),
];

/// `POST webhooks`
pub fn create(args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(CREATE)?;
    let now = clock::now_ms();
    let secret = args.text("secret");
    let mut webhook = Webhook {
        id: random::uuid(),
        number: 0,
        name: args.text_or_empty("name").to_owned(),
        description: args.text("description").map(str::to_owned),
        url: args.text_or_empty("url").to_owned(),
        events: words::read_all(&args)?,
        is_active: args.integer("status") != Some(DISABLED),
        is_signed: secret.is_some(),
        created_ms: now,
        updated_ms: now,
    };
    check(&webhook, secret)?;
    must_be_granted(&webhook.url)?;
    let guard = store::webhook_number_key();
    change(|tx| {
        if all()?.len() >= WEBHOOKS_MAX {
            return Err(Failure::new(
                Code::ResourceExhausted,
                format!("There are {WEBHOOKS_MAX} webhooks already, the most that are kept. Delete one first."),
            ));
        }
        webhook.number = keys::get_json::<u64>(&guard)?.unwrap_or(0) + 1;
        tx.expect_unchanged(&guard)?;
        tx.put_json(&guard, &webhook.number)?;
        keep(tx, &webhook, secret)
    })?;
    log::info!("webhook {} to {} created", webhook.name, webhook.url; webhook = webhook.id, by = by);
    Ok(webhook.answer())
}

/// Keep a webhook, and its secret where one is given; an empty one means that it has none any more.
fn keep(tx: &Transaction, webhook: &Webhook, secret: Option<&str>) -> Outcome<()> {
    match secret {
        Some("") => tx.remove_secret(&webhook.secret())?,
        Some(secret) => tx.put_secret(&webhook.secret(), secret.as_bytes())?,
        None => {}
    }
    Ok(tx.put_json(store::webhook_key(&webhook.id), webhook)?)
}

/// `GET webhooks/{id}`
pub fn get(id: &str) -> Outcome<Vec<u8>> {
    Ok(find(id)?.answer())
}

const LIST: &[Field] = &[optional("max_results", Kind::Integer), optional("page_token", Kind::Text)];

/// `GET webhooks`
pub fn list(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(LIST)?;
    let rows = args.integer("max_results").filter(|rows| *rows != 0).unwrap_or(PAGE_ROWS.0);
    if !(1..=PAGE_ROWS.1).contains(&rows) {
        return Err(Failure::invalid(format!("max_results must be between 1 and {}.", PAGE_ROWS.1)));
    }
    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
    let question = Fingerprint::of(["webhooks"]);
    let before = match plan::cursor(question, args.text("page_token"))? {
        Some(place) => {
            let place: [u8; 8] = place.try_into().map_err(|_| Failure::invalid("Invalid page token"))?;
            u64::from_le_bytes(place)
        }
        None => u64::MAX,
    };
    let mut left = all()?;
    left.retain(|webhook| webhook.number < before);
    let next = if left.len() > rows { left.get(rows - 1).map(|last| last.number) } else { None };
    left.truncate(rows);
    Ok(json::object(|o| {
        o.list("webhooks", &left, |out, webhook| webhook.write(out));
        if let Some(number) = next {
            o.text("next_page_token", &plan::page_token(question, &number.to_le_bytes()));
        }
    }))
}

const UPDATE: &[Field] = &[
    optional("name", Kind::Text),
    optional("url", Kind::Text),
    optional("events", Kind::List),
    optional("description", Kind::Text),
    optional("secret", Kind::Text),
    optional("status", Kind::Word(STATUSES)),
];

/// `PATCH webhooks/{id}`: what is not given stays.
pub fn update(id: &str, args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(UPDATE)?;
    let secret = args.has("secret").then(|| args.text_or_empty("secret"));
    let (webhook, _) = change(|tx| {
        let mut webhook = find(id)?;
        if let Some(name) = args.text("name") {
            webhook.name = name.to_owned();
        }
        if let Some(url) = args.text("url") {
            webhook.url = url.to_owned();
        }
        if args.objects("events").next().is_some() {
            webhook.events = words::read_all(&args)?;
        }
        if args.has("description") {
            webhook.description = args.text("description").map(str::to_owned);
        }
        if let Some(status) = args.integer("status") {
            webhook.is_active = status != DISABLED;
        }
        webhook.is_signed = secret.map_or(webhook.is_signed, |secret| !secret.is_empty());
        webhook.updated_ms = clock::now_ms();
        check(&webhook, secret)?;
        if args.text("url").is_some() {
            must_be_granted(&webhook.url)?;
        }
        tx.expect_unchanged(store::webhook_key(id))?;
        keep(tx, &webhook, secret)?;
        Ok(webhook)
    })?;
    log::info!("webhook {} to {} changed", webhook.name, webhook.url; webhook = webhook.id, by = by);
    Ok(webhook.answer())
}

/// `DELETE webhooks/{id}`
pub fn delete(id: &str, by: &str) -> Outcome<Vec<u8>> {
    change(|tx| {
        let webhook = find(id)?;
        tx.expect_unchanged(store::webhook_key(id))?;
        tx.delete(store::webhook_key(id))?;
        Ok(tx.remove_secret(&webhook.secret())?)
    })?;
    log::info!("webhook {id} deleted"; webhook = id, by = by);
    Ok(b"{}".to_vec())
}

/// Refuse what no webhook can be.
fn check(webhook: &Webhook, secret: Option<&str>) -> Outcome<()> {
    check_name(&webhook.name)?;
    check_url(&webhook.url)?;
    if let Some(text) = &webhook.description {
        validate::length("description", DESCRIPTION_CHARS_MAX, text)?;
    }
    if secret.is_some_and(|secret| secret.len() > SECRET_BYTES_MAX) {
        // Not what was given: secrets are in no message.
        return Err(Failure::invalid(format!("'secret' exceeds the maximum length of {SECRET_BYTES_MAX} bytes")));
    }
    Ok(())
}

fn check_name(name: &str) -> Outcome<()> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let fits = name.len() <= NAME_CHARS_MAX && name.chars().all(is_good);
    if fits && is_end(name.chars().next()) && is_end(name.chars().next_back()) {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "Webhook name '{name}' is invalid. It must start and end with a letter or digit, be less than 63 characters long, \
         and contain only letters, digits, dots (.), underscores (_), and hyphens (-)."
    )))
}

fn check_url(url: &str) -> Outcome<()> {
    if url.trim().is_empty() {
        return Err(Failure::invalid(format!("Webhook URL cannot be empty or just whitespace: '{url}'")));
    }
    if url.len() > URL_BYTES_MAX {
        return Err(Failure::invalid(format!("'url' exceeds the maximum length of {URL_BYTES_MAX} bytes")));
    }
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    let scheme = scheme.to_ascii_lowercase();
    if !SCHEMES.contains(&scheme.as_str()) {
        return Err(Failure::invalid(format!(
            "Invalid webhook URL scheme: '{scheme}'. Allowed schemes are: {}.",
            SCHEMES.join(", ")
        )));
    }
    let authority = rest.strip_prefix("//").unwrap_or("").split(['/', '?', '#']).next().unwrap_or("");
    let host = authority.rsplit('@').next().unwrap_or("");
    if host.is_empty() || host.starts_with(':') {
        return Err(Failure::invalid(format!("Webhook URL must include a hostname: '{url}'")));
    }
    Ok(())
}

/// Refuse an address that the host would not call. Nothing is sent: the transaction is dropped.
fn must_be_granted(url: &str) -> Outcome<()> {
    match Transaction::begin()?.deliver(&Call::new("POST", url)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Denied => Err(Failure::new(
            Code::PermissionDenied,
            format!("Webhook URL '{url}' leads where this server may not call: {}", error.message()),
        )),
        Err(error) if error.kind() == ErrorKind::Invalid => {
            Err(Failure::invalid(format!("Invalid webhook URL '{url}': {}", error.message())))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(outcome: Outcome<()>, message: &str) {
        let failure = outcome.unwrap_err();
        assert_eq!(failure.code, Code::InvalidParameterValue);
        assert!(failure.message.starts_with(message), "{}", failure.message);
    }

    #[test]
    fn names_are_those_of_the_reference_server() {
        for name in ["a", "A.b_c-9", "0", &"n".repeat(NAME_CHARS_MAX)] {
            check_name(name).unwrap();
        }
        for name in ["", "-a", "a-", ".", "a b", "ä", "a/b", "a\n", &"n".repeat(NAME_CHARS_MAX + 1)] {
            refused(check_name(name), &format!("Webhook name '{name}' is invalid. It must start and end with"));
        }
    }

    #[test]
    fn addresses_are_those_of_the_reference_server() {
        for url in ["https://example.com", "HTTPS://u:p@example.com:1/a?b#c", "http://[::1]:8/x", "https://1.2.3.4"] {
            check_url(url).unwrap();
        }
        let longest = format!("https://{}", "h".repeat(URL_BYTES_MAX - 8));
        check_url(&longest).unwrap();
        refused(check_url(&format!("{longest}h")), "'url' exceeds the maximum length of 2048 bytes");
        refused(check_url("  "), "Webhook URL cannot be empty or just whitespace: '  '");
        refused(check_url("ftp://example.com"), "Invalid webhook URL scheme: 'ftp'. Allowed schemes are: https, http.");
        refused(check_url("example.com"), "Invalid webhook URL scheme: ''. Allowed schemes");
        for url in
            ["https://", "https:", "https:example.com", "https:///path", "https://?x", "https://u@", "https://:80"]
        {
            refused(check_url(url), &format!("Webhook URL must include a hostname: '{url}'"));
        }
    }

    #[test]
    fn descriptions_and_secrets_have_an_end() {
        let webhook = |description: String| Webhook {
            id: "i".into(),
            number: 1,
            name: "n".into(),
            description: Some(description),
            url: "https://example.com".into(),
            events: Vec::new(),
            is_active: true,
            is_signed: false,
            created_ms: 0,
            updated_ms: 0,
        };
        let longest = webhook("é".repeat(DESCRIPTION_CHARS_MAX));
        check(&longest, Some(&"s".repeat(SECRET_BYTES_MAX))).unwrap();
        refused(
            check(&longest, Some(&"s".repeat(SECRET_BYTES_MAX + 1))),
            "'secret' exceeds the maximum length of 4096",
        );
        refused(check(&webhook("é".repeat(DESCRIPTION_CHARS_MAX + 1)), None), "'description' exceeds the maximum");
    }
}
