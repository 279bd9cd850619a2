//! How connections join and leave [`Groups`], and broadcasts to their members.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError};

use super::conn::Conn;
use super::conn_id::ConnId;
use super::groups::{check_name, Groups};
use super::mailbox::Reached;

impl Groups {
    /// Queues `data` on the members of a group that have room for it, all but `except`.
    pub(crate) fn broadcast(
        &self,
        group: &str,
        data: &Arc<Vec<u8>>,
        except: Option<ConnId>,
    ) -> io::Result<Reached> {
        check_name(group)?;
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut reached = Reached::default();
        for ids in state.members.get(group).into_iter().flat_map(BTreeMap::values) {
            let mailbox = ids.first().and_then(|id| id.mailbox().ok());
            let ids = ids.iter().copied().filter(|&id| Some(id) != except);
            if let Some(mailbox) = mailbox {
                reached += mailbox.broadcast_to(ids, data)?;
            }
        }
        Ok(reached)
    }
}

/// Groups.
impl Conn<'_> {
    /// Joins a group of the server's or the loop's, to which
    /// [`ServerHandle::broadcast_to`](crate::ServerHandle::broadcast_to) or
    /// [`LoopHandle::broadcast_to`](crate::LoopHandle::broadcast_to) writes. A name is any text of 1 to 255 bytes. A group exists from its first member to its last; who is in
    /// it already stays in it. A connection leaves all its groups when it ends.
    ///
    /// `EINVAL` for another name, `ENOBUFS` when the connection is in 64 groups, `ESTALE` when it is
    /// closing.
    ///
    /// ```
    /// use omnipoll::{Conn, Handler, Server, ServerHandle};
    /// # use std::io::{self, Read, Write};
    /// use std::sync::OnceLock;
    ///
    /// /// The first byte that a client sends is its room; the rest goes to the others in that room.
    /// #[derive(Default)]
    /// struct Rooms {
    ///     server: OnceLock<ServerHandle>,
    /// }
    ///
    /// impl Handler for Rooms {
    ///     type State = Option<String>;
    ///
    ///     fn on_data(&self, conn: &mut Conn<'_>, room: &mut Option<String>, data: &[u8]) {
    ///         let Some(room) = room else {
    ///             let name = (data[0] as char).to_string();
    ///             if conn.join(&name).is_ok() {
    ///                 *room = Some(name);
    ///             }
    ///             let _ = conn.write(b"in\n");
    ///             return;
    ///         };
    ///         if let Some(server) = self.server.get() {
    ///             let _ = server.broadcast_to(room, data, Some(conn.id()));
    ///         }
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<Option<String>> { Ok(None) }
    /// }
    ///
    /// let server = Server::new(Rooms::default())?;
    /// let _ = server.handler().server.set(server.handle());
    /// # let address = server.listen("127.0.0.1:0")?;
    /// # let handle = server.handle();
    /// # let running = std::thread::spawn(move || server.run());
    /// # let enter = |room: &[u8]| -> io::Result<std::net::TcpStream> {
    /// #     let mut client = std::net::TcpStream::connect(&address)?;
    /// #     client.write_all(room)?;
    /// #     client.read_exact(&mut [0; 3])?;
    /// #     Ok(client)
    /// # };
    /// # let (mut one, mut other, mut third) = (enter(b"a")?, enter(b"a")?, enter(b"b")?);
    /// # one.write_all(b"hello")?;
    /// # let mut answer = [0; 5];
    /// # other.read_exact(&mut answer)?;
    /// # assert_eq!(&answer, b"hello");
    /// # handle.broadcast(b"world")?;
    /// # third.read_exact(&mut answer)?;
    /// # assert_eq!(&answer, b"world");
    /// # drop((one, other, third));
    /// # handle.stop(None)?;
    /// # running.join().unwrap()?;
    /// # Ok::<(), io::Error>(())
    /// ```
    #[doc(alias = "subscribe")]
    pub fn join(&mut self, group: &str) -> io::Result<()> {
        self.context.mailbox.join(self.id(), group)
    }

    /// Leaves a group. Nothing happens if the connection isn't in it.
    ///
    /// `EINVAL` and `ESTALE` as for [`join`](Conn::join).
    #[doc(alias = "unsubscribe")]
    pub fn leave(&mut self, group: &str) -> io::Result<()> {
        self.context.mailbox.leave(self.id(), group)
    }
}

/// Groups.
impl ConnId {
    /// [`Conn::join`](crate::Conn::join), from any thread. `ESTALE` and `EOWNERDEAD` as for `write`.
    pub fn join(self, group: &str) -> io::Result<()> {
        self.mailbox()?.join(self, group)
    }

    /// [`Conn::leave`](crate::Conn::leave), from any thread. `ESTALE` and `EOWNERDEAD` as for `write`.
    pub fn leave(self, group: &str) -> io::Result<()> {
        self.mailbox()?.leave(self, group)
    }
}

#[cfg(test)]
mod tests {
    use super::super::account::Budget;
    use super::super::counters::Counters;
    use super::super::loop_table::{close_mailbox, open_mailbox};
    use super::*;
    use crate::Poller;

    #[test]
    fn a_group_without_members_takes_no_memory() {
        let groups = Arc::<Groups>::default();
        let mailboxes = [(); 2].map(|()| {
            let budget = Budget::new(usize::MAX, usize::MAX, usize::MAX).into();
            let counters = Counters::new(1).unwrap().of(0);
            open_mailbox(0, Arc::new(Poller::new().unwrap()), budget, counters, groups.clone()).unwrap()
        });
        let ids = [(0, 1), (0, 2), (1, 1)].map(|(mailbox, slot)| {
            let (id, _) = mailboxes[mailbox].add(slot);
            id.join("a").and_then(|()| id.join("b")).unwrap();
            (mailbox, id)
        });
        ids[0].1.leave("a").and_then(|()| ids[0].1.leave("b")).unwrap();
        mailboxes[0].remove(ids[1].1);
        assert_eq!(groups.lock().members["a"].len(), 1, "a loop without members is left");
        ids.iter().for_each(|&(mailbox, id)| mailboxes[mailbox].remove(id));
        let state = groups.lock();
        assert!(state.members.is_empty() && state.joined.is_empty(), "{state:?}");
        mailboxes.iter().for_each(|mailbox| close_mailbox(mailbox));
    }
}
