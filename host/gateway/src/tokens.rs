//! Tokens: made, listed, revoked and verified.
//!
//! A token is `mst_`, a public id and 256 random bits. The store keeps its name, role and SHA-256, so who reads the data
//! folder cannot use what is there; the token itself is shown once. All tokens are also held in memory, which is what
//! verification looks at: by id, then in constant time. The functions work on a stopped host's store too.
//!
//! Bounded by `TOKENS_MAX`. On failure to write, what is in memory stays as the store has it.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use mainstay_base::{Clock, Error, Random, Result};
use mainstay_interfaces::Caller;
use mainstay_store::{KeyRange, ScanOptions, Space, Store};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

use crate::routes::Right;

/// Tokens of one host.
const TOKENS_MAX: usize = 10_000;
const NAME_BYTES_MAX: usize = 64;
const PREFIX: &str = "mst_";

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Look and change.
    Editor,
    /// Everything, also tokens and plugins.
    Admin,
}

impl Role {
    /// As the command line writes it.
    pub fn parse(word: &str) -> Result<Role> {
        match word {
            "viewer" => Ok(Role::Viewer),
            "editor" => Ok(Role::Editor),
            "admin" => Ok(Role::Admin),
            other => Err(Error::invalid(format!("`{other}` is no role; use `viewer`, `editor` or `admin`"))),
        }
    }

    pub(crate) fn right(self) -> Right {
        match self {
            Role::Viewer => Right::Read,
            Role::Editor => Right::Write,
            Role::Admin => Right::Admin,
        }
    }

    pub(crate) fn rights(self) -> Vec<String> {
        let all = [Right::Read, Right::Write, Right::Admin];
        all.into_iter().filter(|right| *right <= self.right()).map(|right| right.word().to_owned()).collect()
    }
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenInfo {
    /// Its name, which is also the name of whoever uses it.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// When it was made, milliseconds since 1970-01-01 UTC.
    pub created_ms: i64,
    /// When it ends, if it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_ms: Option<i64>,
}

/// A token that was just made.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// The token itself. It is not kept and cannot be shown again.
    pub token: String,
    /// What is known of it.
    #[serde(flatten)]
    pub info: TokenInfo,
}

/// As the store has it, under its name.
#[derive(Serialize, Deserialize)]
struct Row {
    id: String,
    sha256: String,
    #[serde(flatten)]
    info: TokenInfo,
}

/// Who presented a token that is valid.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) caller: Caller,
    pub(crate) right: Right,
    expires_ms: Option<i64>,
}

impl Identity {
    pub(crate) fn new(caller: Caller, right: Right) -> Identity {
        Identity { caller, right, expires_ms: None }
    }
}

struct Held {
    sha256: [u8; 32],
    info: TokenInfo,
    identity: Arc<Identity>,
}

struct Inner {
    store: Store,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    by_id: RwLock<HashMap<String, Held>>,
}

/// All tokens of a host. Clones share them.
#[derive(Clone)]
pub struct Tokens {
    inner: Arc<Inner>,
}

impl Tokens {
    /// Read all tokens of this store.
    pub fn open(store: Store, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Result<Tokens> {
        let mut by_id = HashMap::new();
        let view = store.view();
        let everything = [KeyRange { start: Vec::new(), end: None }];
        let page =
            view.scan(&space(), &everything, &ScanOptions { limit: TOKENS_MAX as u32, ..ScanOptions::default() })?;
        for (name, bytes) in page.iter() {
            let row: Row = serde_json::from_slice(bytes).map_err(|error| {
                let name = String::from_utf8_lossy(name);
                Error::internal(format!("the token `{name}` cannot be read from the store; revoke it and make another"))
                    .with_source(error)
            })?;
            let mut sha256 = [0; 32];
            hex::decode_to_slice(&row.sha256, &mut sha256).map_err(|error| {
                Error::internal(format!(
                    "the token `{}` has no proper digest; revoke it and make another",
                    row.info.name
                ))
                .with_source(error)
            })?;
            by_id.insert(row.id, held(sha256, row.info));
        }
        Ok(Tokens { inner: Arc::new(Inner { store, clock, random, by_id: RwLock::new(by_id) }) })
    }

    /// Make a token. `conflict` if the name is taken.
    pub async fn create(&self, name: &str, role: Role, expires_ms: Option<i64>) -> Result<NewToken> {
        check_name(name)?;
        let now_ms = self.inner.clock.now_ms();
        if expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms) {
            return Err(Error::invalid(format!("the token `{name}` would already have ended; choose a later time")));
        }
        if self.inner.by_id.read().len() >= TOKENS_MAX {
            return Err(Error::exhausted(format!("there are {TOKENS_MAX} tokens already; revoke some first")));
        }
        let mut secret = [0; 32];
        self.inner.random.fill(&mut secret);
        let id = format!("{:016x}", self.inner.random.number());
        let token = format!("{PREFIX}{id}_{}", BASE64_URL_SAFE_NO_PAD.encode(secret));
        let info = TokenInfo { name: name.to_owned(), role, created_ms: now_ms, expires_ms };
        let sha256: [u8; 32] = Sha256::digest(&token).into();
        let row = Row { id: id.clone(), sha256: hex::encode(sha256), info: info.clone() };
        let bytes = serde_json::to_vec(&row)
            .map_err(|error| Error::internal("a token could not be written down").with_source(error))?;
        let mut tx = self.inner.store.begin(&self.inner.store.view());
        tx.expect_absent(&space(), name.as_bytes())?;
        tx.put(&space(), name.as_bytes(), bytes)?;
        self.inner.store.commit(tx).await.map_err(|error| match error.kind() {
            mainstay_base::ErrorKind::Conflict => {
                Error::conflict(format!("there is a token `{name}` already; revoke it first or choose another name"))
            }
            _ => error,
        })?;
        self.inner.by_id.write().insert(id, held(sha256, info.clone()));
        Ok(NewToken { token, info })
    }

    /// All tokens, by name.
    pub fn list(&self) -> Vec<TokenInfo> {
        let mut all: Vec<_> = self.inner.by_id.read().values().map(|held| held.info.clone()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.inner.by_id.read().is_empty()
    }

    /// End a token at once. `not-found` if there is none of this name.
    pub async fn revoke(&self, name: &str) -> Result<()> {
        let missing = || Error::not_found(format!("there is no token `{name}`; list them to see their names"));
        if !self.inner.by_id.read().values().any(|held| held.info.name == name) {
            return Err(missing());
        }
        let mut tx = self.inner.store.begin(&self.inner.store.view());
        tx.expect_present(&space(), name.as_bytes())?;
        tx.delete(&space(), name.as_bytes())?;
        self.inner.store.commit(tx).await.map_err(|error| match error.kind() {
            mainstay_base::ErrorKind::Conflict => missing(),
            _ => error,
        })?;
        self.inner.by_id.write().retain(|_, held| held.info.name != name);
        Ok(())
    }

    /// Who holds this token, if it is valid now.
    pub(crate) fn verify(&self, token: &str) -> Option<Arc<Identity>> {
        let (id, _) = token.strip_prefix(PREFIX)?.split_once('_')?;
        let by_id = self.inner.by_id.read();
        let held = by_id.get(id)?;
        let presented: [u8; 32] = Sha256::digest(token).into();
        let same = bool::from(presented.ct_eq(&held.sha256));
        let lives = held.identity.expires_ms.is_none_or(|expires_ms| self.inner.clock.now_ms() < expires_ms);
        (same && lives).then(|| held.identity.clone())
    }
}

fn space() -> Space {
    Space::host("tokens")
}

fn held(sha256: [u8; 32], info: TokenInfo) -> Held {
    let caller = Caller { principal: info.name.clone(), rights: info.role.rights(), tenant: "default".to_owned() };
    let identity = Identity { caller, right: info.role.right(), expires_ms: info.expires_ms };
    Held { sha256, identity: Arc::new(identity), info }
}

fn check_name(name: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    let good = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(fits) && name != "anonymous";
    if good {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{name}` cannot name a token; use 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_`, `.` or `@`, and not `anonymous`"
    )))
}

#[cfg(test)]
mod tests {
    use mainstay_base::{ErrorKind, SeededRandom, VirtualClock};

    use super::*;

    fn open(store: &Store, clock: &Arc<VirtualClock>) -> Tokens {
        Tokens::open(store.clone(), clock.clone(), Arc::new(SeededRandom::new(7))).unwrap()
    }

    #[tokio::test]
    async fn a_token_lives_until_it_is_revoked_or_ends() {
        let (store, clock) = (Store::in_memory(), Arc::new(VirtualClock::new(1_000)));
        let tokens = open(&store, &clock);
        assert!(tokens.is_empty());
        let ada = tokens.create("ada", Role::Editor, None).await.unwrap();
        let bob = tokens.create("bob", Role::Viewer, Some(5_000)).await.unwrap();
        assert_eq!(tokens.verify(&ada.token).unwrap().caller.rights, ["read", "write"]);
        assert_eq!(tokens.verify(&bob.token).unwrap().right, Right::Read);
        // What is in the store is enough to verify, and not enough to be used.
        let again = open(&store, &clock);
        assert_eq!(again.verify(&ada.token).unwrap().caller.principal, "ada");
        assert_eq!(again.list(), tokens.list());
        let page = store
            .view()
            .scan(&space(), &[KeyRange { start: vec![], end: None }], &ScanOptions { limit: 10, ..Default::default() })
            .unwrap();
        let secret = ada.token.rsplit_once('_').unwrap().1;
        assert!(page.iter().all(|(_, row)| !String::from_utf8_lossy(row).contains(secret)));
        clock.advance_ms(4_000);
        assert!(tokens.verify(&bob.token).is_none());
        tokens.revoke("ada").await.unwrap();
        assert!(tokens.verify(&ada.token).is_none());
        assert_eq!(tokens.revoke("ada").await.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(open(&store, &clock).verify(&ada.token).is_none());
    }

    #[tokio::test]
    async fn names_are_checked_and_unique() {
        let tokens = open(&Store::in_memory(), &Arc::new(VirtualClock::new(1_000)));
        tokens.create("ci", Role::Admin, None).await.unwrap();
        let long = "x".repeat(65);
        for (name, expires_ms, kind) in [
            ("ci", None, ErrorKind::Conflict),
            ("", None, ErrorKind::Invalid),
            ("a b", None, ErrorKind::Invalid),
            ("a:b", None, ErrorKind::Invalid),
            ("anonymous", None, ErrorKind::Invalid),
            (&long, None, ErrorKind::Invalid),
            ("late", Some(1_000), ErrorKind::Invalid),
        ] {
            assert_eq!(tokens.create(name, Role::Viewer, expires_ms).await.unwrap_err().kind(), kind, "{name}");
        }
        assert_eq!(tokens.list().len(), 1);
    }

    #[tokio::test]
    async fn what_is_not_the_token_is_refused() {
        let tokens = open(&Store::in_memory(), &Arc::new(VirtualClock::new(1_000)));
        let token = tokens.create("ci", Role::Admin, None).await.unwrap().token;
        let cut = &token[..token.len() - 1];
        for wrong in ["", "mst_", "mst_1_2", cut, &format!("{token}x"), &token.to_uppercase(), &token[4..]] {
            assert!(tokens.verify(wrong).is_none(), "{wrong}");
        }
    }
}
