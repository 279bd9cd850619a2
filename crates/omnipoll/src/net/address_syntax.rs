//! The text of addresses, as far as those to listen on and those to connect to are written alike.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use crate::error::fail;
use crate::sys::Address;

/// The part of an internet address before its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// Every address of this machine.
    Any,
    /// A numeric address; IPv6 may have a scope, and then is a name.
    Ip(IpAddr),
    /// A name for the resolver.
    Name(String),
}

/// The length of a unix socket's path, without the zero byte at its end.
pub(super) const MAX_PATH: usize =
    size_of::<libc::sockaddr_un>() - std::mem::offset_of!(libc::sockaddr_un, sun_path) - 1;

/// After `unix:`: the path or the name of a unix socket.
pub(super) fn unix(name: &str) -> io::Result<Address> {
    if name.is_empty() || name == "@" {
        return Err(wrong("unix: takes a path or @ and a name: unix:/run/server, unix:@server"));
    }
    if name.len() > MAX_PATH {
        return Err(wrong("the path or name of the unix socket is too long"));
    }
    if name.contains('\0') {
        return Err(wrong("the path or name of the unix socket contains a zero byte"));
    }
    match name.strip_prefix('@') {
        Some(_) if !cfg!(target_os = "linux") => Err(wrong("only Linux has abstract unix sockets")),
        Some(name) => Ok(Address::unix(format!("\0{name}").as_bytes())),
        None => Ok(Address::unix(name.as_bytes())),
    }
}

/// A host and its port.
pub(super) fn internet(text: &str) -> io::Result<(Host, u16)> {
    let unclosed = || wrong("an IPv6 address is written in brackets, before its port: [::1]:80");
    if text.contains('\0') {
        return Err(wrong("the address contains a zero byte"));
    }
    if text.ends_with(']') || !text.contains(':') {
        return Err(wrong("the address has no port: write host:port"));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(rest) => {
            let ip = rest.strip_suffix(']').ok_or_else(unclosed)?;
            match ip.parse::<Ipv6Addr>() {
                Ok(ip) => Host::Ip(ip.into()),
                // The resolver turns the name of an interface into its number.
                Err(_) if ip.contains(':') && ip.contains('%') => Host::Name(ip.to_owned()),
                Err(_) => return Err(wrong("what is in brackets is no IPv6 address")),
            }
        }
        None if host.contains([':', '[', ']']) => return Err(unclosed()),
        None if host.is_empty() || host == "*" => Host::Any,
        None => host.parse().map_or_else(|_| Host::Name(host.to_owned()), |ip: Ipv4Addr| Host::Ip(ip.into())),
    };
    let port = digits(port).and_then(|port| port.parse().ok());
    Ok((host, port.ok_or_else(|| wrong("the port must be a number from 0 to 65535"))?))
}

/// After `fd:`: the number of a descriptor.
pub(super) fn descriptor(number: &str) -> io::Result<RawFd> {
    let number = digits(number).and_then(|number| number.parse().ok());
    number.ok_or_else(|| wrong("fd: takes the number of a descriptor: fd:3"))
}

/// `parse` alone would take a sign.
pub(super) fn digits(text: &str) -> Option<&str> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text)
}

pub(super) fn wrong(words: &'static str) -> io::Error {
    fail(libc::EINVAL, words)
}
