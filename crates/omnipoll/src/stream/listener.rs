//! stub
use super::{Address, Peer};
use std::{io, net::TcpListener, os::fd::*};
#[derive(Debug)]
pub(crate) struct Listener(TcpListener);
impl Listener {
    pub(crate) fn open(a: &Address, _: i32, _: bool) -> io::Result<Vec<Self>> {
        let l = TcpListener::bind(a.0)?;
        l.set_nonblocking(true)?;
        crate::engine::socket::no_delay(l.as_fd())?;
        Ok(vec![Self(l)])
    }
    pub(crate) fn sibling(&self, _: i32) -> io::Result<Self> {
        self.try_clone()
    }
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
    pub(crate) fn is_tcp(&self) -> bool {
        true
    }
    pub(crate) fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }
    pub(crate) fn accept(&self) -> io::Result<(OwnedFd, Peer)> {
        crate::engine::socket::accept(self.0.as_fd())
    }
}
impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
