//! [`ConnectOptions`]: how a connection is made.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::address_syntax::wrong;

/// How an [`EventLoop`](crate::EventLoop) connects to an address.
///
/// # Portability
///
/// Each option means the same on every system and engine, unless it says otherwise.
///
/// ```
/// use omnipoll::ConnectOptions;
/// use std::time::Duration;
///
/// let options = ConnectOptions::new()
///     .timeout(Duration::from_secs(5))
///     .local_address("127.0.0.1")
///     .no_delay(false)
///     .keep_alive(Duration::from_secs(60));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[must_use = "a connect takes them"]
pub struct ConnectOptions {
    pub(super) timeout: Option<Duration>,
    local_address: Option<String>,
    pub(super) no_delay: bool,
    pub(super) keep_alive: Option<Duration>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { timeout: Some(Duration::from_secs(30)), local_address: None, no_delay: true, keep_alive: None }
    }
}

impl ConnectOptions {
    /// The defaults that each option names.
    ///
    /// See the example of [`ConnectOptions`].
    pub fn new() -> Self {
        Self::default()
    }

    /// How long it may take in all: looking the name up, and trying each of its addresses. 30 seconds by
    /// default; without it, as long as the system tries, which may be minutes. When the time is up the
    /// connection fails with `ETIMEDOUT`.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// The address of this machine to connect from: an IP address, and a port if it must be a certain one:
    /// `192.0.2.1`, `192.0.2.1:7000`, `2001:db8::1`, `[2001:db8::1]:7000`. By default the system chooses.
    ///
    /// Of a name's addresses those of the other family fail with `EAFNOSUPPORT`. Connecting is `EINVAL`
    /// when it is no IP address, and to a unix socket or a descriptor; the connection fails with
    /// `EADDRNOTAVAIL` when this machine has no such address, and with that or `EADDRINUSE` when the port
    /// is in use.
    #[doc(alias = "bind")]
    pub fn local_address(mut self, address: impl Into<String>) -> Self {
        self.local_address = Some(address.into());
        self
    }

    /// Whether small writes are sent at once, and not held back until what was sent before is
    /// acknowledged: true by default, as it is for connections that are accepted. Nothing to unix sockets.
    #[doc(alias = "TCP_NODELAY")]
    pub fn no_delay(mut self, no_delay: bool) -> Self {
        self.no_delay = no_delay;
        self
    }

    /// How long a peer may be silent before the system asks whether it is still there, in whole seconds;
    /// when it does not answer, the connection ends with `ETIMEDOUT`. By default the system never asks.
    /// Nothing to unix sockets.
    #[doc(alias = "SO_KEEPALIVE")]
    pub fn keep_alive(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.keep_alive = time.into();
        self
    }

    /// The local address; `EINVAL` when it is none.
    pub(super) fn local(&self) -> io::Result<Option<SocketAddr>> {
        self.local_address.as_deref().map(parse_local).transpose()
    }
}

fn parse_local(text: &str) -> io::Result<SocketAddr> {
    let ip = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let without_port = || ip.parse::<IpAddr>().map(|ip| (ip, 0).into());
    let address = text.parse().or_else(|_| without_port()).ok();
    address.ok_or_else(|| wrong("the local address is not an IP address, alone or with a port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_address_has_a_port_or_none() {
        let local = |text: &str| ConnectOptions::new().local_address(text).local();
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1:0"),
            ("127.0.0.1:7", "127.0.0.1:7"),
            ("::1", "[::1]:0"),
            ("[::1]", "[::1]:0"),
            ("[::1]:7", "[::1]:7"),
        ] {
            assert_eq!(local(text).unwrap(), Some(address.parse().unwrap()));
        }
        for text in ["", "localhost", "127.0.0.1:", "[127.0.0.1", ":80"] {
            assert_eq!(local(text).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{text}");
        }
        assert_eq!(ConnectOptions::new().local().unwrap(), None);
    }
}
