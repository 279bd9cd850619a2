//! The sockets that a server which restarts passes to the program that takes its place.
//!
//! They are the descriptors from 3 on, as sd_listen_fds(3) has them, and one more by which the new program
//! says that it serves. The environment has their number (`LISTEN_FDS`), what the old server was asked to
//! listen on (`OMNIPOLL_LISTEN`: a line for each address, and before it how many sockets it stands for), and
//! which the last descriptor is (`OMNIPOLL_RESTART`: its number and inode, which the programs that the new
//! one starts do not have).

use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, OnceLock};

use crate::sys::{lock, socket, spawn, FIRST_ABOVE_STDIO};

pub(crate) const LISTEN: &str = "OMNIPOLL_LISTEN";
pub(crate) const RESTART: &str = "OMNIPOLL_RESTART";

/// What this process was passed, and has not taken yet.
struct Passed {
    /// Those of each address, in order.
    sockets: Vec<(String, Vec<OwnedFd>)>,
    answer: Option<UnixStream>,
}

/// The passed sockets for an address: those that the old server had for it, or all that are left for
/// `"systemd"`. `None` when there are none.
pub(crate) fn take(address: &str) -> Option<Vec<OwnedFd>> {
    let mut passed = lock(passed()?);
    if let Some(index) = passed.sockets.iter().position(|(of, _)| of == address) {
        return Some(passed.sockets.remove(index).1);
    }
    let all = if address == "systemd" { std::mem::take(&mut passed.sockets) } else { Vec::new() };
    (!all.is_empty()).then(|| all.into_iter().flat_map(|(_, sockets)| sockets).collect())
}

/// Closes the sockets that nobody has taken: clients must not wait in their queues.
pub(crate) fn close_rest() {
    if let Some(passed) = passed() {
        lock(passed).sockets.clear();
    }
}

/// Whether an old server waits for [`answer`].
pub(crate) fn is_awaited() -> bool {
    passed().is_some_and(|passed| lock(passed).answer.is_some())
}

/// Reports to the old server, if there is one, that this one serves.
pub(crate) fn answer() {
    if let Some(answer) = passed().and_then(|passed| lock(passed).answer.take()) {
        // It fails when the old one is gone, which has nothing to wait for then.
        let _ = socket::send(answer.as_fd(), &[1]);
    }
}

fn passed() -> Option<&'static Mutex<Passed>> {
    static PASSED: OnceLock<Option<Mutex<Passed>>> = OnceLock::new();
    PASSED.get_or_init(|| from_environment().map(Mutex::new)).as_ref()
}

fn from_environment() -> Option<Passed> {
    let restart = std::env::var(RESTART).ok()?;
    let (number, inode) = restart.split_once(' ')?;
    let number: RawFd = number.parse().ok()?;
    if spawn::inode(number)? != inode {
        return None;
    }
    let mut next = FIRST_ABOVE_STDIO..number;
    let mut sockets = Vec::new();
    for line in std::env::var(LISTEN).ok()?.lines() {
        let (count, address) = line.split_once(' ')?;
        let numbers = next.by_ref().take(count.parse().ok()?);
        let of_address = numbers.filter_map(|number| spawn::take_passed(number).ok()).collect();
        sockets.push((address.to_owned(), of_address));
    }
    let answer = spawn::take_passed(number).ok().map(UnixStream::from);
    Some(Passed { sockets, answer })
}

/// The value of [`LISTEN`] for these addresses, and how many sockets each stands for.
pub(crate) fn lines(addresses: &[(String, usize)]) -> String {
    addresses.iter().fold(String::new(), |mut lines, (address, count)| {
        // Into a text it does not fail.
        let _ = writeln!(lines, "{count} {address}");
        lines
    })
}
