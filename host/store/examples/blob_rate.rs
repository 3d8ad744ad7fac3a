//! How fast blobs are stored and read on this machine's disk: small ones by several clients at once, and one large one.
//!
//! `cargo run -p mainstay-store --example blob_rate [folder]`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream};
use mainstay_base::{Random, Result, SeededRandom, SystemClock};
use mainstay_store::blobs::{self, BlobBackend, Blobs, PutOptions};
use mainstay_store::{Space, Store, StoreOptions};

const CLIENTS: usize = 8;
const SMALL_BLOBS: usize = 1_000;
const SMALL_BYTES: usize = 10_000;
const LARGE_BYTES: usize = 512 << 20;
const CHUNK_BYTES: usize = 64 << 10;

#[tokio::main]
async fn main() -> Result<()> {
    let temporary = std::env::temp_dir().join(format!("blob-rate-{}", std::process::id()));
    let folder = std::env::args().nth(1).map_or(temporary, PathBuf::from);
    let store = Store::open(StoreOptions::new(folder.join("store")))?;
    let backend = BlobBackend::Local { folder: folder.join("blobs") };
    let blobs = Blobs::open(store.clone(), backend, Arc::new(SystemClock::default()), Duration::from_secs(86_400))?;
    small(&store, &blobs).await?;
    large(&blobs).await?;
    store.close()?;
    std::fs::remove_dir_all(&folder).map_err(|error| mainstay_base::Error::io("remove", &folder, error))
}

async fn small(store: &Store, blobs: &Blobs) -> Result<()> {
    let random = SeededRandom::new(1);
    let bodies: Vec<Bytes> = (0..SMALL_BLOBS)
        .map(|_| {
            let mut body = vec![0; SMALL_BYTES];
            random.fill(&mut body);
            body.into()
        })
        .collect();
    for what in ["new", "stored again"] {
        let started = Instant::now();
        let put = stream::iter(bodies.iter().cloned().enumerate())
            .map(|(number, body)| async move {
                let info = blobs.put_bytes(body).await?;
                let mut tx = store.begin(&store.view());
                blobs::link(&mut tx, &Space::plugin("example"), &format!("run/{number}"), &info.sha256)?;
                store.commit(tx).await?;
                Ok(info.sha256)
            })
            .buffer_unordered(CLIENTS);
        let digests: Vec<Result<String>> = put.collect().await;
        let per_second = SMALL_BLOBS as f64 / started.elapsed().as_secs_f64();
        println!("{SMALL_BYTES} bytes put and linked, {CLIENTS} clients, {what}: {per_second:.0} a second");

        let started = Instant::now();
        for digest in digests {
            blobs.get_bytes(&digest?, None).await?;
        }
        let per_second = SMALL_BLOBS as f64 / started.elapsed().as_secs_f64();
        println!("{SMALL_BYTES} bytes read and verified, one client: {per_second:.0} a second");
    }
    Ok(())
}

async fn large(blobs: &Blobs) -> Result<()> {
    let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
    let body = stream::iter((0..LARGE_BYTES / CHUNK_BYTES).map(move |_| Ok(chunk.clone())));
    let started = Instant::now();
    let info = blobs.put(body, PutOptions::default()).await?;
    let per_second = |started: Instant| LARGE_BYTES as f64 / f64::from(1 << 20) / started.elapsed().as_secs_f64();
    println!("{} MiB put: {:.0} MiB a second", LARGE_BYTES >> 20, per_second(started));

    let started = Instant::now();
    let (_, mut bytes) = blobs.get(&info.sha256, None).await?;
    let mut received = 0;
    while let Some(piece) = bytes.next().await {
        received += piece?.len();
    }
    println!("{} MiB read and verified: {:.0} MiB a second", received >> 20, per_second(started));
    Ok(())
}
