//! A thread that waits, and serves what it is told.

use std::sync::atomic::Ordering::SeqCst;

use omnipoll::{Event, EventKind, Events, Interest, Poller};

use crate::ledger::{Ledger, Seen};
use crate::support::fds::drain;
use crate::worker::{Pipe, PIPES};
use crate::WORKERS;

/// The token of the post that ends a waiter.
pub(crate) const STOP: u64 = u64::MAX;

pub(crate) fn run(poller: &Poller, ledger: &Ledger, pipes: &[Vec<Pipe>]) -> Seen {
    let mut seen = Seen { posts: vec![Vec::new(); WORKERS] };
    let mut events = Events::with_capacity(7);
    loop {
        let began = ledger.now();
        poller.wait(&mut events, None).expect("wait");
        assert!(!events.is_empty(), "a wait for ever returned nothing");
        for event in &events {
            match event.kind() {
                EventKind::Io => serve(poller, ledger, pipes, event, began),
                EventKind::Timer => ledger.tell(event, began),
                EventKind::Wake => _ = ledger.wakes.fetch_add(event.value() as u64, SeqCst),
                EventKind::Post if event.token() == STOP => {
                    // For the other one.
                    poller.post(STOP, 0).expect("room for a post");
                    return seen;
                }
                EventKind::Post => {
                    seen.posts[event.token() as usize].push(event.value());
                    ledger.posts.fetch_add(1, SeqCst);
                }
                kind => panic!("{kind:?}"),
            }
        }
    }
}

/// Drains the pipe and says so; its worker may have removed it meanwhile.
fn serve(poller: &Poller, ledger: &Ledger, pipes: &[Vec<Pipe>], event: &Event, began: u64) {
    ledger.tell(event, began);
    let fd = event.value() as i32;
    let own = &pipes[(event.token() >> 32) as usize];
    assert_eq!(own.len(), PIPES);
    if let Some(pipe) = own.iter().find(|pipe| pipe.number() == fd) {
        drain(&pipe.reader);
        if let Err(error) = poller.rearm(&pipe.reader, Interest::READ) {
            assert!(matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)), "rearm: {error}");
        }
    }
}
