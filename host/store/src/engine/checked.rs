//! Checksums over whatever engine lies below, and a wall around its panics.
//!
//! Owns the form in which values lie in an engine: the value, then the CRC32 of key and value. It is checked on every read,
//! so a bit that rotted is an error that names the key, never a wrong value; and it is one place for all engines, because
//! not all of them check what they read. The progress mark is kept a second time in this form, with the form's number: a
//! folder of an older form is refused, and a damaged mark is noticed.
//!
//! Bounded by one copy of each value that is written. An engine that panics on a damaged file is not asked again: every
//! later call gets the same error, because nobody knows what state it is in. What a checksum of one entry cannot show, an
//! entry that is gone, [`Ordered::verify`] of the engine looks for.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use mainstay_base::{Error, Result};

use super::{APPLIED_KEY, Ordered, Span, Visit, Write};
use crate::damage::DamagedIndex;
use crate::space::{show_key, space_name};

/// Where the number of this form and the progress lie; before every space and every row.
const MARK_KEY: &[u8] = b"\0mark";
/// The number of this form. The first one had neither mark nor checksums.
const FORM: u8 = 2;
const CRC_BYTES: usize = 4;
/// Everything that may lie in an engine.
const EVERYTHING: Span<'static> = Span { start: b"", end: &[0xff] };
const REMEDY: &str =
    "restore the data folder from a backup; `mainstay doctor` reads everything and counts what is damaged";

/// An engine whose values are checked.
pub(crate) struct Checked {
    /// None only while it is dropped.
    engine: Option<Arc<dyn Ordered>>,
    /// The error of everything from now on, once the engine cannot be trusted any more.
    broken: OnceLock<Error>,
    /// How far this process knows the engine to be.
    applied: AtomicU64,
}

impl Checked {
    /// Open an engine and see that it is of this form, or empty.
    pub fn open(open: impl FnOnce() -> Result<Arc<dyn Ordered>>) -> Result<Checked> {
        let engine = catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|panic| Err(panicked(&*panic)))?;
        let checked = Checked { engine: Some(engine), broken: OnceLock::new(), applied: AtomicU64::new(0) };
        checked.applied.store(checked.read_mark()?, Ordering::Release);
        Ok(checked)
    }

    fn call<T>(&self, run: impl FnOnce(&dyn Ordered) -> Result<T>) -> Result<T> {
        if let Some(error) = self.broken.get() {
            return Err(error.clone());
        }
        let engine = self.engine.as_ref().ok_or_else(|| Error::unavailable("the ordered index is closed"))?;
        catch_unwind(AssertUnwindSafe(|| run(&**engine))).unwrap_or_else(|panic| Err(self.give_up(panicked(&*panic))))
    }

    fn give_up(&self, error: Error) -> Error {
        self.broken.get_or_init(|| error).clone()
    }

    fn read_mark(&self) -> Result<u64> {
        let applied = self.call(|engine| engine.applied())?;
        let Some(mark) = self.get(MARK_KEY)? else {
            let mut is_empty = applied == 0;
            self.call(|engine| {
                engine.scan(EVERYTHING, false, true, &mut |_, _| {
                    is_empty = false;
                    false
                })
            })?;
            return if is_empty { Ok(0) } else { Err(other_form("an older")) };
        };
        match mark.split_first() {
            Some((&FORM, progress)) if progress == applied.to_le_bytes() => Ok(applied),
            Some((&FORM, _)) => Err(Error::internal(format!(
                "the ordered index is damaged: it records its progress twice, and differently; {REMEDY}"
            ))
            .with_source(DamagedIndex { space: "?".into() })),
            _ => Err(other_form("another")),
        }
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        let engine = self.engine.take();
        if catch_unwind(AssertUnwindSafe(|| drop(engine))).is_err() {
            tracing::error!(
                "the ordered index panicked while it was closed; the log has everything that was acknowledged"
            );
        }
    }
}

impl Ordered for Checked {
    fn applied(&self) -> Result<u64> {
        Ok(self.applied.load(Ordering::Acquire))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let Some(stored) = self.call(|engine| engine.get(key))? else { return Ok(None) };
        match unseal(key, &stored) {
            Some(value) => Ok(Some(stored.slice(..value.len()))),
            None => Err(damaged(key)),
        }
    }

    /// Values are read even when only keys are asked for: the checksum is what says that the key is right.
    fn scan(&self, span: Span<'_>, reverse: bool, keys_only: bool, visit: &mut Visit<'_>) -> Result<()> {
        let mut found = Ok(());
        self.call(|engine| {
            engine.scan(span, reverse, false, &mut |key, stored| match unseal(key, stored) {
                Some(value) => visit(key, if keys_only { &[] } else { value }),
                None => {
                    found = Err(damaged(key));
                    false
                }
            })
        })?;
        found
    }

    fn write_batch(&self, applied: u64, writes: &[Write]) -> Result<()> {
        let mut sealed = Vec::with_capacity(writes.len() + 1);
        for Write { key, value } in writes {
            sealed.push(Write { key: key.clone(), value: value.as_ref().map(|value| seal(key, value)) });
        }
        let mark = [&[FORM][..], &applied.to_le_bytes()].concat();
        sealed.push(Write { key: Bytes::from_static(MARK_KEY), value: Some(seal(MARK_KEY, &mark)) });
        self.call(|engine| engine.write_batch(applied, &sealed))?;
        self.applied.store(applied, Ordering::Release);
        Ok(())
    }

    fn checkpoint(&self) -> Result<u64> {
        let durable = self.call(|engine| engine.checkpoint())?;
        if durable > self.applied.load(Ordering::Acquire) {
            // The log would be cut above what the engine has.
            return Err(Error::internal(format!(
                "the ordered index is damaged: it claims commits up to {durable} that it was never given; {REMEDY}"
            )));
        }
        Ok(durable)
    }

    fn verify(&self) -> Result<u64> {
        self.call(|engine| engine.verify()).map_err(|error| {
            self.give_up(error.context(
                "the ordered index did not pass its own check; restore the data folder from a backup. The cause",
            ))
        })?;
        let (mut entries, mut wrong, mut first) = (0_u64, 0_u64, None);
        let mut before: Option<Vec<u8>> = None;
        self.call(|engine| {
            engine.scan(EVERYTHING, false, false, &mut |key, stored| {
                entries += 1;
                let is_ordered = before.as_deref().is_none_or(|before| before < key);
                if key != APPLIED_KEY && (!is_ordered || unseal(key, stored).is_none()) {
                    wrong += 1;
                    first.get_or_insert_with(|| damaged(key));
                }
                before = Some(key.to_vec());
                true
            })
        })?;
        match first {
            Some(error) => Err(error.context(format!("{wrong} of {entries} values are damaged; the first"))),
            None => Ok(entries),
        }
    }
}

fn crc(key: &[u8], value: &[u8]) -> [u8; CRC_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    // So that no byte moves between key and value.
    hasher.update(&(key.len() as u32).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

fn seal(key: &[u8], value: &[u8]) -> Bytes {
    let mut sealed = Vec::with_capacity(value.len() + CRC_BYTES);
    sealed.extend_from_slice(value);
    sealed.extend_from_slice(&crc(key, value));
    sealed.into()
}

fn unseal<'a>(key: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    let (value, found) = stored.split_last_chunk::<CRC_BYTES>()?;
    (crc(key, value) == *found).then_some(value)
}

fn damaged(key: &[u8]) -> Error {
    let shown = show_key(key);
    Error::internal(format!("the ordered index is damaged: {shown} does not match its checksum; {REMEDY}"))
        .with_source(DamagedIndex { space: space_name(key).to_owned() })
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let words = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let words = words.unwrap_or("it did not say why");
    Error::internal(format!("the ordered index is damaged: its engine panicked ({words}); {REMEDY}"))
        .with_source(DamagedIndex { space: "?".into() })
}

fn other_form(which: &str) -> Error {
    Error::invalid(format!(
        "the ordered index was written by {which} version of Mainstay, in a form that this one does not read (it reads form \
         {FORM}, whose values have checksums); start with that version, or name an empty data folder"
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mainstay_base::{Disk, ErrorKind, SimDisk};

    use super::*;
    use crate::engine::{MemoryEngine, RedbEngine, SledEngine};
    use crate::space::Space;

    fn key(number: u32) -> Bytes {
        Space::plugin("tracking").key(&number.to_be_bytes())
    }

    fn write(number: u32, value: &[u8]) -> Write {
        Write { key: key(number), value: Some(Bytes::copy_from_slice(value)) }
    }

    /// On every engine: values under the keys 0 to 9, and the engine below.
    fn on_every_engine(test: impl Fn(Checked, Arc<dyn Ordered>)) {
        let folder = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        disk.create_folder(Path::new("data")).unwrap();
        let engines: [Arc<dyn Ordered>; 3] = [
            Arc::new(MemoryEngine::default()),
            Arc::new(SledEngine::open(folder.path()).unwrap()),
            Arc::new(RedbEngine::open(disk, Path::new("data/redb")).unwrap()),
        ];
        for engine in engines {
            let checked = Checked::open(|| Ok(engine.clone())).unwrap();
            let writes: Vec<Write> = (0..10).map(|number| write(number, b"right")).collect();
            checked.write_batch(7, &writes).unwrap();
            test(checked, engine);
        }
    }

    fn entries(checked: &Checked, keys_only: bool) -> Result<usize> {
        let mut count = 0;
        checked.scan(Span { start: &key(0), end: &key(10) }, false, keys_only, &mut |_, value| {
            assert!(if keys_only { value.is_empty() } else { value == b"right" });
            count += 1;
            true
        })?;
        Ok(count)
    }

    fn is_named(error: &Error) {
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(DamagedIndex::of(error).map(|damage| damage.space.as_str()), Some("tracking"), "{error}");
        assert!(error.message().contains("of `tracking`") && error.message().contains("backup"), "{error}");
    }

    #[test]
    fn what_rotted_is_an_error_and_the_rest_is_read() {
        on_every_engine(|checked, engine| {
            // The values and one mark or two.
            assert!((11..=12).contains(&checked.verify().unwrap()));
            assert_eq!(entries(&checked, false).unwrap(), 10);
            for bit in 0..9 * 8 {
                let mut stored = engine.get(&key(3)).unwrap().unwrap().to_vec();
                stored[bit / 8] ^= 1 << (bit % 8);
                let whole = write(3, b"right");
                engine.write_batch(7, &[write(3, &stored)]).unwrap();
                is_named(&checked.get(&key(3)).unwrap_err());
                is_named(&entries(&checked, false).unwrap_err());
                is_named(&entries(&checked, true).unwrap_err());
                is_named(&checked.verify().unwrap_err());
                assert_eq!(checked.get(&key(4)).unwrap().as_deref(), Some(&b"right"[..]));
                checked.write_batch(7, &[whole]).unwrap();
            }
            assert_eq!(entries(&checked, true).unwrap(), 10);
        });
    }

    #[test]
    fn a_value_under_another_key_is_damage() {
        on_every_engine(|checked, engine| {
            let moved = engine.get(&key(1)).unwrap();
            engine.write_batch(7, &[Write { key: key(2), value: moved }]).unwrap();
            is_named(&checked.get(&key(2)).unwrap_err());
        });
    }

    #[test]
    fn another_form_and_a_damaged_mark_are_refused() {
        on_every_engine(|checked, engine| {
            let open = || Checked::open(|| Ok(engine.clone())).map(|checked| checked.applied().unwrap());
            assert_eq!(open().unwrap(), 7);
            // The engine's own mark, not ours.
            engine.write_batch(6, &[]).unwrap();
            assert_eq!(open().unwrap_err().kind(), ErrorKind::Internal);
            checked.write_batch(8, &[]).unwrap();
            assert_eq!(open().unwrap(), 8);
            engine.write_batch(8, &[Write { key: Bytes::from_static(MARK_KEY), value: None }]).unwrap();
            let error = open().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains("an older version"), "{error}");
        });
    }

    struct Panics;

    impl Ordered for Panics {
        fn applied(&self) -> Result<u64> {
            Ok(0)
        }
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
            assert!(key.starts_with(b"\0"), "page out of range");
            Ok(None)
        }
        fn scan(&self, _: Span<'_>, _: bool, _: bool, _: &mut Visit<'_>) -> Result<()> {
            Ok(())
        }
        fn write_batch(&self, _: u64, _: &[Write]) -> Result<()> {
            Ok(())
        }
        fn checkpoint(&self) -> Result<u64> {
            Ok(0)
        }
    }

    #[test]
    fn a_panic_is_an_error_and_ends_the_engine() {
        let checked = Checked::open(|| Ok(Arc::new(Panics))).unwrap();
        let error = checked.get(b"k").unwrap_err();
        assert!(error.message().contains("page out of range") && error.message().contains("backup"), "{error}");
        assert_eq!(checked.write_batch(1, &[]).unwrap_err().message(), error.message());
        let error = Checked::open(|| panic!("bad header")).err().unwrap();
        assert!(error.message().contains("bad header"), "{error}");
    }
}
