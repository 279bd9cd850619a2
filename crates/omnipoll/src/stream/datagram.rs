//! stub
use super::{Address, Count};
use crate::Poller;
use std::{io, os::fd::*};
/// stub
#[derive(Debug)]
pub struct Datagram<'a>(&'a ());
#[derive(Debug)]
pub(crate) struct DatagramSocket(OwnedFd);
impl DatagramSocket {
    pub(crate) fn bind(_: &Address) -> io::Result<Self> {
        Err(io::Error::from_raw_os_error(38))
    }
    pub(crate) fn address(&self) -> String {
        String::new()
    }
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
    pub(crate) fn receive(&mut self, _: &Count, _f: impl FnMut(&mut Datagram<'_>, &[u8])) -> io::Result<()> {
        Ok(())
    }
    pub(crate) fn flush(&mut self, _: &Count) -> io::Result<()> {
        Ok(())
    }
    pub(crate) fn watch(&mut self, _: &Poller, _: u64) -> io::Result<()> {
        Ok(())
    }
}
impl AsRawFd for DatagramSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
