//! Blobs against every backend: round trips, limits, damage, names, and garbage that must and must not go.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use mainstay_base::{Error, ErrorKind, SeededRandom, SystemClock, VirtualClock};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutPayload, PutResult, UploadPart,
};
use proptest::prelude::*;

use super::*;
use crate::damage::DamagedBlob;
use crate::space::Space;

const GRACE_MS: i64 = 1_000_000;
/// Objects carry the real time at which a test wrote them, which goes on while the virtual one stands still.
const TEST_MS_MAX: i64 = 600_000;

/// Blobs with all that belongs to them.
struct Fixture {
    blobs: Blobs,
    store: Store,
    clock: Arc<VirtualClock>,
    backend: BlobBackend,
    /// The folder, where there is one.
    folder: Option<tempfile::TempDir>,
}

impl Fixture {
    fn local() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let backend = BlobBackend::Local { folder: folder.path().join("blobs") };
        Fixture::new(backend, Some(folder))
    }

    fn memory() -> Fixture {
        Fixture::new(BlobBackend::Store(Arc::new(InMemory::new())), None)
    }

    fn new(backend: BlobBackend, folder: Option<tempfile::TempDir>) -> Fixture {
        let store = Store::in_memory();
        // Objects carry the real time of their writing.
        let clock = Arc::new(VirtualClock::new(SystemClock::default().now_ms()));
        let grace = Duration::from_millis(GRACE_MS as u64);
        let blobs = Blobs::open(store.clone(), backend.clone(), clock.clone(), grace).unwrap();
        Fixture { blobs, store, clock, backend, folder }
    }

    /// As after a crash: the same store and the same objects, nothing else.
    fn reopen(&mut self, backend: BlobBackend) {
        let grace = Duration::from_millis(GRACE_MS as u64);
        self.blobs = Blobs::open(self.store.clone(), backend, self.clock.clone(), grace).unwrap();
    }

    async fn put(&self, bytes: &[u8]) -> BlobInfo {
        self.blobs.put_bytes(Bytes::copy_from_slice(bytes)).await.unwrap()
    }

    async fn commit(&self, change: impl FnOnce(&mut crate::Transaction) -> Result<()>) -> Result<()> {
        let mut tx = self.store.begin(&self.store.view());
        change(&mut tx)?;
        self.store.commit(tx).await.map(drop)
    }

    async fn link(&self, name: &str, sha256: &str) -> Result<()> {
        self.commit(|tx| link(tx, &owner(), name, sha256)).await
    }

    async fn unlink(&self, name: &str) {
        self.commit(|tx| unlink(tx, &owner(), name)).await.unwrap();
    }

    async fn collect(&self) -> GarbageReport {
        self.blobs.collect_garbage().await.unwrap()
    }

    fn pass_grace(&self) {
        self.clock.advance_ms(GRACE_MS + TEST_MS_MAX);
    }

    async fn objects(&self) -> Vec<String> {
        let objects: Vec<ObjectMeta> = self.blobs.inner.backend.objects.list(None).try_collect().await.unwrap();
        let mut paths: Vec<String> = objects.into_iter().map(|object| object.location.to_string()).collect();
        paths.sort();
        paths
    }
}

fn owner() -> Space {
    Space::plugin("tracking")
}

async fn on_every_backend<F: Future<Output = ()>>(test: impl Fn(Fixture) -> F) {
    test(Fixture::local()).await;
    test(Fixture::memory()).await;
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SeededRandom::new(seed).fill(&mut bytes);
    bytes
}

fn in_chunks(bytes: &[u8], chunk: usize) -> BoxStream<'static, Result<Bytes>> {
    let chunks: Vec<_> = bytes.chunks(chunk).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    stream::iter(chunks).boxed()
}

#[tokio::test]
async fn what_was_put_is_got() {
    on_every_backend(|fixture| async move {
        for length in [0, 1, 255 << 10, 1 << 20, (1 << 20) + 1, (5 << 20) + 7] {
            let bytes = noise(length as u64, length);
            let info = fixture.blobs.put(in_chunks(&bytes, 70_001), PutOptions::default()).await.unwrap();
            assert_eq!(info.size_bytes, length as u64);
            assert_eq!(fixture.blobs.stat(&info.sha256).unwrap(), Some(info.clone()));
            assert_eq!(fixture.blobs.get_bytes(&info.sha256, None).await.unwrap(), bytes);
            let middle = length / 3;
            for range in [0..0, 0..middle, middle..length, middle..length + 10, length..length] {
                let range: Range<u64> = range.start as u64..range.end as u64;
                let expect = &bytes[range.start as usize..(range.end as usize).min(length)];
                let got = fixture.blobs.get_bytes(&info.sha256, Some(range.clone())).await.unwrap();
                assert_eq!(got, expect, "{range:?} of {length}");
            }
            let beyond = Some(length as u64 + 1..length as u64 + 2);
            let error = fixture.blobs.get_bytes(&info.sha256, beyond).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        assert!(fixture.objects().await.iter().all(|path| path.starts_with("sha256/")));
    })
    .await;
}

#[tokio::test]
async fn digests_are_the_published_ones() {
    let fixture = Fixture::memory();
    let info = fixture.put(b"abc").await;
    assert_eq!(info.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(info.md5, "900150983cd24fb0d6963f7d28e17f72");
    let empty = fixture.put(b"").await;
    assert_eq!(empty.md5, "d41d8cd98f00b204e9800998ecf8427e");
}

#[tokio::test]
async fn the_same_bytes_are_kept_once() {
    on_every_backend(|fixture| async move {
        let large = noise(1, 3 << 20);
        for bytes in [&b"small"[..], &large] {
            let before = fixture.objects().await.len();
            let (first, sequence) = (fixture.put(bytes).await, fixture.store.sequence());
            let again = fixture.put(bytes).await;
            assert_eq!(first, again);
            assert_eq!(fixture.objects().await.len(), before + 1);
            assert_eq!(fixture.store.sequence(), sequence, "storing what is there commits nothing");
        }
    })
    .await;
}

#[tokio::test]
async fn bad_bodies_leave_nothing() {
    on_every_backend(|fixture| async move {
        for length in [100, 3 << 20] {
            let bytes = noise(9, length);
            let put = |options: PutOptions| fixture.blobs.put(in_chunks(&bytes, 64 << 10), options);
            let limit = |limit_bytes| PutOptions { limit_bytes: Some(limit_bytes), ..PutOptions::default() };
            let expected =
                |sha256: &str| PutOptions { expected_sha256: Some(sha256.to_owned()), ..PutOptions::default() };

            let error = put(limit(length as u64 - 1)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
            let error = put(expected(&"00".repeat(32))).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains("was announced"), "{error}");
            let error = put(expected("no digest")).await.unwrap_err();
            assert!(error.message().contains("64 lowercase"), "{error}");
            let broken = in_chunks(&bytes, 64 << 10).chain(stream::iter([Err(Error::unavailable("the client left"))]));
            let error = fixture.blobs.put(broken, PutOptions::default()).await.unwrap_err();
            assert_eq!(error.message(), "the client left");
            assert_eq!(fixture.objects().await, [""; 0]);

            let info = put(limit(length as u64)).await.unwrap();
            assert_eq!(put(expected(&info.sha256)).await.unwrap(), info);
            fixture.pass_grace();
            fixture.collect().await;
            fixture.pass_grace();
            fixture.collect().await;
            assert_eq!(fixture.objects().await, [""; 0]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_put_that_is_given_up_leaves_nothing() {
    let fixture = Fixture::local();
    let endless = stream::repeat_with(|| Ok(Bytes::from(vec![7; 64 << 10]))).then(|chunk| async {
        tokio::task::yield_now().await;
        chunk
    });
    let put = fixture.blobs.put(endless, PutOptions::default());
    tokio::time::timeout(Duration::from_millis(100), put).await.unwrap_err();
    fixture.pass_grace();
    fixture.collect().await;
    let folder = fixture.folder.as_ref().unwrap().path().join("blobs").join("uploads");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
}

/// Damage the file of a blob, which has `length` bytes.
fn damage(fixture: &Fixture, sha256: &str, how: impl FnOnce(&mut Vec<u8>)) {
    let folder = fixture.folder.as_ref().unwrap().path().join("blobs/sha256").join(&sha256[..2]);
    let mut bytes = std::fs::read(folder.join(sha256)).unwrap();
    how(&mut bytes);
    std::fs::write(folder.join(sha256), bytes).unwrap();
}

#[tokio::test]
async fn damage_is_an_error_that_names_the_blob_and_is_healed() {
    for length in [1_000, 3 << 20] {
        type How = fn(&mut Vec<u8>);
        let hows: [How; 4] = [
            |bytes| bytes[10] ^= 1,
            |bytes| *bytes.last_mut().unwrap() ^= 0x80,
            |bytes| bytes.truncate(7),
            |bytes| bytes.push(0),
        ];
        for how in hows {
            let fixture = Fixture::local();
            let bytes = noise(2, length);
            let sha256 = fixture.put(&bytes).await.sha256;
            damage(&fixture, &sha256, how);
            let mut received = 0;
            let error = match fixture.blobs.get(&sha256, None).await {
                Err(error) => error,
                Ok((_, mut stream)) => loop {
                    match stream.next().await {
                        Some(Ok(piece)) => received += piece.len(),
                        Some(Err(error)) => break error,
                        None => panic!("a damaged blob was read to its end"),
                    }
                },
            };
            assert_eq!(error.kind(), ErrorKind::Internal);
            assert!(error.message().contains(&sha256), "{error}");
            assert!(received < length, "all of a damaged blob was handed out");

            assert_eq!(fixture.put(&bytes).await.sha256, sha256);
            assert_eq!(fixture.blobs.get_bytes(&sha256, None).await.unwrap(), bytes);
        }
    }
}

#[tokio::test]
async fn storing_content_again_repairs_it_unread() {
    for length in [0, 1_000, 3 << 20] {
        type How = fn(&mut Vec<u8>);
        let hows: [How; 3] = [
            |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1),
            |bytes| bytes.truncate(bytes.len() / 2),
            |bytes| bytes.push(0),
        ];
        for how in hows {
            let fixture = Fixture::local();
            let bytes = noise(5, length);
            let sha256 = fixture.put(&bytes).await.sha256;
            damage(&fixture, &sha256, how);
            assert_eq!(fixture.put(&bytes).await.sha256, sha256);
            assert_eq!(fixture.blobs.get_bytes(&sha256, None).await.unwrap(), bytes);
            assert_eq!(fixture.objects().await.len(), 1);
        }
    }
}

#[tokio::test]
async fn a_damaged_blob_is_told_before_the_first_byte_the_second_time() {
    let fixture = Fixture::local();
    let bytes = noise(6, 3 << 20);
    let sha256 = fixture.put(&bytes).await.sha256;
    damage(&fixture, &sha256, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let error = fixture.blobs.get_bytes(&sha256, None).await.unwrap_err();
    assert_eq!(DamagedBlob::of(&error).unwrap().sha256, sha256);
    for range in [None, Some(0..10)] {
        let error = fixture.blobs.get(&sha256, range).await.err().expect("it was found before");
        assert_eq!(DamagedBlob::of(&error).unwrap().sha256, sha256);
    }
    damage(&fixture, &sha256, |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert_eq!(fixture.blobs.get_bytes(&sha256, None).await.unwrap(), bytes, "it was put back by hand");
}

#[tokio::test]
async fn a_walk_over_all_blobs_finds_damage() {
    let fixture = Fixture::local();
    let mut blobs = Vec::new();
    for seed in 0..5 {
        blobs.push(fixture.put(&noise(seed, 1_000)).await.sha256);
    }
    let whole = BlobsReport { blobs: 5, bytes: 5_000, ..BlobsReport::default() };
    assert_eq!(fixture.blobs.check(false).await.unwrap(), whole);
    assert_eq!(fixture.blobs.check(true).await.unwrap(), whole);
    damage(&fixture, &blobs[1], |bytes| bytes[0] ^= 1);
    damage(&fixture, &blobs[2], |bytes| bytes.push(0));
    let folder = fixture.folder.as_ref().unwrap().path().join("blobs/sha256").join(&blobs[3][..2]);
    std::fs::remove_file(folder.join(&blobs[3])).unwrap();
    for (deep, expect) in [(false, &blobs[2..4]), (true, &blobs[1..4])] {
        let report = fixture.blobs.check(deep).await.unwrap();
        let named: BTreeSet<_> = report.named.iter().map(|damage| damage.sha256.clone()).collect();
        assert_eq!(named, expect.iter().cloned().collect());
        assert_eq!(report.damaged, expect.len() as u64);
    }
}

#[tokio::test]
async fn missing_bytes_are_damage_and_an_unknown_blob_is_not() {
    let fixture = Fixture::local();
    let sha256 = fixture.put(b"gone").await.sha256;
    let folder = fixture.folder.as_ref().unwrap().path().join("blobs/sha256").join(&sha256[..2]);
    std::fs::remove_file(folder.join(&sha256)).unwrap();
    let error = fixture.blobs.get_bytes(&sha256, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().contains(&sha256), "{error}");
    fixture.put(b"gone").await;
    assert_eq!(fixture.blobs.get_bytes(&sha256, None).await.unwrap(), "gone");

    let unknown = "00".repeat(32);
    assert_eq!(fixture.blobs.get_bytes(&unknown, None).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fixture.blobs.stat(&unknown).unwrap(), None);
    for bad in ["../../../etc/passwd", "", "sha256/ab"] {
        assert_eq!(fixture.blobs.stat(bad).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn names_lead_to_blobs() {
    let fixture = Fixture::memory();
    let (one, two) = (fixture.put(b"1").await, fixture.put(b"2").await);
    fixture.link("a/b", &one.sha256).await.unwrap();
    assert_eq!(fixture.blobs.lookup(&owner(), "a/b").unwrap(), Some(one.clone()));
    assert_eq!(fixture.blobs.lookup(&owner(), "a").unwrap(), None);
    let readable = |info: &BlobInfo| fixture.blobs.readable_by(&owner(), &info.sha256).unwrap();
    assert!(readable(&one) && !readable(&two));
    assert!(!fixture.blobs.readable_by(&Space::plugin("other"), &one.sha256).unwrap());
    assert!(!fixture.blobs.readable_by(&Space::plugin("trackin"), &one.sha256).unwrap());

    fixture.link("a/b", &two.sha256).await.unwrap();
    assert!(!readable(&one) && readable(&two));
    fixture.unlink("a/b").await;
    assert!(!readable(&two));

    let unknown = "00".repeat(32);
    assert_eq!(fixture.link("n", &unknown).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fixture.link("../n", &one.sha256).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(fixture.blobs.lookup(&owner(), "a//b").unwrap_err().kind(), ErrorKind::Invalid);
}

/// A listing, written to be obviously right.
fn list_slowly(names: &BTreeSet<String>, prefix: &str, delimiter: Option<&str>) -> Vec<String> {
    let mut rows: Vec<String> = names
        .iter()
        .filter_map(|name| {
            let rest = name.strip_prefix(prefix)?;
            let folded = delimiter.and_then(|delimiter| rest.find(delimiter).map(|at| at + delimiter.len()));
            Some(folded.map_or(name.clone(), |end| name[..prefix.len() + end].to_owned()))
        })
        .collect();
    rows.dedup();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn listings_fold_and_page(
        names in prop::collection::btree_set("[abé]{1,2}(/[ab]{1,2}){0,3}", 1..80),
        prefix in prop_oneof![Just(String::new()), "[ab]{1,2}/?", Just("é".to_owned())],
        delimiter in prop_oneof![Just(None), Just(Some("/")), Just(Some("b")), Just(Some("é")), Just(Some("b/"))],
        limit in 1u32..7,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let fixture = Fixture::memory();
        let info = runtime.block_on(fixture.put(b"x"));
        let mut tx = fixture.store.begin(&fixture.store.view());
        names.iter().for_each(|name| link(&mut tx, &owner(), name, &info.sha256).unwrap());
        fixture.store.commit_blocking(tx).unwrap();

        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let page = fixture.blobs.names(&owner(), &prefix, delimiter, after.as_deref(), limit).unwrap();
            prop_assert!(page.entries.len() <= limit as usize);
            for entry in page.entries {
                if let ListingEntry::Name(_, found) = &entry {
                    prop_assert_eq!(found, &info);
                }
                rows.push(entry.text().to_owned());
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        prop_assert_eq!(rows, list_slowly(&names, &prefix, delimiter));
    }
}

#[tokio::test]
async fn folding_seeks_past_what_it_covers() {
    const FOLDERS: usize = 5;
    /// As many links as one transaction takes.
    const NAMES_EACH: usize = 2_500;
    let fixture = Fixture::memory();
    let info = fixture.put(b"x").await;
    for folder in 0..FOLDERS {
        let names = |tx: &mut crate::Transaction| {
            (0..NAMES_EACH).try_for_each(|n| link(tx, &owner(), &format!("run{folder}/{n:05}"), &info.sha256))
        };
        fixture.commit(names).await.unwrap();
    }
    let mut walk = fixture.blobs.walk(&owner(), "run", Some("/"));
    let listing = walk.list(None, 100).unwrap();
    assert_eq!(listing.entries.len(), FOLDERS);
    assert!(walk.names_read < 200, "{} of {} names were read", walk.names_read, FOLDERS * NAMES_EACH);
    let whole = fixture.blobs.names(&owner(), "run", None, None, LISTING_LIMIT_MAX).unwrap();
    assert_eq!((whole.entries.len(), whole.next.is_some()), (LISTING_LIMIT_MAX as usize, true));
}

#[test]
fn listings_have_limits() {
    let fixture = Fixture::memory();
    let check = |prefix: &str, delimiter: Option<&str>, after: Option<&str>, limit, expect: &str| {
        let error = fixture.blobs.names(&owner(), prefix, delimiter, after, limit).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains(expect), "{error}");
    };
    let long = "n".repeat(BLOB_NAME_BYTES_MAX + 1);
    check("", None, None, 0, "10000");
    check("", None, None, LISTING_LIMIT_MAX + 1, "10000");
    check("", Some(""), None, 1, "delimiter");
    check("", Some(&"/".repeat(65)), None, 1, "delimiter");
    check(&long, None, None, 1, "1024");
    check("", None, Some(&long), 1, "1024");
    let edge = "n".repeat(BLOB_NAME_BYTES_MAX);
    assert_eq!(fixture.blobs.names(&owner(), &edge, None, Some(&edge), 1).unwrap(), Listing::default());
}

#[tokio::test]
async fn garbage_goes_after_the_grace_time_and_nothing_else_does() {
    on_every_backend(|fixture| async move {
        let (kept, dropped) = (fixture.put(b"kept").await, fixture.put(b"dropped").await);
        fixture.link("kept", &kept.sha256).await.unwrap();
        fixture.link("dropped", &dropped.sha256).await.unwrap();
        fixture.link("dropped too", &dropped.sha256).await.unwrap();
        fixture.pass_grace();
        assert_eq!(fixture.collect().await, GarbageReport { examined: 2, ..GarbageReport::default() });

        fixture.unlink("dropped").await;
        // Naming something else counts as leaving, too.
        fixture.link("dropped too", &kept.sha256).await.unwrap();
        let marked = GarbageReport { examined: 2, marked: 1, ..GarbageReport::default() };
        assert_eq!(fixture.collect().await, marked);
        assert_eq!(fixture.collect().await, GarbageReport { examined: 2, ..GarbageReport::default() });

        // A link that came and went sets the time back.
        fixture.clock.advance_ms(GRACE_MS - 1);
        fixture.link("again", &dropped.sha256).await.unwrap();
        fixture.unlink("again").await;
        fixture.clock.advance_ms(2);
        assert_eq!(fixture.collect().await, marked);
        // So does storing it again.
        fixture.clock.advance_ms(GRACE_MS - 1);
        fixture.put(b"dropped").await;
        fixture.clock.advance_ms(2);
        assert_eq!(fixture.collect().await, marked);

        fixture.pass_grace();
        let removed = GarbageReport { examined: 2, removed: 1, removed_bytes: 7, ..GarbageReport::default() };
        assert_eq!(fixture.collect().await, removed);
        assert_eq!(fixture.blobs.stat(&dropped.sha256).unwrap(), None);
        assert_eq!(fixture.link("late", &dropped.sha256).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(fixture.objects().await.len(), 1);
        assert_eq!(fixture.blobs.get_bytes(&kept.sha256, None).await.unwrap(), "kept");
        assert_eq!(fixture.put(b"dropped").await, dropped);
        assert_eq!(fixture.blobs.get_bytes(&dropped.sha256, None).await.unwrap(), "dropped");
    })
    .await;
}

#[tokio::test]
async fn leftovers_of_crashes_are_swept() {
    let mut fixture = Fixture::local();
    let kept = fixture.put(b"kept").await;
    fixture.link("kept", &kept.sha256).await.unwrap();
    let root = fixture.folder.as_ref().unwrap().path().join("blobs");
    let write = |path: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"leftover").unwrap();
    };
    let orphan = "cd".repeat(32);
    let leftovers = || {
        write(&format!("sha256/cd/{orphan}"));
        write(&format!("sha256/cd/{orphan}#1"));
        write("uploads/abc");
        write("uploads/abc#1");
        write("parts/0123/00001-aa");
        write("parts/0123/00002-aa#7");
    };
    leftovers();
    write("sha256/README");
    // Nothing is old yet.
    let young = fixture.collect().await;
    assert_eq!((young.orphans, young.temporaries, young.foreign), (0, 0, 1));
    fixture.pass_grace();
    let old = fixture.collect().await;
    assert_eq!((old.orphans, old.temporaries, old.foreign), (1, 5, 1));
    let mut expect = ["sha256/README".to_owned(), blob_path_of(&kept)];
    expect.sort();
    assert_eq!(fixture.objects().await, expect);

    // What lies under `uploads` when nobody can be uploading goes at once.
    leftovers();
    fixture.reopen(fixture.backend.clone());
    assert!(!root.join("uploads/abc").exists() && !root.join("uploads/abc#1").exists());
    // Bytes without a record are no blob; storing them makes one.
    assert_eq!(fixture.blobs.stat(&orphan).unwrap(), None);
    assert_eq!(fixture.blobs.get_bytes(&kept.sha256, None).await.unwrap(), "kept");
}

#[tokio::test]
async fn a_file_without_a_record_is_not_trusted() {
    let fixture = Fixture::local();
    let bytes = b"the right bytes";
    let sha256 = fixture.put(bytes).await.sha256;
    // As after a collection that died between the record and the file, and a disk that rotted.
    fixture.commit(|tx| tx.delete(&keys::space(), &Digest::parse(&sha256)?.record_key())).await.unwrap();
    damage(&fixture, &sha256, |bytes| bytes[0] ^= 1);
    fixture.put(bytes).await;
    assert_eq!(fixture.blobs.get_bytes(&sha256, None).await.unwrap(), &bytes[..]);
}

#[tokio::test]
async fn uploads_in_parts_become_blobs() {
    on_every_backend(|fixture| async move {
        let blobs = &fixture.blobs;
        let (first, second) = (noise(1, 2 << 20), noise(2, 100_000));
        let upload = blobs.begin_multipart().await.unwrap();
        // Out of order, and one of them again with other bytes.
        let two = blobs.put_part(&upload, 2, in_chunks(&second, 9_000)).await.unwrap();
        let wrong = blobs.put_part(&upload, 1, in_chunks(b"wrong", 9)).await.unwrap();
        let one = blobs.put_part(&upload, 1, in_chunks(&first, 9_000)).await.unwrap();
        assert_ne!(wrong.tag, one.tag);
        let parts = |parts: &[&PartInfo]| parts.iter().map(|part| (part.number, part.tag.clone())).collect::<Vec<_>>();
        let refused = async |upload: &str, list: Vec<(u32, String)>, expect: &str| {
            let error = blobs.complete_multipart(upload, &list, PutOptions::default()).await.unwrap_err();
            assert!(error.message().contains(expect), "{error}");
        };
        refused(&upload, vec![], "at least one").await;
        refused(&upload, parts(&[&two, &one]), "ascending").await;
        refused(&upload, parts(&[&one, &one]), "ascending").await;
        refused(&upload, vec![(1, "00".repeat(16))], "was not received").await;
        refused(&upload, vec![(1, "../../x".into())], "not the tag").await;
        refused(&upload, vec![(0, one.tag.clone())], "no part 0").await;
        refused("../../../../etc", parts(&[&one]), "not an upload's id").await;
        refused(&"ab".repeat(16), parts(&[&one]), "no upload").await;

        let limit = PutOptions { limit_bytes: Some(10), ..PutOptions::default() };
        let error = blobs.complete_multipart(&upload, &parts(&[&one, &two]), limit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        let info = blobs.complete_multipart(&upload, &parts(&[&one, &two]), PutOptions::default()).await.unwrap();
        assert_eq!(blobs.get_bytes(&info.sha256, None).await.unwrap(), [&first[..], &second].concat());
        refused(&upload, parts(&[&one, &two]), "no upload").await;
        assert_eq!(fixture.objects().await.len(), 1);

        let abandoned = blobs.begin_multipart().await.unwrap();
        blobs.put_part(&abandoned, PARTS_MAX, in_chunks(b"x", 1)).await.unwrap();
        let error = blobs.put_part(&abandoned, PARTS_MAX + 1, in_chunks(b"x", 1)).await.unwrap_err();
        assert!(error.message().contains("1 to 10000"), "{error}");
        blobs.abort_multipart(&abandoned).await.unwrap();
        blobs.abort_multipart(&abandoned).await.unwrap();
        assert_eq!(fixture.objects().await.len(), 1);

        let forgotten = blobs.begin_multipart().await.unwrap();
        fixture.pass_grace();
        assert_eq!(fixture.collect().await.temporaries, 1);
        assert_eq!(blobs.put_part(&forgotten, 1, in_chunks(b"x", 1)).await.unwrap_err().kind(), ErrorKind::NotFound);
    })
    .await;
}

/// Writers that put and link, writers that unlink, and a collector without any grace, all over the same few blobs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn collecting_races_neither_puts_nor_links() {
    const WRITERS: u64 = 4;
    const ROUNDS_MIN: u64 = 60;
    /// They go on until the collector had this much to do, or nobody would have raced.
    const REMOVED_MIN: u64 = 50;
    const PATIENCE: Duration = Duration::from_secs(60);
    let folder = tempfile::tempdir().unwrap();
    let backends =
        [BlobBackend::Local { folder: folder.path().join("blobs") }, BlobBackend::Store(Arc::new(InMemory::new()))];
    for backend in backends {
        let mut fixture = Fixture::new(backend.clone(), None);
        let clock: Arc<dyn Clock> = fixture.clock.clone();
        fixture.blobs = Blobs::open(fixture.store.clone(), backend, clock, Duration::ZERO).unwrap();
        let fixture = Arc::new(fixture);
        let removed = Arc::new(AtomicU64::new(0));
        let started = std::time::Instant::now();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (fixture, removed) = (fixture.clone(), removed.clone());
                tokio::spawn(async move {
                    for round in 0.. {
                        if round >= ROUNDS_MIN && removed.load(Ordering::SeqCst) >= REMOVED_MIN {
                            break;
                        }
                        assert!(started.elapsed() < PATIENCE, "the collector never has anything to do");
                        let content = format!("content {}", (writer * 7 + round * 3) % 5);
                        let name = format!("{writer}");
                        // The collector may take the blob between the put and the link: then it is put again.
                        loop {
                            let info = fixture.put(content.as_bytes()).await;
                            match fixture.link(&name, &info.sha256).await {
                                Ok(()) => break,
                                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
                            }
                        }
                        let found = fixture.blobs.lookup(&owner(), &name).unwrap().expect("it was just linked");
                        assert_eq!(fixture.blobs.get_bytes(&found.sha256, None).await.unwrap(), content.as_bytes());
                        if round % 3 == 0 {
                            fixture.unlink(&name).await;
                        }
                    }
                })
            })
            .collect();
        let collector = {
            let fixture = fixture.clone();
            tokio::spawn(async move {
                while fixture.blobs.lookup(&owner(), "done").unwrap().is_none() {
                    removed.fetch_add(fixture.collect().await.removed, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            })
        };
        for writer in writers {
            writer.await.unwrap();
        }
        loop {
            let done = fixture.put(b"done").await;
            if fixture.link("done", &done.sha256).await.is_ok() {
                break;
            }
        }
        collector.await.unwrap();
        let linked = fixture.blobs.names(&owner(), "", None, None, 100).unwrap().entries;
        fixture.collect().await;
        fixture.collect().await;
        let distinct: BTreeSet<String> = linked
            .iter()
            .map(|entry| match entry {
                ListingEntry::Name(_, info) => info.sha256.clone(),
                ListingEntry::Prefix(prefix) => panic!("{prefix}"),
            })
            .collect();
        for sha256 in &distinct {
            fixture.blobs.get_bytes(sha256, None).await.unwrap();
        }
        assert_eq!(fixture.objects().await.len(), distinct.len());
    }
}

/// An object store that dies: after so many operations none works any more, and the last may have worked or not.
#[derive(Debug)]
struct Dying {
    inner: Arc<InMemory>,
    operations_left: Arc<AtomicI64>,
    /// Whether the operation at which it dies is still done.
    does_last: bool,
}

impl fmt::Display for Dying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dying")
    }
}

fn dead() -> object_store::Error {
    object_store::Error::Generic { store: "dying", source: "the process was killed".into() }
}

impl Dying {
    /// Do an operation while alive; at the moment of death it may be done, but nobody hears of it.
    async fn operate<T>(&self, operation: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
        match self.operations_left.fetch_sub(1, Ordering::SeqCst) {
            left if left > 1 => operation.await,
            1 if self.does_last => {
                let _ = operation.await;
                Err(dead())
            }
            _ => Err(dead()),
        }
    }
}

#[async_trait]
impl ObjectStore for Dying {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: object_store::PutOptions,
    ) -> object_store::Result<PutResult> {
        self.operate(self.inner.put_opts(path, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let upload = self.operate(self.inner.put_multipart_opts(path, options)).await?;
        let (operations_left, does_last) = (self.operations_left.clone(), self.does_last);
        Ok(Box::new(DyingUpload { upload, operations_left, does_last }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.operate(self.inner.get_opts(path, options)).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        match self.operations_left.fetch_sub(1, Ordering::SeqCst) {
            left if left > 1 => self.inner.delete_stream(paths),
            1 if self.does_last => self.inner.delete_stream(paths).map(|_| Err(dead())).boxed(),
            _ => stream::iter([Err(dead())]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match self.operations_left.fetch_sub(1, Ordering::SeqCst) {
            left if left > 1 => self.inner.list(prefix),
            _ => stream::iter([Err(dead())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.operate(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.operate(self.inner.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct DyingUpload {
    upload: Box<dyn MultipartUpload>,
    operations_left: Arc<AtomicI64>,
    does_last: bool,
}

#[async_trait]
impl MultipartUpload for DyingUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        if self.operations_left.fetch_sub(1, Ordering::SeqCst) > 1 {
            return self.upload.put_part(data);
        }
        Box::pin(async { Err(dead()) })
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        match self.operations_left.fetch_sub(1, Ordering::SeqCst) {
            left if left > 1 => self.upload.complete().await,
            1 if self.does_last => {
                let _ = self.upload.complete().await;
                Err(dead())
            }
            _ => Err(dead()),
        }
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        Err(dead())
    }
}

/// Everything that touches the backend, one step after the other; says what was acknowledged.
async fn live_a_life(fixture: &Fixture, acknowledged: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let large = noise(5, 20 << 20);
    for (name, bytes) in [("small", &b"small"[..]), ("large", &large)] {
        let info = fixture.blobs.put_bytes(Bytes::copy_from_slice(bytes)).await?;
        fixture.link(name, &info.sha256).await?;
        acknowledged.insert(name.to_owned(), bytes.to_vec());
    }
    let upload = fixture.blobs.begin_multipart().await?;
    let part = fixture.blobs.put_part(&upload, 1, in_chunks(b"in parts", 3)).await?;
    let info = fixture.blobs.complete_multipart(&upload, &[(1, part.tag)], PutOptions::default()).await?;
    fixture.link("parts", &info.sha256).await?;
    acknowledged.insert("parts".to_owned(), b"in parts".to_vec());
    fixture.unlink("small").await;
    acknowledged.remove("small");
    for _ in 0..2 {
        fixture.blobs.collect_garbage().await?;
        fixture.pass_grace();
    }
    fixture.blobs.put_bytes(Bytes::from_static(b"small")).await?;
    fixture.blobs.get_bytes(&info.sha256, None).await?;
    Ok(())
}

#[tokio::test]
async fn dying_at_any_operation_loses_nothing_and_leaves_nothing() {
    let mut deaths = 0;
    'lives: for operations in 1.. {
        for does_last in [false, true] {
            let inner = Arc::new(InMemory::new());
            let left = Arc::new(AtomicI64::new(operations));
            let dying = Dying { inner: inner.clone(), operations_left: left, does_last };
            let mut fixture = Fixture::new(BlobBackend::Store(Arc::new(dying)), None);
            let mut acknowledged = BTreeMap::new();
            let survived = live_a_life(&fixture, &mut acknowledged).await;

            fixture.reopen(BlobBackend::Store(inner));
            for (name, bytes) in &acknowledged {
                let info = fixture.blobs.lookup(&owner(), name).unwrap().expect("it was acknowledged");
                assert_eq!(fixture.blobs.get_bytes(&info.sha256, None).await.unwrap(), bytes, "{name}");
            }
            fixture.pass_grace();
            fixture.collect().await;
            fixture.pass_grace();
            fixture.collect().await;
            let mut linked = BTreeSet::new();
            for entry in fixture.blobs.names(&owner(), "", None, None, 100).unwrap().entries {
                let info = fixture.blobs.lookup(&owner(), entry.text()).unwrap().unwrap();
                fixture.blobs.get_bytes(&info.sha256, None).await.unwrap();
                linked.insert(blob_path_of(&info));
            }
            assert_eq!(fixture.objects().await, linked.into_iter().collect::<Vec<_>>(), "after {operations}");
            match survived {
                Ok(()) => break 'lives,
                Err(error) => assert!(error.message().contains("killed"), "{error}"),
            }
            deaths += 1;
        }
    }
    assert!(deaths > 40, "only {deaths} deaths: the life is too short to test anything");
}

fn blob_path_of(info: &BlobInfo) -> String {
    format!("sha256/{}/{}", &info.sha256[..2], info.sha256)
}
