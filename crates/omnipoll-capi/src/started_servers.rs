//! The servers that this thread has started, to be run step by step.

use std::cell::RefCell;
use std::panic::{catch_unwind, AssertUnwindSafe};

use omnipoll::StartedServer;

use crate::server_handler::Callbacks;

pub(crate) type Started = StartedServer<Callbacks>;

thread_local! {
    /// By their handles, but for one that is in a step.
    static STARTED: RefCell<Vec<(usize, Started)>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn take(server: usize) -> Option<Started> {
    STARTED.with_borrow_mut(|all| {
        let place = all.iter().position(|(handle, _)| *handle == server)?;
        Some(all.swap_remove(place).1)
    })
}

pub(crate) fn keep(server: usize, started: Started) {
    STARTED.with_borrow_mut(|all| all.push((server, started)));
}

/// Ends a server that this thread has started, unless it is in a step.
pub(crate) fn forget(server: usize) {
    let ended = take(server);
    let _ = catch_unwind(AssertUnwindSafe(|| drop(ended)));
}
