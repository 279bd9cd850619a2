//! The header of the PROXY protocol, by which a proxy passes on what has connected to it, and where: version
//! 1, a line of text, and version 2, which is binary.
//!
//! Whoever takes a header believes it, so that nothing is accepted that the protocol's description does not
//! allow (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::conn::Conn;
use super::conn_id::ConnId;
use crate::sys::Address;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const LINE_START: &[u8; 6] = b"PROXY ";
/// With its end.
const LONGEST_LINE: usize = 107;
/// Version 2 has room for more than addresses; no more than this is accepted.
pub(crate) const LONGEST: usize = 4096;
/// A version 2 header up to its addresses.
const FIXED: usize = 16;
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// Which form a header is sent in.
///
/// # Portability
///
/// The same on every system and engine.
///
/// See [`Conn::write_proxy_header`](crate::Conn::write_proxy_header).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1 = 1,
    /// Binary.
    V2 = 2,
}

/// What connected, and to what.
pub(crate) type Endpoints = (Address, Address);

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// The beginning of a header.
    Incomplete,
    /// A header of so many bytes; without endpoints where it says none.
    Complete(usize, Option<Endpoints>),
    /// No header.
    Invalid,
}

/// Looks for a header where a connection begins. No more than [`LONGEST`] bytes are ever incomplete.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let parse = if begins(bytes, SIGNATURE) { parse_binary } else { parse_line };
    parse(bytes).unwrap_or(Parsed::Invalid)
}

/// Whether `bytes` and `start` are the same as far as both go.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, start)| byte == start)
}

fn parse_line(bytes: &[u8]) -> Option<Parsed> {
    if !begins(bytes, LINE_START) {
        return None;
    }
    let Some(end) = bytes.iter().take(LONGEST_LINE).position(|&byte| byte == b'\n') else {
        return (bytes.len() < LONGEST_LINE).then_some(Parsed::Incomplete);
    };
    let line = bytes[..end].strip_suffix(b"\r")?.strip_prefix(LINE_START)?;
    if line.iter().any(|byte| matches!(byte, b'\r' | b'\0')) {
        return None;
    }
    let endpoints = match line.split(|&byte| byte == b' ').next()? {
        b"UNKNOWN" => None,
        _ => Some(line_endpoints(std::str::from_utf8(line).ok()?)?),
    };
    Some(Parsed::Complete(end + 1, endpoints))
}

fn line_endpoints(line: &str) -> Option<Endpoints> {
    let mut words = line.split(' ');
    let mut next = || words.next();
    let (protocol, from, to, from_port, to_port) = (next()?, next()?, next()?, next()?, next()?);
    if next().is_some() {
        return None;
    }
    let ports = (parse_port(from_port)?, parse_port(to_port)?);
    match protocol {
        "TCP4" => pair::<Ipv4Addr>(from, to, ports),
        "TCP6" => pair::<Ipv6Addr>(from, to, ports),
        _ => None,
    }
}

fn pair<Ip: FromStr>(from: &str, to: &str, ports: (u16, u16)) -> Option<Endpoints>
where
    SocketAddr: From<(Ip, u16)>,
{
    let address = |ip: &str, port| Some(SocketAddr::from((ip.parse::<Ip>().ok()?, port)).into());
    Some((address(from, ports.0)?, address(to, ports.1)?))
}

/// Decimal, without a sign or a leading zero.
fn parse_port(word: &str) -> Option<u16> {
    let is_plain = word == "0" || !word.starts_with(['0', '+']);
    is_plain.then(|| word.parse().ok())?
}

fn parse_binary(bytes: &[u8]) -> Option<Parsed> {
    let (command, family) = (bytes.get(12).copied(), bytes.get(13).copied());
    if command.is_some_and(|command| command != LOCAL && command != PROXY) || family.is_some_and(is_unknown) {
        return None;
    }
    let (Some(command), Some(family), Some(length)) = (command, family, bytes.get(14..FIXED)) else {
        return Some(Parsed::Incomplete);
    };
    let whole = FIXED + usize::from(u16::from_be_bytes(length.try_into().ok()?));
    let addresses_end = FIXED + [0, 12, 36, 216][usize::from(family >> 4)];
    if whole > LONGEST || command == PROXY && whole < addresses_end {
        return None;
    }
    if bytes.len() < whole {
        return Some(Parsed::Incomplete);
    }
    if command == LOCAL || family == 0 {
        return Some(Parsed::Complete(whole, None));
    }
    let endpoints = binary_endpoints(family >> 4, &bytes[FIXED..addresses_end]);
    are_values(&bytes[addresses_end..whole]).then_some(Parsed::Complete(whole, endpoints))
}

/// Neither unspecified nor a family and a protocol: IPv4, IPv6 or unix, and stream or datagram.
fn is_unknown(byte: u8) -> bool {
    byte != 0 && !(matches!(byte >> 4, 1..=3) && matches!(byte & 15, 1..=2))
}

fn binary_endpoints(family: u8, addresses: &[u8]) -> Option<Endpoints> {
    let size = match family {
        1 => 4,
        2 => 16,
        _ => return None,
    };
    let address = |at: usize, port_at: usize| {
        let ip = &addresses[at..at + size];
        let port = u16::from_be_bytes(addresses[port_at..port_at + 2].try_into().ok()?);
        let address: SocketAddr = match <[u8; 4]>::try_from(ip) {
            Ok(ip) => (ip, port).into(),
            Err(_) => (<[u8; 16]>::try_from(ip).ok()?, port).into(),
        };
        Some(address.into())
    };
    Some((address(0, 2 * size)?, address(size, 2 * size + 2)?))
}

/// What follows the addresses: type, length and value, one after another.
fn are_values(mut bytes: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = bytes {
        let Some(next) = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) else { return false };
        bytes = next;
    }
    bytes.is_empty()
}

impl Conn<'_> {
    /// [Writes](Conn::write) a header of the PROXY protocol, by which the peer, a server behind this one,
    /// learns what has connected here and where: the [peer](Conn::peer) and the [local](Conn::local)
    /// address of `client`, a connection of the same loop, which may have them from such a header itself. It
    /// must be the first that is written. `None`, and a client of a unix socket: the header says that the
    /// addresses are not known (`UNKNOWN`).
    ///
    /// # Errors
    ///
    /// `ESTALE` when the client has ended or is of another loop, `getsockname(2)`'s, and those of `write`.
    ///
    /// ```
    /// use omnipoll::{Conn, ConnId, ConnectOptions, Handler, ProxyVersion};
    /// use std::io;
    ///
    /// struct Proxy;
    ///
    /// impl Handler for Proxy {
    ///     type State = ();
    ///
    ///     fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
    ///         if !conn.is_outgoing() {
    ///             conn.pause();
    ///             let client = conn.id().number();
    ///             conn.event_loop().connect("127.0.0.1:8080", &ConnectOptions::new(), client)?;
    ///             return Ok(());
    ///         }
    ///         let (backend, client) = (conn.id(), ConnId::from_number(conn.token()));
    ///         conn.write_proxy_header(ProxyVersion::V2, Some(client))?;
    ///         conn.relay_to(client)?;
    ///         let mut client = conn.other(client)?;
    ///         client.relay_to(backend)?;
    ///         client.resume();
    ///         Ok(())
    ///     }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    /// ```
    #[doc(alias = "haproxy")]
    pub fn write_proxy_header(&mut self, version: ProxyVersion, client: Option<ConnId>) -> io::Result<usize> {
        let endpoints = match client {
            None => None,
            Some(client) => {
                let client = self.other(client)?;
                of_one_family(client.peer(), &client.local()?)
            }
        };
        self.write(&write(version, endpoints))
    }
}

/// A header. Without endpoints it says that they are not known.
fn write(version: ProxyVersion, endpoints: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => line_of(endpoints).into_bytes(),
        ProxyVersion::V2 => binary_of(endpoints),
    }
}

fn line_of(endpoints: Option<(SocketAddr, SocketAddr)>) -> String {
    let mut line = String::from("PROXY ");
    let _ = match endpoints {
        None => write!(line, "UNKNOWN\r\n"),
        Some((from, to)) => {
            let family = if from.is_ipv4() { 4 } else { 6 };
            write!(line, "TCP{family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
        }
    };
    line
}

fn binary_of(endpoints: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut addresses = Vec::new();
    let mut family = 0;
    if let Some((from, to)) = endpoints {
        family = if from.is_ipv4() { 0x11 } else { 0x21 };
        for end in [from, to] {
            match end {
                SocketAddr::V4(end) => addresses.extend(end.ip().octets()),
                SocketAddr::V6(end) => addresses.extend(end.ip().octets()),
            }
        }
        addresses.extend([from.port(), to.port()].map(u16::to_be_bytes).as_flattened());
    }
    let mut header = SIGNATURE.to_vec();
    header.extend([PROXY, family, 0, addresses.len() as u8]);
    header.extend(addresses);
    header
}

/// Two ends of one family: IPv4 where both are, written as IPv6 or not. None where one is a unix socket.
fn of_one_family(from: &Address, to: &Address) -> Option<(SocketAddr, SocketAddr)> {
    let plain = |address: &Address| {
        address.as_socket_addr().map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
    };
    let widen = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        v6 => v6,
    };
    let (from, to) = (plain(from)?, plain(to)?);
    Some(if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (widen(from), widen(to)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(from: &str, to: &str) -> (SocketAddr, SocketAddr) {
        (from.parse().unwrap(), to.parse().unwrap())
    }

    /// What is written is parsed as it was, and every beginning of it is incomplete.
    #[test]
    fn what_is_written_is_parsed() {
        let cases = [
            None,
            Some(ends("192.0.2.1:7000", "192.0.2.2:80")),
            Some(ends("[2001:db8::1]:0", "[::1]:65535")),
        ];
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            for endpoints in cases {
                let mut header = write(version, endpoints);
                for cut in 0..header.len() {
                    assert_eq!(parse(&header[..cut]), Parsed::Incomplete);
                }
                let length = header.len();
                header.extend(b"\r\nhello");
                let endpoints = endpoints.map(|(from, to)| (from.into(), to.into()));
                assert_eq!(parse(&header), Parsed::Complete(length, endpoints));
            }
        }
    }

    #[test]
    fn ends_of_two_families_are_made_one() {
        let of = |from: &str, to: &str| {
            let (from, to) = ends(from, to);
            of_one_family(&from.into(), &to.into()).unwrap()
        };
        assert_eq!(of("[::ffff:1.2.3.4]:1", "[::ffff:5.6.7.8]:2"), ends("1.2.3.4:1", "5.6.7.8:2"));
        assert_eq!(of("1.2.3.4:1", "[::1]:2"), ends("[::ffff:1.2.3.4]:1", "[::1]:2"));
        assert_eq!(of_one_family(&Address::Unnamed, &Address::Unnamed), None);
    }

    /// Nothing that comes makes it fail, or wait for more than the longest header.
    #[test]
    fn no_header_is_longer_than_the_longest() {
        let mut header = write(ProxyVersion::V2, None);
        header[14..].copy_from_slice(&((LONGEST - FIXED) as u16).to_be_bytes());
        assert_eq!(parse(&header), Parsed::Incomplete);
        header[14..].copy_from_slice(&((LONGEST - FIXED + 1) as u16).to_be_bytes());
        assert_eq!(parse(&header), Parsed::Invalid);
        assert_eq!(parse(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat()), Parsed::Invalid);
    }
}
