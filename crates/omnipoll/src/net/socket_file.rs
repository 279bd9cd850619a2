//! The files of unix sockets: how one is bound, found to be stale, and removed.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Type};

use crate::error::{fail, Describe};
use crate::sys::socket;

/// Removes a socket file that a dead server left. Whether the path is free now. The directory is
/// locked.
pub(super) fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<bool> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(true) };
    if !found.file_type().is_socket() {
        return Ok(false);
    }
    let probe = socket::open(Domain::UNIX, Type::STREAM)?;
    match probe.connect(address) {
        Err(error) if is(&error, libc::ECONNREFUSED) => {
            let is_same = |now: fs::Metadata| identity(&now) == identity(&found);
            if fs::symlink_metadata(path).is_ok_and(is_same) {
                fs::remove_file(path).describe("the file of a server that has ended can't be removed")?;
            }
            Ok(true)
        }
        Err(error) if is(&error, libc::ENOENT) => Ok(true),
        _ => Ok(false),
    }
}

/// Lets one server at a time bind a socket in a directory: flock(2) on the directory itself, which
/// leaves no file behind.
pub(super) struct DirectoryLock(Option<fs::File>);

impl DirectoryLock {
    /// Of the directory of `path`. It is not held where the directory can't be opened or locked: not
    /// readable, or on a file system that has no such lock.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let Ok(directory) = fs::File::open(directory) else { return Ok(Self(None)) };
        // Any process that can read a directory can lock it, and must not be able to hang a server.
        for _ in 0..1000 {
            match socket::lock_file(directory.as_fd()) {
                Ok(()) => return Ok(Self(Some(directory))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(2))
                }
                Err(_) => return Ok(Self(None)),
            }
        }
        Err(fail(libc::EADDRINUSE, "another program holds the lock of the directory"))
    }

    pub(super) fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        if let Some(directory) = &self.0 {
            // A child forked meanwhile has the descriptor, too, and would keep the lock.
            socket::unlock_file(directory.as_fd());
        }
    }
}

/// The file of a unix socket, as long as it is ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    process: u32,
    pub(super) is_kept: bool,
}

impl SocketFile {
    /// Of the process that has just bound `path`.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        // The directory may change before the file is removed.
        let path = std::path::absolute(path).describe("the current directory")?;
        let identity = identity(&fs::symlink_metadata(&path).describe("the file of the socket")?);
        Ok(Self { path, identity, process: std::process::id(), is_kept: false })
    }

    /// While the socket is open the kernel keeps its inode, so that no other file has the number.
    fn is_ours(&self) -> bool {
        !self.is_kept
            && self.process == std::process::id()
            && fs::symlink_metadata(&self.path).is_ok_and(|now| identity(&now) == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours() {
            // There is no caller for an error.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

pub(super) fn is(error: &io::Error, errno: i32) -> bool {
    error.raw_os_error() == Some(errno)
}
