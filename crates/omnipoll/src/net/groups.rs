//! [`Groups`]: the named groups that connections join and leave.
//!
//! One [`Groups`] is shared by all loops that a broadcast reaches. A group exists while it has members;
//! its cost is theirs, and a broadcast's is that of the members it goes to. The lock of the groups is
//! taken before a mailbox's, never while one is held.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use super::conn_id::ConnId;
use crate::error::fail;

/// The most groups that one connection can be in: what clients ask for must not fill the memory.
const MAX_GROUPS: usize = 64;
/// The longest name, in bytes.
const MAX_NAME: usize = 255;

/// The members of a group, by the number of their loop.
pub(super) type Members = BTreeMap<usize, BTreeSet<ConnId>>;

/// Which connections are in which groups.
#[derive(Debug, Default)]
pub(crate) struct Groups(pub(super) RwLock<State>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// By the group's name. None is empty.
    pub(super) members: BTreeMap<Arc<str>, Members>,
    /// The names of the groups that each member is in.
    pub(super) joined: BTreeMap<ConnId, Vec<Arc<str>>>,
}

impl Groups {
    /// Makes a connection a member, if `admit` finds it open.
    pub(super) fn join(
        &self,
        id: ConnId,
        group: &str,
        admit: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        self.admitted(group, admit)?.join(id, group)
    }

    /// Makes a connection no member, if `admit` finds it open.
    pub(super) fn leave(
        &self,
        id: ConnId,
        group: &str,
        admit: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        self.admitted(group, admit)?.leave(id, group);
        Ok(())
    }

    /// The groups, if such a name is one of a group and `admit` has no error while they are locked.
    fn admitted(
        &self,
        group: &str,
        admit: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<RwLockWriteGuard<'_, State>> {
        check_name(group)?;
        let state = self.lock();
        admit()?;
        Ok(state)
    }

    /// A connection leaves all its groups.
    pub(super) fn leave_all(&self, id: ConnId) {
        let mut state = self.lock();
        for group in state.joined.remove(&id).unwrap_or_default() {
            state.remove_member(id, &group);
        }
    }

    pub(super) fn lock(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn join(&mut self, id: ConnId, group: &str) -> io::Result<()> {
        let joined = self.joined.get(&id).map_or(&[][..], Vec::as_slice);
        if joined.iter().any(|name| **name == *group) {
            return Ok(());
        }
        if joined.len() >= MAX_GROUPS {
            return Err(fail(libc::ENOBUFS, "the connection is in 64 groups"));
        }
        let known = self.members.get_key_value(group).map(|(name, _)| name.clone());
        let name = known.unwrap_or_else(|| group.into());
        self.joined.entry(id).or_default().push(name.clone());
        self.members.entry(name).or_default().entry(id.loop_index()).or_default().insert(id);
        Ok(())
    }

    fn leave(&mut self, id: ConnId, group: &str) {
        let Some(joined) = self.joined.get_mut(&id) else { return };
        let Some(place) = joined.iter().position(|name| **name == *group) else { return };
        joined.swap_remove(place);
        if joined.is_empty() {
            self.joined.remove(&id);
        }
        self.remove_member(id, group);
    }

    /// Removes what is empty then, too.
    fn remove_member(&mut self, id: ConnId, group: &str) {
        let Some(members) = self.members.get_mut(group) else { return };
        let Some(ids) = members.get_mut(&id.loop_index()) else { return };
        ids.remove(&id);
        if ids.is_empty() {
            members.remove(&id.loop_index());
        }
        if members.is_empty() {
            self.members.remove(group);
        }
    }
}

pub(super) fn check_name(group: &str) -> io::Result<()> {
    match group.len() {
        1..=MAX_NAME => Ok(()),
        _ => Err(fail(libc::EINVAL, "the name of a group has 1 to 255 bytes")),
    }
}
