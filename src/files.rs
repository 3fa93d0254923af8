//! Reading and writing files whole: the only places of the crate that do it, save for what flows.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The bytes of a file.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io), naming the file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|source| Error::io(format!("cannot read {}", path.display()), source))
}

/// Makes a folder and those above it; it may be there already.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io), naming the folder.
pub fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)
        .map_err(|source| Error::io(format!("cannot make the folder {}", path.display()), source))
}

/// Writes a file as a whole or not at all, as [`PendingFile`] does.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io), naming the file.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = PendingFile::create(path)?;
    file.write_all(bytes).map_err(|source| cannot_write(path, source))?;
    file.finish()
}

/// A file that lies under another name until it is complete and on the disk, and is then renamed:
/// after a crash or on a full disk the old file is still there. Dropped before that it leaves
/// nothing.
pub struct PendingFile {
    path: PathBuf,
    partial: PathBuf,
    /// `None` once renamed.
    out: Option<BufWriter<File>>,
}

impl PendingFile {
    /// Begins a file that will be `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io), naming the file.
    pub fn create(path: &Path) -> Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|source| cannot_write(path, source))?;
        Ok(PendingFile { path: path.to_owned(), partial, out: Some(BufWriter::new(file)) })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io), naming the file.
    pub fn finish(mut self) -> Result<()> {
        let rename = |out: &mut BufWriter<File>| -> io::Result<()> {
            out.flush()?;
            out.get_ref().sync_all()?;
            std::fs::rename(&self.partial, &self.path)
        };
        if let Some(out) = &mut self.out {
            rename(out).map_err(|source| cannot_write(&self.path, source))?;
            self.out = None;
        }
        // The name itself must outlast a crash as well, where folders can be flushed.
        if let Some(Ok(folder)) = self.path.parent().map(File::open) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    fn out(&mut self) -> &mut BufWriter<File> {
        self.out.as_mut().expect("it is there until `finish`, which consumes the file")
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out().flush()
    }
}

impl Seek for PendingFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.out().seek(to)
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if let Some(out) = self.out.take() {
            // Half a file is of no use to anyone, least of all on a full disk.
            drop(out.into_parts());
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

fn cannot_write(path: &Path, source: io::Error) -> Error {
    Error::io(format!("cannot write {}", path.display()), source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_atomically(&path, b"old").unwrap();
        let mut pending = PendingFile::create(&path).unwrap();
        pending.write_all(b"half of the new").unwrap();
        assert_eq!(read(&path).unwrap(), b"old");
        drop(pending);
        assert_eq!(names(folder.path()), ["a.bin"]);
        assert_eq!(read(&path).unwrap(), b"old");
        write_atomically(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[test]
    fn what_cannot_be_renamed_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        std::fs::create_dir_all(path.join("by a folder")).unwrap();
        let error = write_atomically(&path, b"x").unwrap_err();
        assert!(error.code() == "io" && error.to_string().contains("taken"), "{error}");
        assert_eq!(names(folder.path()), ["taken"]);
        assert_eq!(read(&folder.path().join("no")).unwrap_err().code(), "io");
    }
}
