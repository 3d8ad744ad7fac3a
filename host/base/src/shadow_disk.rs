//! The machine's files, as if they could be changed: reads come from the disk, what is written stays in memory.
//!
//! Owns the copy on write. Separate because whoever only looks at a folder (a check, a survey) must open it exactly as its
//! owner would, repairs included, and yet leave every byte and every name as it was. A file is opened for reading only; the
//! pages that are written, names that appear and names that go are kept here and vanish with the last handle.
//!
//! Bounded by `bytes_max` of written pages. On failure: what does not fit is an error of the kind `StorageFull`, and nothing
//! on the disk has changed. Syncs do nothing: there is nothing that a crash could keep.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::read_fully;
use crate::{Disk, DiskFile, DiskLock};

/// What is copied when one of its bytes is written.
const PAGE_BYTES: usize = 4096;

/// See the module. Clones see the same changes.
#[derive(Clone)]
pub struct ShadowDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    /// What differs from the disk: a file that was opened or made, a folder that was made, or a name that is gone.
    names: BTreeMap<PathBuf, Node>,
    room: Arc<Mutex<u64>>,
}

#[derive(Clone)]
enum Node {
    File(Arc<Mutex<Shadow>>),
    Folder,
    Gone,
}

/// A file: what lies below, and what was written over it.
struct Shadow {
    below: Option<fs::File>,
    /// Up to where the file below still shows through.
    below_bytes: u64,
    length: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE_BYTES]>>,
    /// How much may still be written, over all files.
    room: Arc<Mutex<u64>>,
}

struct Handle(Arc<Mutex<Shadow>>);

impl ShadowDisk {
    /// Over the real disk; at most about `bytes_max` may be written.
    pub fn new(bytes_max: u64) -> ShadowDisk {
        let state = State { names: BTreeMap::new(), room: Arc::new(Mutex::new(bytes_max)) };
        ShadowDisk { state: Arc::new(Mutex::new(state)) }
    }
}

impl State {
    fn file(&mut self, path: &Path) -> io::Result<Arc<Mutex<Shadow>>> {
        match self.names.get(path) {
            Some(Node::File(shadow)) => return Ok(shadow.clone()),
            Some(Node::Folder) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Node::Gone) => return Err(io::ErrorKind::NotFound.into()),
            None => {}
        }
        let below = fs::File::open(path)?;
        if below.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let length = below.metadata()?.len();
        Ok(self.keep(path, Shadow::new(Some(below), length, self.room.clone())))
    }

    fn keep(&mut self, path: &Path, shadow: Shadow) -> Arc<Mutex<Shadow>> {
        let shadow = Arc::new(Mutex::new(shadow));
        self.names.insert(path.to_owned(), Node::File(shadow.clone()));
        shadow
    }

    fn is_there(&self, path: &Path) -> bool {
        match self.names.get(path) {
            Some(Node::Gone) => false,
            Some(_) => true,
            None => path.exists(),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = match (self.names.get(folder), fs::read_dir(folder)) {
            (Some(Node::Gone), _) => return Err(io::ErrorKind::NotFound.into()),
            (Some(Node::Folder), Err(_)) => Vec::new(),
            (_, entries) => entries?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?,
        };
        names.retain(|path| !self.names.contains_key(path));
        let changed =
            self.names.iter().filter(|(path, node)| path.parent() == Some(folder) && !matches!(node, Node::Gone));
        names.extend(changed.map(|(path, _)| path.clone()));
        names.sort();
        Ok(names)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let is_folder = match self.names.get(from) {
            Some(node) => matches!(node, Node::Folder),
            None => from.is_dir(),
        };
        if !is_folder {
            let shadow = self.file(from)?;
            self.names.insert(to.to_owned(), Node::File(shadow));
            self.names.insert(from.to_owned(), Node::Gone);
            return Ok(());
        }
        let inside = self.list(from)?;
        self.names.insert(to.to_owned(), Node::Folder);
        for path in inside {
            let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
            self.rename(&path, &to.join(name))?;
        }
        self.names.insert(from.to_owned(), Node::Gone);
        Ok(())
    }
}

impl Disk for ShadowDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        if state.is_there(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|parent| state.is_there(parent)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let shadow = Shadow::new(None, 0, state.room.clone());
        Ok(Box::new(Handle(state.keep(path, shadow))))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Handle(self.state.lock().file(path)?)))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.state.lock().list(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.lock().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.is_there(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.names.insert(path.to_owned(), Node::Gone);
        Ok(())
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        for folder in path.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
            if !state.is_there(folder) {
                state.names.insert(folder.to_owned(), Node::Folder);
            }
        }
        Ok(())
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Shared with others that look, and exclusive of whoever may change things. A lock file that is not there is not made:
    /// then nobody has it.
    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        match fs::File::open(path) {
            Ok(file) => DiskLock::share(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(DiskLock::none()),
            Err(error) => Err(error),
        }
    }
}

impl Shadow {
    fn new(below: Option<fs::File>, length: u64, room: Arc<Mutex<u64>>) -> Shadow {
        Shadow { below, below_bytes: length, length, pages: BTreeMap::new(), room }
    }

    /// What lies below, without what was written; zeros where nothing does.
    fn read_below(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let shown = (self.below_bytes.saturating_sub(offset)).min(buffer.len() as u64) as usize;
        let filled = match &self.below {
            Some(file) => read_fully(file, &mut buffer[..shown], offset)?,
            None => 0,
        };
        buffer[filled..].fill(0);
        Ok(())
    }

    /// The page of this number, for writing.
    fn page(&mut self, number: u64) -> io::Result<&mut [u8; PAGE_BYTES]> {
        if !self.pages.contains_key(&number) {
            let mut room = self.room.lock();
            *room = room.checked_sub(PAGE_BYTES as u64).ok_or_else(|| {
                io::Error::new(io::ErrorKind::StorageFull, "looking at it would change more than fits into memory")
            })?;
            drop(room);
            let mut page = Box::new([0; PAGE_BYTES]);
            self.read_below(&mut page[..], number * PAGE_BYTES as u64)?;
            self.pages.insert(number, page);
        }
        Ok(self.pages.get_mut(&number).expect("it is there or was just made"))
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        if length < self.length {
            self.below_bytes = self.below_bytes.min(length);
            let (number, start) = (length / PAGE_BYTES as u64, (length % PAGE_BYTES as u64) as usize);
            let beyond = if start == 0 { number } else { number + 1 };
            self.pages.split_off(&beyond);
            if let Some(page) = self.pages.get_mut(&number) {
                page[start..].fill(0);
            }
        }
        self.length = length;
        Ok(())
    }
}

/// The pages that a range touches: number, first byte inside the page, first byte inside the range, how many.
fn pieces(offset: u64, count: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let (number, start) = (at / PAGE_BYTES as u64, (at % PAGE_BYTES as u64) as usize);
        let piece = (count - done).min(PAGE_BYTES - start);
        let answer = (number, start, done, piece);
        done += piece;
        (piece > 0).then_some(answer)
    })
}

impl DiskFile for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let shadow = self.0.lock();
        let count = shadow.length.saturating_sub(offset).min(buffer.len() as u64) as usize;
        shadow.read_below(&mut buffer[..count], offset)?;
        if !shadow.pages.is_empty() {
            for (number, start, at, piece) in pieces(offset, count) {
                if let Some(page) = shadow.pages.get(&number) {
                    buffer[at..at + piece].copy_from_slice(&page[start..start + piece]);
                }
            }
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut shadow = self.0.lock();
        for (number, start, at, piece) in pieces(offset, bytes.len()) {
            shadow.page(number)?[start..start + piece].copy_from_slice(&bytes[at..at + piece]);
        }
        shadow.length = shadow.length.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().length)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.lock().set_length(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::RealDisk;

    const SPAN_BYTES: u64 = 3 * PAGE_BYTES as u64;

    #[derive(Clone, Debug)]
    enum Change {
        Write(u64, Vec<u8>),
        Length(u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        let bytes = proptest::collection::vec(any::<u8>(), 1..6_000);
        prop_oneof![
            (0..SPAN_BYTES, bytes).prop_map(|(offset, bytes)| Change::Write(offset, bytes)),
            (0..2 * SPAN_BYTES).prop_map(Change::Length),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The same changes on a real file and on the shadow of another with the same bytes: the same bytes come back, and
        /// the file below is as it was.
        #[test]
        fn a_shadow_reads_as_the_file_would(
            start in proptest::collection::vec(any::<u8>(), 0..10_000),
            changes in proptest::collection::vec(change(), 0..8),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (real, below) = (folder.path().join("real"), folder.path().join("below"));
            fs::write(&real, &start).unwrap();
            fs::write(&below, &start).unwrap();
            let disk = ShadowDisk::new(1 << 20);
            let files = [RealDisk.open(&real).unwrap(), disk.open(&below).unwrap()];
            for change in &changes {
                for file in &files {
                    match change {
                        Change::Write(offset, bytes) => file.write_at(bytes, *offset).unwrap(),
                        Change::Length(length) => file.set_length(*length).unwrap(),
                    }
                }
                let read = files.each_ref().map(|file| {
                    let mut bytes = vec![1; 4 * SPAN_BYTES as usize];
                    let count = file.read_at(&mut bytes, 0).unwrap();
                    bytes.truncate(count);
                    (bytes, file.length().unwrap())
                });
                prop_assert!(read[0] == read[1], "{change:?}");
            }
            prop_assert_eq!(fs::read(&below).unwrap(), start);
        }
    }

    #[test]
    fn names_come_and_go_in_memory_only() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("log")).unwrap();
        fs::write(path("log/a"), "a").unwrap();
        fs::write(path("b"), "b").unwrap();
        let disk = ShadowDisk::new(1 << 20);
        let names = |folder: &str| -> Vec<String> {
            let listed = disk.list(&path(folder)).unwrap();
            listed.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(disk.create(&path("b")).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.create(&path("no/b")).err().unwrap().kind(), io::ErrorKind::NotFound);
        disk.create_folder(&path("new/deep")).unwrap();
        disk.create(&path("new/deep/c")).unwrap().write_at(b"c", 0).unwrap();
        assert_eq!((names("new"), names("new/deep")), (vec!["deep".to_owned()], vec!["c".to_owned()]));
        disk.rename(&path("log"), &path("old")).unwrap();
        assert_eq!(disk.list(&path("log")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(names("old"), ["a"]);
        let mut read = [0];
        assert_eq!(disk.open(&path("old/a")).unwrap().read_at(&mut read, 0).unwrap(), 1);
        disk.remove(&path("b")).unwrap();
        assert_eq!(disk.remove(&path("b")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(names(""), ["new", "old"]);
        drop(disk.lock(&path("lock")).unwrap());
        let mut there: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        there.sort();
        assert_eq!(there, ["b", "log"]);
    }

    #[test]
    fn what_is_written_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        let disk = ShadowDisk::new(2 * PAGE_BYTES as u64);
        let file = disk.create(&root.path().join("a")).unwrap();
        file.write_at(&[1; 2 * PAGE_BYTES], 0).unwrap();
        assert_eq!(file.write_at(&[1], 2 * PAGE_BYTES as u64).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
