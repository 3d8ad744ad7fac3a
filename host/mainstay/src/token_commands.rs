//! `mainstay token …` and `mainstay blobs …`: what else is done on a stopped folder and on a running server alike.
//!
//! Owns the two ways to the same thing: through the store when the folder is free, through the admin API when a server has
//! it. Only the token itself goes to standard output, so that a script can keep it.

use crate::admin_client::AdminClient;
use crate::cli::{BlobsCommand, RoleName, TokenCommand};
use crate::data_folder::{DataFolder, Opened};
use crate::exit::{Exit, Failure, say};
use crate::settings::Settings;
use mainstay_base::{Clock, Error, OsRandom, Result, SystemClock};
use mainstay_gateway::{BlobSweep, NewToken, Role, TokenInfo, Tokens};
use mainstay_store::Store;
use mainstay_store::blobs::{BlobBackend, Blobs};
use std::future::Future;
use std::sync::Arc;

/// Run a token command.
pub fn run(settings: &Settings, command: TokenCommand) -> std::result::Result<Exit, Failure> {
    match command {
        TokenCommand::Create { role, name } => {
            let made = create(settings, &name, role_of(role))?;
            say!("{}", made.token);
            eprintln!("This is the token of `{name}`. It is not kept and cannot be shown again.");
        }
        TokenCommand::List { json } => show(&list(settings)?, json)?,
        TokenCommand::Revoke { name } => {
            revoke(settings, &name)?;
            eprintln!("The token of `{name}` is worthless now.");
        }
    }
    Ok(Exit::Done)
}

/// Run a blobs command.
pub fn run_blobs(settings: &Settings, command: &BlobsCommand) -> std::result::Result<Exit, Failure> {
    let BlobsCommand::Gc = command;
    let sweep = match open(settings, "blobs gc")? {
        Opened::Held(owner) => AdminClient::new(&settings.data, &owner)?.collect_garbage()?,
        Opened::Ours(folder) => sweep(settings, &folder)?,
    };
    let BlobSweep { examined, removed, freed_bytes } = sweep;
    say!("Looked at {examined} blobs, removed {removed}, freed {} MiB.", freed_bytes >> 20);
    Ok(Exit::Done)
}

fn role_of(name: RoleName) -> Role {
    match name {
        RoleName::Viewer => Role::Viewer,
        RoleName::Editor => Role::Editor,
        RoleName::Admin => Role::Admin,
    }
}

fn open(settings: &Settings, command: &str) -> Result<Opened> {
    DataFolder::try_open(&settings.data, command, None)
}

fn create(settings: &Settings, name: &str, role: Role) -> Result<NewToken> {
    match open(settings, "token create")? {
        Opened::Held(owner) => AdminClient::new(&settings.data, &owner)?.create_token(name, role),
        Opened::Ours(folder) => with_tokens(settings, &folder, async |tokens| tokens.create(name, role, None).await),
    }
}

fn list(settings: &Settings) -> Result<Vec<TokenInfo>> {
    match open(settings, "token list")? {
        Opened::Held(owner) => AdminClient::new(&settings.data, &owner)?.tokens(),
        Opened::Ours(folder) => with_tokens(settings, &folder, async |tokens| Ok(tokens.list())),
    }
}

fn revoke(settings: &Settings, name: &str) -> Result<()> {
    match open(settings, "token revoke")? {
        Opened::Held(owner) => AdminClient::new(&settings.data, &owner)?.revoke_token(name),
        Opened::Ours(folder) => with_tokens(settings, &folder, async |tokens| tokens.revoke(name).await),
    }
}

fn show(tokens: &[TokenInfo], json: bool) -> Result<()> {
    if json {
        let text = serde_json::to_string_pretty(tokens).map_err(|error| Error::internal(error.to_string()))?;
        say!("{text}");
        return Ok(());
    }
    if tokens.is_empty() {
        say!("There is no token; `mainstay token create --role editor NAME` makes one.");
    }
    let width = tokens.iter().map(|token| token.name.len()).max().unwrap_or(0);
    for token in tokens {
        let role = match token.role {
            Role::Viewer => "viewer",
            Role::Editor => "editor",
            Role::Admin => "admin",
        };
        say!("{:width$}  {role}", token.name);
    }
    Ok(())
}

fn with_tokens<T>(settings: &Settings, folder: &DataFolder, work: impl AsyncFnOnce(&Tokens) -> Result<T>) -> Result<T> {
    let store = Store::open(settings.store(folder.engine()))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let tokens = Tokens::open(store.clone(), clock, Arc::new(OsRandom))?;
    let done = block_on(work(&tokens))?;
    drop(tokens);
    store.close()?;
    done
}

fn sweep(settings: &Settings, folder: &DataFolder) -> Result<BlobSweep> {
    let store = Store::open(settings.store(folder.engine()))?;
    let backend = BlobBackend::Local { folder: folder.path().join("blobs") };
    let blobs = Blobs::open(store.clone(), backend, Arc::new(SystemClock::default()), settings.blob_grace)?;
    let report = block_on(blobs.collect_garbage())??;
    drop(blobs);
    store.close()?;
    Ok(BlobSweep { examined: report.examined, removed: report.removed, freed_bytes: report.removed_bytes })
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    let threads = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::unavailable(format!("cannot start threads: {error}")))?;
    Ok(threads.block_on(work))
}
