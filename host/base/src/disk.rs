//! Files behind a trait, so that what must survive power loss can be tested on a disk that tears.
//!
//! The trait has just what the commit log and the blob store need: positional reads and writes, explicit syncs of files and
//! of folders, and renames. Nothing is durable before its file was synced, and no name is durable before its folder was.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A place with files.
pub trait Disk: Send + Sync + 'static {
    /// Create a file that must not exist yet.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Open an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Names in a folder, sorted.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Rename, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Remove a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Create a folder and those above it.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Make the folder's names durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Take the file for this process alone, creating it if need be, until the lock is dropped or the process ends.
    /// `WouldBlock` when another has it. A disk that only one process can see need not do anything.
    fn lock(&self, _path: &Path) -> io::Result<DiskLock> {
        Ok(DiskLock::none())
    }
}

/// A file held for this process alone; see [`Disk::lock`].
#[derive(Debug)]
pub struct DiskLock {
    file: Option<fs::File>,
}

impl DiskLock {
    /// Hold this file, or say `WouldBlock`.
    pub(crate) fn take(file: fs::File) -> io::Result<DiskLock> {
        file.try_lock()?;
        Ok(DiskLock { file: Some(file) })
    }

    /// Hold this file together with others that look, or say `WouldBlock`.
    pub(crate) fn share(file: fs::File) -> io::Result<DiskLock> {
        file.try_lock_shared()?;
        Ok(DiskLock { file: Some(file) })
    }

    /// Nothing needs holding.
    pub(crate) fn none() -> DiskLock {
        DiskLock { file: None }
    }
}

impl Drop for DiskLock {
    /// Closing would not do: a child process that is just being started holds the open file too, until it executes.
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = file.unlock();
        }
    }
}

/// An open file.
pub trait DiskFile: Send + Sync + 'static {
    /// Read up to the buffer's length; fewer bytes mean the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Write all bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Make the file's bytes and length durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Cut or extend with zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(fs::File::options().read(true).write(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(fs::File::options().read(true).write(true).open(path)?))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        DiskLock::take(fs::File::options().read(true).write(true).create(true).truncate(false).open(path)?)
    }
}

/// Read up to the buffer's length; fewer bytes mean the end of the file.
pub(crate) fn read_fully(file: &fs::File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match FileExt::read_at(file, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl DiskFile for fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_fully(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_once_dropped_whoever_else_has_the_file_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = RealDisk.lock(&path).unwrap();
        assert_eq!(RealDisk.lock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let _as_a_forked_child_has_it = lock.file.as_ref().unwrap().try_clone().unwrap();
        drop(lock);
        RealDisk.lock(&path).unwrap();
    }
}
