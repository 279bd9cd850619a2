//! [`Notifier`]: notifications of the service manager, as sd_notify(3) describes.

use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::error::{fail, Describe};
use crate::sys::process;

/// How long a service manager that doesn't read may keep the loop. systemd reads at once.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The service manager that has started this process.
pub(super) struct Notifier {
    manager: SocketAddr,
    /// How often it wants to be notified that the process is alive, at the least.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The one that the environment names. `EINVAL` for a `NOTIFY_SOCKET` that is neither a path nor an
    /// abstract name, and a `WATCHDOG_USEC` that is no time.
    pub(super) fn from_environment() -> io::Result<Option<Self>> {
        let [socket, watchdog, pid] =
            ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"].map(|name| std::env::var(name).ok());
        let Some(socket) = socket else { return Ok(None) };
        let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let watchdog = watchdog.filter(|_| is_ours).map(|time| microseconds(&time)).transpose()?;
        Ok(Some(Self { manager: address(&socket)?, watchdog }))
    }

    /// Sends it lines such as `READY=1`.
    pub(super) fn send(&self, state: &str) -> io::Result<()> {
        let socket = UnixDatagram::unbound().describe("socket")?;
        socket.set_write_timeout(Some(SEND_TIMEOUT)).describe("SO_SNDTIMEO")?;
        socket.send_to_addr(state.as_bytes(), &self.manager).describe("NOTIFY_SOCKET")?;
        Ok(())
    }

    /// How often it is notified that the process is alive: twice as often as it must be.
    pub(super) fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|watchdog| watchdog / 2)
    }
}

/// The line that goes with `RELOADING=1`.
pub(super) fn monotonic_usec() -> String {
    format!("MONOTONIC_USEC={}", process::monotonic_time().as_micros())
}

fn address(socket: &str) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt as _;
        return SocketAddr::from_abstract_name(name).describe("NOTIFY_SOCKET");
    }
    if !socket.starts_with('/') {
        return Err(fail(libc::EINVAL, "NOTIFY_SOCKET is neither a path nor an abstract name"));
    }
    SocketAddr::from_pathname(socket).describe("NOTIFY_SOCKET")
}

fn microseconds(text: &str) -> io::Result<Duration> {
    match text.parse() {
        Ok(time) if time > 0 => Ok(Duration::from_micros(time)),
        _ => Err(fail(libc::EINVAL, "WATCHDOG_USEC must be a number of microseconds, 1 or more")),
    }
}
