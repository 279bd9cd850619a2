//! A ring's receives, and its descriptor in an outer loop.

use std::io::Write;
use std::os::unix::net::UnixStream;

use super::*;
use crate::sys::{poll, OuterSet};

fn is_readable(set: &OuterSet, timeout: Option<Duration>) -> bool {
    let mut entry = libc::pollfd { fd: set.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    poll::poll(std::slice::from_mut(&mut entry), timeout).unwrap() == 1
}

#[test]
#[cfg_attr(miri, ignore = "it has no io_uring")]
fn it_is_readable_while_there_is_something_to_take() {
    if !CompletionRing::is_available().unwrap() {
        return;
    }
    let mut ring = CompletionRing::new(None).unwrap();
    let set = OuterSet::new().unwrap();
    set.add(ring.embed().unwrap()).unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    for _ in 0..100 {
        ring.receive(ours.as_fd(), 3).unwrap();
        assert!(!ring.arm().unwrap());
        assert!(!is_readable(&set, Some(Duration::ZERO)));
        thread::scope(|scope| {
            scope.spawn(|| theirs.write_all(b"x").unwrap());
            assert!(is_readable(&set, Some(Duration::from_secs(2))));
        });
        assert!(ring.wait(Some(Duration::ZERO)).unwrap());
        while let Some(Completion::Received { result, .. }) = ring.next() {
            ring.recycle(result.unwrap());
        }
        ring.cancel_receive(3).unwrap();
        while ring.in_flight > 0 && ring.wait(Some(Duration::from_secs(1))).unwrap() {
            while ring.next().is_some() {}
        }
        assert!(!ring.arm().unwrap());
        assert!(!is_readable(&set, Some(Duration::ZERO)));
    }
}

#[test]
#[cfg_attr(miri, ignore = "it has no io_uring")]
fn a_receive_is_bounded_with_and_without_caps() {
    if !CompletionRing::is_available().unwrap() {
        return;
    }
    let mut ring = CompletionRing::new(None).unwrap();
    for is_capped in [false, ring.is_capped] {
        ring.is_capped = is_capped;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[7; 160 * 1024]).unwrap();
        ring.receive(ours.as_fd(), 3).unwrap();
        let mut more = true;
        let mut total = 0;
        while more && ring.wait(None).unwrap() {
            while let Some(done) = ring.next() {
                let Completion::Received { key: 3, result: Ok(chunk), more: again } = done else {
                    panic!("{done:?}")
                };
                total += chunk.length();
                ring.recycle(chunk);
                more = again;
            }
        }
        assert_eq!(total, BUFFER, "capped: {is_capped}");
    }
}
