//! [`DatagramQueue`]: the datagrams that wait to be sent on one socket.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;

use crate::error::{fail, no_memory};
use crate::sys::datagrams::Outgoing;
use crate::sys::Address;

/// What an IPv4 packet has room for, with its header and UDP's.
pub(super) const MAX_LENGTH: usize = 65_507;
/// `UDP_MAX_SEGMENTS` of linux/udp.h.
const MAX_SEGMENTS: usize = 64;
/// The longest datagram of a train: longer ones the kernel would have to cut, which it refuses in a train.
const MAX_SEGMENT: usize = 1452;
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

impl Queued {
    /// Whether it can be sent with those from `first` on, which have `total` bytes.
    fn continues(&self, first: &Self, total: usize) -> bool {
        (1..=first.length).contains(&self.length)
            && total + self.length <= MAX_LENGTH
            && self.peer == first.peer
            && self.from == first.from
    }
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

    /// The datagrams in their order; if `in_trains`, those of one length to one peer as one.
    pub(super) fn first(&self, in_trains: bool) -> impl Iterator<Item = Outgoing<'_>> {
        let (mut rest, mut queued) = (&self.bytes[self.start..], self.datagrams.iter().peekable());
        let longest = if in_trains { MAX_SEGMENTS } else { 1 };
        std::iter::from_fn(move || {
            let first = queued.next()?;
            let (mut total, mut last, mut count) = (first.length, first.length, 1);
            while count < longest && last == first.length && (1..=MAX_SEGMENT).contains(&last) {
                let Some(next) = queued.next_if(|next| next.continues(first, total)) else { break };
                (total, last, count) = (total + next.length, next.length, count + 1);
            }
            let (data, after) = rest.split_at(total);
            rest = after;
            let segment = (count > 1).then_some(first.length as u16);
            Some(Outgoing { peer: first.peer.as_ref(), from: first.from, data, segment })
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
                let first = queue.first(false).next().map(|first| (first.peer, first.data));
                assert_eq!(first, Some((Some(&peer), &oldest[..])));
                queue.pop(1);
            }
        }
        assert!(queue.bytes.capacity() < 1024);
    }

    #[test]
    fn datagrams_of_one_length_to_one_peer_are_a_train() {
        let mut queue = DatagramQueue::default();
        let [one, other] = [1, 2].map(|port| Address::from(SocketAddr::from(([127, 0, 0, 1], port))));
        let here = Some(IpAddr::from([127, 0, 0, 1]));
        let long = MAX_SEGMENT + 1;
        let queued = [
            (&one, None, 5),
            (&one, None, 5),
            (&one, None, 3),
            // The one before is the last of its train, since it is shorter.
            (&one, None, 3),
            (&one, None, 4),
            (&other, None, 4),
            (&other, here, 4),
            (&other, here, 4),
            (&other, here, 0),
            (&other, here, 0),
            (&one, None, long),
            (&one, None, long),
        ];
        for (peer, from, length) in queued {
            queue.queue(Some(peer), from, &vec![b'x'; length]).unwrap();
        }
        let of = |in_trains| -> Vec<_> {
            queue.first(in_trains).map(|it| (it.data.len(), it.segment, it.count())).collect()
        };
        let single = |length| (length, None, 1);
        let expected = [
            (13, Some(5), 3),
            single(3),
            single(4),
            single(4),
            (8, Some(4), 2),
            single(0),
            single(0),
            single(long),
            single(long),
        ];
        assert_eq!(of(true), expected);
        assert_eq!(of(false), queued.map(|(_, _, length)| single(length)));

        queue.pop(queued.len());
        (0..100).for_each(|_| queue.queue(Some(&one), None, &[b'x'; 1000]).unwrap());
        let counts: Vec<_> = queue.first(true).map(|train| train.count()).collect();
        assert_eq!(counts, [64, 36]);
        (0..100).for_each(|_| queue.queue(Some(&other), None, &[b'x'; 1400]).unwrap());
        assert!(queue.first(true).all(|train| train.data.len() <= MAX_LENGTH));
    }
}
