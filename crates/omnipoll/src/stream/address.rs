//! stub
use std::{io, net::SocketAddr, str::FromStr};
pub(crate) struct Address(pub(crate) SocketAddr);
impl FromStr for Address {
    type Err = io::Error;
    fn from_str(s: &str) -> io::Result<Self> {
        s.parse().map(Self).map_err(|_| crate::error::fail(libc::EINVAL, "not an address"))
    }
}
impl Address {
    pub(crate) fn is_datagram(&self) -> bool {
        false
    }
}
