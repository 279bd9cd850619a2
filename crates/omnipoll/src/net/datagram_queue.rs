//! [`DatagramQueue`]: the datagrams that wait to be sent on one socket.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;

use crate::error::{fail, no_memory};
use crate::sys::datagrams::Outgoing;
use crate::sys::Address;

/// What an IPv4 packet has room for, with its header and UDP's.
pub(super) const MAX_LENGTH: usize = 65_507;
/// How many datagrams may wait to be sent.
pub(super) const MAX_WAITING: usize = 1024;
/// How many bytes of them may wait.
pub(super) const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// A datagram that waits, without its bytes.
struct Queued {
    /// `None`: the one that the socket is connected to.
    peer: Option<Address>,
    from: Option<IpAddr>,
    length: usize,
}

/// Datagrams one after another in one buffer.
#[derive(Default)]
pub(super) struct DatagramQueue {
    datagrams: VecDeque<Queued>,
    bytes: Vec<u8>,
    /// Where the first datagram begins.
    start: usize,
}

/// Whether such a datagram can be sent at all.
pub(super) fn check(peer: Option<&Address>, data: &[u8]) -> io::Result<()> {
    if data.len() > MAX_LENGTH {
        return Err(fail(libc::EMSGSIZE, "a datagram has room for 65,507 bytes"));
    }
    if peer.is_some_and(|peer| peer.as_socket_addr().is_none()) {
        return Err(fail(libc::EAFNOSUPPORT, "a datagram can't be sent to a unix socket"));
    }
    Ok(())
}

impl DatagramQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// How many datagrams wait.
    pub(super) fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// The bytes of all of them.
    fn length(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Errors as [`Datagram::send_to`](super::Datagram::send_to).
    pub(super) fn queue(
        &mut self,
        peer: Option<&Address>,
        from: Option<IpAddr>,
        data: &[u8],
    ) -> io::Result<()> {
        check(peer, data)?;
        if self.datagrams.len() == MAX_WAITING || self.length() + data.len() > MAX_WAITING_BYTES {
            return Err(fail(libc::ENOBUFS, "too many datagrams wait to be sent"));
        }
        self.bytes.try_reserve(data.len()).map_err(no_memory)?;
        self.datagrams.try_reserve(1).map_err(no_memory)?;
        self.push(peer, from, data);
        Ok(())
    }

    fn push(&mut self, peer: Option<&Address>, from: Option<IpAddr>, data: &[u8]) {
        // Each byte is moved once at most for each byte sent.
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.datagrams.push_back(Queued { peer: peer.cloned(), from, length: data.len() });
        self.bytes.extend_from_slice(data);
    }

    /// The datagrams in their order.
    pub(super) fn first(&self) -> impl Iterator<Item = Outgoing<'_>> {
        let mut rest = &self.bytes[self.start..];
        self.datagrams.iter().map(move |Queued { peer, from, length }| {
            let (data, after) = rest.split_at(*length);
            rest = after;
            Outgoing { peer: peer.as_ref(), from: *from, data }
        })
    }

    pub(super) fn pop(&mut self, count: usize) {
        self.start += self.datagrams.drain(..count).map(|queued| queued.length).sum::<usize>();
        if self.datagrams.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn the_buffer_does_not_grow_with_what_was_sent() {
        let mut queue = DatagramQueue::default();
        let peer = Address::from(SocketAddr::from(([127, 0, 0, 1], 9)));
        for number in 0..10_000u32 {
            queue.queue(Some(&peer), None, &number.to_ne_bytes()).unwrap();
            if number >= 10 {
                let oldest = (number - 10).to_ne_bytes();
                let first = queue.first().next().map(|first| (first.peer, first.data));
                assert_eq!(first, Some((Some(&peer), &oldest[..])));
                queue.pop(1);
            }
        }
        assert!(queue.bytes.capacity() < 1024);
    }
}
