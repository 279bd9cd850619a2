//! [`Restart`]: by what program a server is replaced.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What is called with the outcome of a restart.
type Done = Arc<dyn Fn(io::Result<i32>) + Send + Sync>;

/// How a server is replaced by a new process, of the same program or another one: see
/// [`ServerHandle::restart`](crate::ServerHandle::restart).
///
/// # Portability
///
/// The same on every system and engine, but for [`program`](Self::program).
///
/// ```
/// # use omnipoll::{Conn, Handler};
/// # struct Echo;
/// # impl Handler for Echo {
/// #     type State = ();
/// #     fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
/// #     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) { let _ = conn.write(data); }
/// # }
/// use omnipoll::{explain, Restart, Server, ServerOptions};
/// use std::time::Duration;
///
/// // SIGHUP starts the program again, which may have been replaced by a newer one meanwhile.
/// let restart = Restart::new().timeout(Duration::from_secs(30)).on_done(|outcome| match outcome {
///     Ok(process) => println!("process {process} serves from now on"),
///     Err(error) => println!("this one goes on serving: {}", explain(&error)),
/// });
/// let server = Server::with_options(Echo, ServerOptions::new().signals(true).restart(restart))?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "`ServerOptions::restart` takes it"]
pub struct Restart {
    pub(super) program: Option<PathBuf>,
    pub(super) arguments: Option<Vec<OsString>>,
    pub(super) timeout: Duration,
    pub(super) on_done: Option<Done>,
}

impl Default for Restart {
    fn default() -> Self {
        Self { program: None, arguments: None, timeout: Duration::from_secs(60), on_done: None }
    }
}

impl Restart {
    /// The program of this process, with its arguments.
    ///
    /// See the example of [`Restart`].
    pub fn new() -> Self {
        Self::default()
    }

    /// The program, looked up in `PATH` where it has no slash. By default the name by which this process was
    /// started, which finds a newer program that has replaced the file.
    ///
    /// # Portability
    ///
    /// In a library that a C program loads, the default and that of [`arguments`](Self::arguments) are known on
    /// Linux with glibc, on macOS and on FreeBSD. Elsewhere name the program.
    ///
    /// ```
    /// let restart = omnipoll::Restart::new().program("/opt/echo/2.0/echo").arguments(["--quick"]);
    /// ```
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Its arguments, without its own name. By default those of this process; with a
    /// [`program`](Self::program) too.
    ///
    /// See the example of [`program`](Self::program).
    pub fn arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments = Some(arguments.into_iter().map(Into::into).collect());
        self
    }

    /// How long the new process has until it serves: one minute by default. After it, it is killed.
    ///
    /// See the example of [`Restart`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What is called with the outcome, in the thread that called [`Server::run`](crate::Server::run): the new
    /// process, or why the old one goes on. `EPIPE`: it has ended before it served; `ETIMEDOUT`: it took too
    /// long, and was killed; `ECANCELED`: this server was stopped meanwhile; and what `posix_spawn(3)` says,
    /// such as `ENOENT`.
    ///
    /// See the example of [`Restart`].
    pub fn on_done(mut self, done: impl Fn(io::Result<i32>) + Send + Sync + 'static) -> Self {
        self.on_done = Some(Arc::new(done));
        self
    }
}

impl std::fmt::Debug for Restart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restart")
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
