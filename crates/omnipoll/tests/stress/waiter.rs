//! A thread that waits, and handles the events.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::SeqCst;

use omnipoll::{Event, EventKind, Events, Interest, Poller};

use crate::accounting::{Accounting, Seen};
use crate::support::fds::drain;
use crate::WORKERS;

/// The token of the post that ends a waiter.
pub(crate) const STOP: u64 = u64::MAX;

pub(crate) fn run(poller: &Poller, accounting: &Accounting, readers: &[Vec<File>]) -> Seen {
    let mut seen = Seen { posts: vec![Vec::new(); WORKERS] };
    let mut events = Events::with_capacity(7);
    loop {
        let began = accounting.now();
        poller.wait(&mut events, None).expect("wait");
        assert!(!events.is_empty(), "a wait without a timeout returned nothing");
        for event in &events {
            match event.kind() {
                EventKind::Io => serve(poller, accounting, readers, event, began),
                EventKind::Timer => accounting.report(event, began),
                EventKind::Wake => _ = accounting.wakes.fetch_add(event.value() as u64, SeqCst),
                EventKind::Post if event.token() == STOP => {
                    // For the other one.
                    poller.post(STOP, 0).expect("room for a post");
                    return seen;
                }
                EventKind::Post => {
                    seen.posts[event.token() as usize].push(event.value());
                    accounting.posts.fetch_add(1, SeqCst);
                }
                kind => panic!("{kind:?}"),
            }
        }
    }
}

/// Drains the pipe and says so; its worker may have removed it meanwhile.
fn serve(poller: &Poller, accounting: &Accounting, readers: &[Vec<File>], event: &Event, began: u64) {
    accounting.report(event, began);
    let own = &readers[(event.token() >> 32) as usize];
    if let Some(reader) = own.iter().find(|reader| i64::from(reader.as_raw_fd()) == event.value()) {
        drain(reader);
        if let Err(error) = poller.rearm(reader, Interest::READ) {
            assert!(matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)), "rearm: {error}");
        }
    }
}
