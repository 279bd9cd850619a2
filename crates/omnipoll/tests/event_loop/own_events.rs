//! Events of the program's own, on the loop's poller.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use omnipoll::{EngineKind, Interest, LoopEventKind};

use crate::running::Listening;
use crate::suite::Suite;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(every_kind_comes_with_its_token);
    suite.on_each_engine(tokens_of_the_loop_are_refused);
    suite.on_each_engine(descriptors_of_the_loop_are_left_alone);
}

fn every_kind_comes_with_its_token(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let poller = listening.event_loop.poller().clone();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    // Pointers, and the highest that is left.
    let tokens = [0, 1, 0x7fff_0000_1234, 0xffff_ffff_7fff_ffff];
    for token in tokens {
        poller.timer_add(Duration::from_millis(1), None, token).unwrap();
        assert_eq!(listening.next(LoopEventKind::Timer).token(), token);
        poller.post(token, -5).unwrap();
        let posted = listening.next(LoopEventKind::Post);
        assert_eq!((posted.token(), posted.value()), (token, -5));
        poller.add(&ours, Interest::READ, token).unwrap();
        theirs.write_all(b"x").unwrap();
        let ready = listening.next(LoopEventKind::Io);
        assert_eq!((ready.token(), ready.fd()), (token, ours.as_raw_fd()));
        assert!(ready.ready().contains(omnipoll::Ready::READ));
        std::io::Read::read_exact(&mut &ours, &mut [0]).unwrap();
        poller.remove(&ours).unwrap();
        poller.signal_add(libc::SIGUSR1, token).unwrap();
        // SAFETY: the poller handles it.
        unsafe { libc::raise(libc::SIGUSR1) };
        let signal = listening.next(LoopEventKind::Signal);
        assert_eq!((signal.token(), signal.value()), (token, i64::from(libc::SIGUSR1)));
        poller.signal_remove(libc::SIGUSR1).unwrap();
    }
    let child = std::process::Command::new("true").spawn().unwrap();
    poller.child_add(child.id() as i32, 9).unwrap();
    let ended = listening.next(LoopEventKind::Child);
    assert_eq!((ended.token(), ended.value()), (9, 0));
}

fn tokens_of_the_loop_are_refused(engine: EngineKind) {
    let listening = Listening::new(engine);
    let poller = listening.event_loop.poller();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    for token in [0xffff_ffff_8000_0000, u64::MAX] {
        for refused in [
            poller.add(&ours, Interest::READ, token),
            poller.timer_add(Duration::ZERO, None, token).map(drop),
            poller.timer_add_at(std::time::SystemTime::now(), token).map(drop),
            poller.signal_add(libc::SIGUSR1, token),
            poller.child_add(1, token),
            poller.post(token, 0),
        ] {
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
    }
}

fn descriptors_of_the_loop_are_left_alone(engine: EngineKind) {
    let mut listening = Listening::new(engine);
    let (client, id) = listening.client();
    let number = listening.event_loop.conn(id).unwrap().socket().as_raw_fd();
    let poller = listening.event_loop.poller().clone();
    // Where a ring receives it is not registered at all.
    let refused = [libc::EPERM, libc::ENOENT];
    for result in [
        poller.remove_raw(number),
        poller.modify_raw(number, Interest::WRITE, 3),
        poller.rearm_raw(number, Interest::READ),
    ] {
        assert!(refused.contains(&result.unwrap_err().raw_os_error().unwrap()));
    }
    (&client).write_all(b"still here").unwrap();
    let data = listening.next(LoopEventKind::Data);
    assert_eq!(&*listening.event_loop.data(&data), b"still here");
}
