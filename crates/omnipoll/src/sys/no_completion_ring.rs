//! Where there is no io_uring there is no ring: a type without a value.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use super::Address;

#[derive(Debug)]
pub(crate) enum CompletionRing {}

#[derive(Debug)]
pub(crate) enum Chunk {}

pub(crate) enum Completion {
    Accepted { key: usize, result: io::Result<(OwnedFd, Address)>, more: bool },
    Received { key: usize, result: io::Result<Chunk>, more: bool },
    Sent { key: usize, result: io::Result<usize>, bytes: Vec<u8>, sent: usize },
    Readable,
}

impl Chunk {
    pub(crate) fn length(&self) -> usize {
        match *self {}
    }

    pub(crate) fn is_partial(&self) -> bool {
        match *self {}
    }
}

impl CompletionRing {
    pub(crate) fn is_available() -> io::Result<bool> {
        Ok(false)
    }

    pub(crate) fn new() -> io::Result<Self> {
        Err(crate::error::plain(libc::ENOSYS))
    }

    pub(crate) fn accept(&mut self, _: BorrowedFd<'_>, _: usize) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn cancel_accept(&mut self, _: usize) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn receive(&mut self, _: BorrowedFd<'_>, _: usize) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn cancel_receive(&mut self, _: usize) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn send(&mut self, _: BorrowedFd<'_>, _: usize, _: Vec<u8>, _: usize) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn cancel_send(&mut self, _: usize) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn watch(&mut self, _: RawFd) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn wait(&mut self, _: Option<Duration>) -> io::Result<bool> {
        match *self {}
    }

    pub(crate) fn next(&mut self) -> Option<Completion> {
        match *self {}
    }

    pub(crate) fn bytes(&self, _: &Chunk) -> &[u8] {
        match *self {}
    }

    pub(crate) fn recycle(&mut self, _: Chunk) {
        match *self {}
    }
}
