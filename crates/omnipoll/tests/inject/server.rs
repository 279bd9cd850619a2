//! The server that the faults happen to.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use omnipoll::{Conn, Datagram, EngineKind, Handler, Model, ServerOptions};

use crate::supervisor;

/// What is in the file that is sent.
pub(crate) static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| (0..30_000).map(|at| at as u8).collect());

/// Echoes, datagrams too, `directly` as any thread would; sends a file when it is sent a single `F`, and a `p` by way of a post for a `P`.
pub(crate) struct Echo {
    file: File,
}

impl Echo {
    pub(crate) fn new() -> Self {
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"file".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0, "memfd_create: {}", io::Error::last_os_error());
        // SAFETY: the kernel has just given us this number.
        let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        file.write_all(&FILE).expect("a file in memory");
        Self { file }
    }
}

impl Handler for Echo {
    type State = ();

    /// Little room in the socket, so that what is written has to wait. It may fail.
    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
        let (room, size): (libc::c_int, _) = (8192, size_of::<libc::c_int>() as libc::socklen_t);
        let (level, option, room) = (libc::SOL_SOCKET, libc::SO_SNDBUF, (&raw const room).cast());
        // SAFETY: the option is read from an integer that lives through the call.
        unsafe { libc::setsockopt(conn.socket().as_raw_fd(), level, option, room, size) };
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, (): &mut (), data: &[u8]) {
        let done = match data {
            b"F" => conn.send_file(&self.file, 0, FILE.len() as u64),
            b"P" => conn.id().post(0),
            data => conn.write(data).map(drop),
        };
        if done.is_err() {
            conn.abort();
        }
    }

    fn on_post(&self, conn: &mut Conn<'_>, (): &mut (), _: i64) {
        if conn.write(b"p").is_err() {
            conn.abort();
        }
    }

    fn on_datagram(&self, datagram: &mut Datagram<'_>, data: &[u8]) {
        // Who has no answer asks again.
        let _ = match data {
            b"directly" => datagram.socket().send_to(datagram.peer(), data),
            _ => datagram.reply(data),
        };
    }
}

/// Two workers, ended by SIGTERM.
pub(crate) fn options(model: Model, engine: EngineKind) -> ServerOptions {
    let options = ServerOptions::new().model(model).engine(engine).workers(2).signals(true);
    let options = options.drain(Some(Duration::from_millis(500))).idle_timeout(Duration::from_secs(50));
    options.around_fork(Arc::new(|fork| {
        let forked = fork();
        if forked == 0 {
            supervisor::forget();
        }
        forked
    }))
}

/// Where it listens.
pub(crate) fn addresses(model: Model) -> &'static [&'static str] {
    match model {
        Model::Thread | Model::Fork => &["127.0.0.1:0"],
        _ => &["127.0.0.1:0", "udp:127.0.0.1:0"],
    }
}
