//! Reading and writing files whole: the only places of the crate that do it, save for what flows.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// The bytes of a file.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io), naming the file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|source| Error::io(format!("cannot read {}", path.display()), source))
}

/// Makes a folder and those above it; it may be there already.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io), naming the folder.
#[cfg(feature = "train")]
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)
        .map_err(|source| Error::io(format!("cannot make the folder {}", path.display()), source))
}

/// Writes `bytes` under another name, flushes them to the disk and renames: after a crash or on a
/// full disk the old file is still there.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io), naming the file.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    write().map_err(|source| {
        // Half a file is of no use to anyone, least of all on a full disk.
        let _ = std::fs::remove_file(&partial);
        Error::io(format!("cannot write {}", path.display()), source)
    })
}
