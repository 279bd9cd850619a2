//! [`Address`]: the address of a socket.

use std::fmt::{self, Write};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

/// The address of a socket: a peer's, as `accept(2)` returns it, or our own.
///
/// Shown as [`Server::listen`](crate::Server::listen) reads it: `127.0.0.1:80`, `[::1]:80`,
/// `unix:/path`, `unix:@name`, and `unix:` for a socket without a name, which most unix clients are.
/// A client chooses its name: control characters, all else that is not printable, bytes that are not
/// UTF-8, and backslashes are shown as Rust's escapes, so that a name can't end a line of a log or
/// control a terminal. [`Unix`](Self::Unix) holds the bytes themselves.
///
/// # Portability
///
/// The same on every system. Abstract names are Linux's.
///
/// ```
/// # #[cfg(feature = "serve")] {
/// use omnipoll::Address;
/// use std::net::SocketAddr;
///
/// let internet: SocketAddr = "127.0.0.1:80".parse().unwrap();
/// let address = Address::from(internet);
/// assert_eq!(address.as_socket_addr(), Some(internet));
/// assert_eq!(address.to_string(), "127.0.0.1:80");
/// assert_eq!(Address::Unix((*b"/run/web").into()).to_string(), "unix:/run/web");
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A unix socket that was bound to no name.
    Unnamed,
    /// IPv4.
    V4(SocketAddrV4),
    /// IPv6, with the scope that a link-local address needs.
    V6(SocketAddrV6),
    /// A unix socket's path, or a zero byte and its abstract name.
    Unix(Arc<[u8]>),
}

impl Address {
    /// From the name of a unix socket: a path, which ends at a zero byte, or a zero byte and an
    /// abstract name. Allocates only if there is one.
    pub(crate) fn unix(name: &[u8]) -> Self {
        let end = match name {
            [] => 0,
            [0, ..] if cfg!(target_os = "linux") => name.len(),
            _ => name.iter().position(|&byte| byte == 0).unwrap_or(name.len()),
        };
        match &name[..end] {
            [] => Self::Unnamed,
            name => Self::Unix(name.into()),
        }
    }

    /// The internet address; none of a unix socket.
    ///
    /// See the example of [`Address`].
    pub fn as_socket_addr(&self) -> Option<SocketAddr> {
        match *self {
            Self::V4(address) => Some(address.into()),
            Self::V6(address) => Some(address.into()),
            Self::Unnamed | Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(address),
            SocketAddr::V6(address) => Self::V6(address),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed => f.write_str("unix:"),
            Self::V4(address) => address.fmt(f),
            // IPv4 on a socket for both: a client must have one name, whichever socket it connects to.
            Self::V6(address) => match address.ip().to_ipv4_mapped() {
                Some(ip) => SocketAddrV4::new(ip, address.port()).fmt(f),
                None => address.fmt(f),
            },
            Self::Unix(name) => match &**name {
                [0, name @ ..] => f.write_str("unix:@").and_then(|()| write_escaped(f, name)),
                path => f.write_str("unix:").and_then(|()| write_escaped(f, path)),
            },
        }
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, name: &[u8]) -> fmt::Result {
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\'' | '"' => f.write_char(character)?,
                _ => write!(f, "{}", character.escape_debug())?,
            }
        }
        chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_small() {
        assert!(size_of::<Address>() <= 32);
    }

    #[test]
    fn is_shown_as_addresses_are_written() {
        let shown = |address: &str| Address::from(address.parse::<SocketAddr>().unwrap()).to_string();
        for address in ["127.0.0.1:80", "[::1]:80", "[fe80::1%3]:80"] {
            assert_eq!(shown(address), address);
        }
        assert_eq!(shown("[::ffff:127.0.0.1]:80"), "127.0.0.1:80");
        assert_eq!(Address::unix(b"/run/a\0rest").to_string(), "unix:/run/a");
        assert_eq!(Address::unix(b"").to_string(), "unix:");
        #[cfg(target_os = "linux")]
        assert_eq!(Address::unix(b"\0name").to_string(), "unix:@name");
    }

    #[test]
    fn a_name_is_shown_without_terminal_controls() {
        for (name, shown) in [
            (&b"/a\nb\x1b[2J"[..], r"unix:/a\nb\u{1b}[2J"),
            (b"/it's \"\xc3\xa9\"", "unix:/it's \"\u{e9}\""),
            (b"/\xff\xe2\x80\xae\\", r"unix:/\xff\u{202e}\\"),
            #[cfg(target_os = "linux")]
            (b"\0a\0b", r"unix:@a\0b"),
        ] {
            assert_eq!(Address::unix(name).to_string(), shown);
        }
    }

    #[test]
    fn only_internet_addresses_are_socket_addresses() {
        let address: SocketAddr = "[::1]:80".parse().unwrap();
        assert_eq!(Address::from(address).as_socket_addr(), Some(address));
        assert_eq!(Address::Unnamed.as_socket_addr(), None);
        assert_eq!(Address::unix(b"/run/a").as_socket_addr(), None);
    }
}
