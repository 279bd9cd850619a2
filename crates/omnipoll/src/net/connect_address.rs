//! [`ConnectAddress`]: what a program writes to say where it connects to.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::str::FromStr;

use super::address_syntax::{descriptor, internet, unix, wrong, Host};
use crate::sys::Address;

/// What can be connected to. Parsed from:
///
/// - `127.0.0.1:80`, `[::1]:80`: a TCP address.
/// - `example.com:80`: a name, whose addresses are tried.
/// - `unix:/path`, `unix:@name`: a unix socket, with a file or an abstract name (Linux).
/// - `fd:3`: a stream socket that is connected already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConnectAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A name for the resolver, and the TCP port.
    Name(String, u16),
    /// The name of a unix socket: a [`Address::Unix`].
    Unix(Address),
    /// The number of a descriptor.
    Descriptor(RawFd),
}

impl FromStr for ConnectAddress {
    type Err = io::Error;

    /// `EINVAL` for any other text; [`explain`](crate::explain) says why.
    fn from_str(text: &str) -> io::Result<Self> {
        if let Some(name) = text.strip_prefix("unix:") {
            return unix(name).map(Self::Unix);
        } else if let Some(number) = text.strip_prefix("fd:") {
            return descriptor(number).map(Self::Descriptor);
        } else if text.starts_with("udp:") {
            return Err(wrong("udp: is for datagram sockets: connect takes the address of a stream"));
        }
        match internet(text)? {
            (_, 0) => Err(wrong("the port to connect to must be a number from 1 to 65535")),
            (Host::Any, _) => Err(wrong("the address to connect to has no host: write host:port")),
            (Host::Ip(ip), port) => Ok(Self::Tcp((ip, port).into())),
            (Host::Name(name), port) => Ok(Self::Name(name, port)),
        }
    }
}

/// As it is parsed.
impl fmt::Display for ConnectAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            // An IPv6 address with the name of an interface.
            Self::Name(name, port) if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(address) => address.fmt(f),
            Self::Descriptor(number) => write!(f, "fd:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_parsed_and_shown() {
        for (text, expected) in [
            ("127.0.0.1:80", ConnectAddress::Tcp("127.0.0.1:80".parse().unwrap())),
            ("[::1]:65535", ConnectAddress::Tcp("[::1]:65535".parse().unwrap())),
            ("example.com:80", ConnectAddress::Name("example.com".into(), 80)),
            ("[fe80::1%lo]:80", ConnectAddress::Name("fe80::1%lo".into(), 80)),
            ("unix:/run/a:b", ConnectAddress::Unix(Address::unix(b"/run/a:b"))),
            #[cfg(target_os = "linux")]
            ("unix:@name", ConnectAddress::Unix(Address::unix(b"\0name"))),
            ("fd:3", ConnectAddress::Descriptor(3)),
        ] {
            let parsed: ConnectAddress = text.parse().unwrap();
            assert_eq!(parsed, expected);
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn every_mistake_is_explained() {
        for (text, words) in [
            ("", "no port"),
            ("localhost", "no port"),
            ("systemd", "no port"),
            ("localhost:0", "from 1 to 65535"),
            ("127.0.0.1:0", "from 1 to 65535"),
            ("localhost:65536", "from 0 to 65535"),
            (":80", "no host"),
            ("*:80", "no host"),
            ("::1:80", "in brackets"),
            ("local\0host:80", "zero byte"),
            ("unix:", "takes a path"),
            ("fd:x", "number of a descriptor"),
            ("udp:127.0.0.1:53", "for datagram sockets"),
        ] {
            let error = text.parse::<ConnectAddress>().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{text}");
            let said = crate::explain(&error);
            assert!(said.contains(words), "{text}: {said}");
        }
    }
}
