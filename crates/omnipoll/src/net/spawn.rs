//! Programs that a loop starts, with connections to what they read and write.

use std::io;
use std::ops::BitOr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use super::conn_id::ConnId;
use super::connect_request::ConnectRequest;
use super::loop_context::{LoopContext, PendingConnect};
use crate::error::Describe;
use crate::sys::Address;

/// Which of a program's standard streams become connections. The others are as its [`Command`] has them.
///
/// # Portability
///
/// The same on every system and engine.
///
/// See the example of [`EventLoop::spawn`](crate::EventLoop::spawn).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pipes(u32);

impl Pipes {
    /// None.
    pub const NONE: Self = Self(0);
    /// What is written to the connection, the program reads.
    pub const STDIN: Self = Self(1);
    /// What the program writes, the connection receives.
    pub const STDOUT: Self = Self(2);
    /// The same of its errors.
    pub const STDERR: Self = Self(4);

    const fn contains(self, pipe: Self) -> bool {
        self.0 & pipe.0 != 0
    }
}

impl BitOr for Pipes {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A program that was started.
///
/// # Portability
///
/// The same on every system and engine.
///
/// See the example of [`EventLoop::spawn`](crate::EventLoop::spawn).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spawned {
    /// Its process.
    pub pid: i32,
    /// The connections to those of its streams that were asked for.
    pub stdin: Option<ConnId>,
    /// What it writes.
    pub stdout: Option<ConnId>,
    /// What it writes of errors.
    pub stderr: Option<ConnId>,
}

/// A standard stream, and how a command is given it.
type Stream = (Pipes, fn(&mut Command, Stdio) -> &mut Command);

const STREAMS: [Stream; 3] =
    [(Pipes::STDIN, Command::stdin), (Pipes::STDOUT, Command::stdout), (Pipes::STDERR, Command::stderr)];

impl LoopContext {
    /// Starts a program. Nothing is left of it when an error is returned.
    pub(crate) fn spawn(&self, command: &mut Command, pipes: Pipes, token: u64) -> io::Result<Spawned> {
        self.poller.check_owner()?;
        let mut ends = [None, None, None];
        for (end, (pipe, set)) in ends.iter_mut().zip(STREAMS) {
            if pipes.contains(pipe) {
                let (ours, theirs) = UnixStream::pair().describe("socketpair")?;
                ours.set_nonblocking(true)?;
                set(command, Stdio::from(OwnedFd::from(theirs)));
                *end = Some(OwnedFd::from(ours));
            }
        }
        let spawned = command.spawn();
        // The command keeps the program's ends, which would never be closed.
        for (_, set) in STREAMS.into_iter().filter(|&(pipe, _)| pipes.contains(pipe)) {
            set(command, Stdio::null());
        }
        let mut child = spawned.describe(format_args!("{}", command.get_program().to_string_lossy()))?;
        let pid = child.id() as i32;
        let before = self.requests.borrow().len();
        let adopted = self.poller.child_add(pid, token).and_then(|()| {
            let [stdin, stdout, stderr] = ends.map(|end| end.map(|end| self.adopt(end, token)).transpose());
            Ok(Spawned { pid, stdin: stdin?, stdout: stdout?, stderr: stderr? })
        });
        if adopted.is_err() {
            let requests = self.requests.borrow_mut().split_off(before);
            requests.iter().for_each(|request| self.mailbox.remove(request.id));
            let _ = self.poller.child_remove(pid);
            let _ = child.kill();
            let _ = child.wait();
        }
        adopted
    }

    /// A socket that is connected becomes a connection of the loop.
    fn adopt(&self, socket: OwnedFd, token: u64) -> io::Result<ConnId> {
        let id = self.mailbox.reserve()?;
        let request = ConnectRequest::Adopt { socket, peer: Address::Unnamed };
        self.requests.borrow_mut().push(PendingConnect { request, id, token });
        Ok(id)
    }
}
