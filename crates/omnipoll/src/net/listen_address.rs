//! [`ListenAddress`]: what a program writes to say where its server listens.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::RawFd;
use std::str::FromStr;

use super::address_syntax::{descriptor, digits, internet, unix, wrong, Host};
use crate::error::fail;
use crate::sys::Address;

/// What a server can listen on. Parsed from:
///
/// - `127.0.0.1:0`, `[::1]:80`: a TCP address; port 0 lets the system choose one.
/// - `localhost:80`: every address that the name has.
/// - `:8080`, `*:8080`: every address of this machine, IPv6 and IPv4.
/// - `unix:/path`, `unix:@name`: a unix socket, with a file or an abstract name (Linux).
/// - `fd:3`: a listening socket that this process was started with.
/// - `systemd`, `systemd:web`: those that systemd passed, sd_listen_fds(3): all, or those of that name.
/// - `udp:127.0.0.1:0`, `udp:[::1]:53`: a datagram socket on any of the internet's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    /// A TCP address.
    Tcp(Host, u16),
    /// A UDP address.
    Udp(Host, u16),
    /// The name of a unix socket: a [`Address::Unix`].
    Unix(Address),
    /// The number of an inherited descriptor.
    Descriptor(RawFd),
    /// The descriptors that systemd passed: all, or those of a name.
    Systemd(Option<String>),
}

impl FromStr for ListenAddress {
    type Err = io::Error;

    /// `EINVAL` for any other text; [`explain`](crate::explain) says why. Names are
    /// looked up later, when a socket is opened.
    fn from_str(text: &str) -> io::Result<Self> {
        if text == "systemd" {
            Ok(Self::Systemd(None))
        } else if let Some(name) = text.strip_prefix("systemd:") {
            Ok(Self::Systemd(Some(name.to_owned())))
        } else if let Some(name) = text.strip_prefix("unix:") {
            unix(name).map(Self::Unix)
        } else if let Some(number) = text.strip_prefix("fd:") {
            descriptor(number).map(Self::Descriptor)
        } else if let Some(rest) = text.strip_prefix("udp:") {
            if ["unix:", "fd:", "udp:"].iter().any(|kind| rest.starts_with(kind)) {
                return Err(wrong("udp: takes an internet address: udp:127.0.0.1:53"));
            }
            internet(rest).map(|(host, port)| Self::Udp(host, port))
        } else {
            internet(text).map(|(host, port)| Self::Tcp(host, port))
        }
    }
}

impl Host {
    /// Opens a socket on each address of this host, and returns them.
    ///
    /// A name may stand for an address that this machine does not have, `::1` without IPv6: one that can
    /// be opened is enough. Every address of a machine without IPv6 is `0.0.0.0`.
    /// `EADDRNOTAVAIL` when the resolver doesn't know the name.
    pub(crate) fn open_each<T>(
        &self,
        port: u16,
        mut open: impl FnMut(SocketAddr) -> io::Result<T>,
    ) -> io::Result<Vec<T>> {
        let name = match self {
            Self::Ip(ip) => return Ok(vec![open((*ip, port).into())?]),
            Self::Any => {
                return match open((Ipv6Addr::UNSPECIFIED, port).into()) {
                    Err(error) if is_not_here(&error) => open((Ipv4Addr::UNSPECIFIED, port).into()),
                    result => result,
                }
                .map(|socket| vec![socket])
            }
            Self::Name(name) => name,
        };
        let mut addresses = Vec::new();
        for address in (name.as_str(), port).to_socket_addrs().map_err(|_| unknown_name())? {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let mut opened = Vec::new();
        let mut missing = None;
        for address in addresses {
            match open(address) {
                Ok(socket) => opened.push(socket),
                Err(error) if is_not_here(&error) => missing = Some(error),
                Err(error) => return Err(error),
            }
        }
        if opened.is_empty() {
            return Err(missing.unwrap_or_else(unknown_name));
        }
        Ok(opened)
    }
}

fn unknown_name() -> io::Error {
    fail(libc::EADDRNOTAVAIL, "the name of the host has no address")
}

fn is_not_here(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// The variables of [`activated`].
pub(crate) const ACTIVATION: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The descriptors that systemd passed, from its variables in the environment: all, or those of `name`.
///
/// A parent other than systemd can't know the number of a process before it starts it: without
/// `LISTEN_PID` the descriptors are ours.
pub(crate) fn activated(
    [listen_pid, listen_fds, names]: [Option<&str>; 3],
    name: Option<&str>,
) -> io::Result<Vec<RawFd>> {
    const FIRST: RawFd = 3;
    if listen_pid.is_some_and(|pid| pid.parse() != Ok(std::process::id())) {
        return Err(wrong("LISTEN_PID names another process: the descriptors are not for this one"));
    }
    let count = listen_fds.ok_or_else(|| wrong("LISTEN_FDS is not set: systemd passed no descriptor"))?;
    let count = digits(count).and_then(|count| count.parse::<RawFd>().ok()).filter(|&count| count > 0);
    let count = count.ok_or_else(|| wrong("LISTEN_FDS must be the number of descriptors, 1 or more"))?;
    let all = FIRST..FIRST.saturating_add(count);
    let Some(name) = name else { return Ok(all.collect()) };
    let of_that_name = |&(_, other): &(RawFd, &str)| other == name;
    let named: Vec<_> = all.zip(names.unwrap_or("").split(':')).filter(of_that_name).collect();
    if named.is_empty() {
        return Err(wrong("LISTEN_FDNAMES has no descriptor of that name"));
    }
    Ok(named.into_iter().map(|(number, _)| number).collect())
}

#[cfg(test)]
mod tests {
    use super::super::address_syntax::MAX_PATH;
    use super::*;

    fn parsed(text: &str) -> ListenAddress {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_is_parsed() {
        let v6 = || Host::Ip(Ipv6Addr::LOCALHOST.into());
        assert_eq!(parsed("127.0.0.1:0"), ListenAddress::Tcp(Host::Ip(Ipv4Addr::LOCALHOST.into()), 0));
        assert_eq!(parsed("[::1]:80"), ListenAddress::Tcp(v6(), 80));
        assert_eq!(parsed("localhost:65535"), ListenAddress::Tcp(Host::Name("localhost".into()), 65535));
        assert_eq!(parsed("[fe80::1%lo]:80"), ListenAddress::Tcp(Host::Name("fe80::1%lo".into()), 80));
        assert_eq!(parsed(":8080"), ListenAddress::Tcp(Host::Any, 8080));
        assert_eq!(parsed("*:8080"), ListenAddress::Tcp(Host::Any, 8080));
        assert_eq!(parsed("udp:[::1]:53"), ListenAddress::Udp(v6(), 53));
        assert_eq!(parsed("unix:/run/a:b"), ListenAddress::Unix(Address::unix(b"/run/a:b")));
        assert_eq!(parsed("fd:3"), ListenAddress::Descriptor(3));
        assert_eq!(parsed("systemd"), ListenAddress::Systemd(None));
        assert_eq!(parsed("systemd:web"), ListenAddress::Systemd(Some("web".into())));
        #[cfg(target_os = "linux")]
        assert_eq!(parsed("unix:@name"), ListenAddress::Unix(Address::unix(b"\0name")));
    }

    #[test]
    fn every_mistake_is_explained() {
        let long = format!("unix:/{}", "x".repeat(MAX_PATH));
        for (text, words) in [
            ("", "no port"),
            ("localhost", "no port"),
            ("[::1]", "no port"),
            ("::1:80", "in brackets"),
            ("[::1:80", "in brackets"),
            ("[::1]x:80", "in brackets"),
            ("[127.0.0.1]:80", "no IPv6 address"),
            ("127.0.0.1:", "from 0 to 65535"),
            ("127.0.0.1:65536", "from 0 to 65535"),
            ("127.0.0.1:+80", "from 0 to 65535"),
            ("127.0.0.1:http", "from 0 to 65535"),
            ("local\0host:80", "zero byte"),
            ("unix:", "takes a path"),
            ("unix:@", "takes a path"),
            ("unix:/a\0b", "zero byte"),
            (&long, "too long"),
            ("fd:", "number of a descriptor"),
            ("fd:-1", "number of a descriptor"),
            ("fd:99999999999", "number of a descriptor"),
            ("udp:fd:3", "internet address"),
            ("udp:unix:/a", "internet address"),
            ("udp:systemd", "no port"),
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{text}");
            let said = crate::explain(&error);
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn the_longest_path_is_taken() {
        let name = format!("/{}", "x".repeat(MAX_PATH - 1));
        assert_eq!(parsed(&format!("unix:{name}")), ListenAddress::Unix(Address::unix(name.as_bytes())));
    }

    #[test]
    fn activation_is_for_the_process_it_names() {
        let ours = std::process::id().to_string();
        assert_eq!(activated([Some(&ours), Some("2"), None], None).unwrap(), [3, 4]);
        assert_eq!(activated([None, Some("1"), None], None).unwrap(), [3]);
        for (pid, fds) in [(Some("1"), Some("1")), (Some(""), Some("1")), (None, None), (None, Some("0"))] {
            let error = activated([pid, fds, None], None).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{pid:?} {fds:?}");
        }
    }

    #[test]
    fn descriptors_have_names() {
        let named = |name| activated([None, Some("4"), Some("web:admin:web")], Some(name));
        assert_eq!(named("web").unwrap(), [3, 5]);
        assert_eq!(named("admin").unwrap(), [4]);
        for name in ["other", ""] {
            assert_eq!(named(name).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{name:?}");
        }
        assert_eq!(
            activated([None, Some("1"), None], Some("web")).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
    }

    #[test]
    fn a_name_needs_one_address_that_is_here() {
        let open = |address: SocketAddr| match address {
            SocketAddr::V4(_) => Ok(address),
            SocketAddr::V6(_) => Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)),
        };
        assert_eq!(Host::Any.open_each(80, open).unwrap(), [(Ipv4Addr::UNSPECIFIED, 80).into()]);
        let name = Host::Name("localhost".into());
        assert_eq!(name.open_each(80, open).unwrap(), [(Ipv4Addr::LOCALHOST, 80).into()]);
        let in_use = |_| Err::<(), _>(io::Error::from_raw_os_error(libc::EADDRINUSE));
        assert_eq!(name.open_each(80, in_use).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
        let ip = Host::Ip(Ipv6Addr::LOCALHOST.into());
        assert_eq!(ip.open_each(80, open).unwrap_err().raw_os_error(), Some(libc::EADDRNOTAVAIL));
    }
}
