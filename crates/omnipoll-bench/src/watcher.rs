//! The ways to watch descriptors that `watch` compares.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Room for events, in every loop alike.
pub const CAPACITY: usize = 1_024;

/// What a descriptor is watched for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// It can be read.
    Read,
    /// It can be written.
    Write,
}

/// One way to watch, level-triggered where it has that.
pub trait Watcher {
    /// Starts watching.
    fn add(&mut self, fd: RawFd);

    /// Watches for something else from now on.
    fn change(&mut self, fd: RawFd, wish: Wish);

    /// Stops watching.
    fn remove(&mut self, fd: RawFd);

    /// Waits once (`None`: indefinitely), calls `visit` for what is ready and says how much it was.
    fn wait(&mut self, timeout: Option<Duration>, visit: impl FnMut(RawFd)) -> usize;
}

/// A loop written straight on the system call.
pub struct Raw {
    set: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Raw {
    /// An empty set.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        // SAFETY: takes no pointer, and the number is new.
        let set = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
        Self { set, events: Vec::with_capacity(CAPACITY) }
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, wish: Wish) {
        let events = if wish == Wish::Read { libc::EPOLLIN } else { libc::EPOLLOUT };
        let mut event = libc::epoll_event { events: events as u32, u64: fd as u64 };
        // SAFETY: `event` lives through the call.
        let result = unsafe { libc::epoll_ctl(self.set.as_raw_fd(), operation, fd, &mut event) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
}

impl Watcher for Raw {
    fn add(&mut self, fd: RawFd) {
        self.control(libc::EPOLL_CTL_ADD, fd, Wish::Read);
    }

    fn change(&mut self, fd: RawFd, wish: Wish) {
        self.control(libc::EPOLL_CTL_MOD, fd, wish);
    }

    fn remove(&mut self, fd: RawFd) {
        self.control(libc::EPOLL_CTL_DEL, fd, Wish::Read);
    }

    fn wait(&mut self, timeout: Option<Duration>, mut visit: impl FnMut(RawFd)) -> usize {
        let timeout = timeout.map_or(-1, |timeout| timeout.as_millis() as libc::c_int);
        let events = self.events.as_mut_ptr();
        // SAFETY: `events` has room for CAPACITY of them, and as many as are returned are
        // initialised.
        let count = unsafe {
            let count = libc::epoll_wait(self.set.as_raw_fd(), events, CAPACITY as libc::c_int, timeout);
            let count = usize::try_from(count).expect("epoll_wait");
            self.events.set_len(count);
            count
        };
        for event in &self.events {
            visit(event.u64 as RawFd);
        }
        count
    }
}

/// This library.
pub struct Omnipoll {
    poller: omnipoll::Poller,
    trigger: omnipoll::Trigger,
    events: omnipoll::Events,
}

impl Omnipoll {
    /// An empty poller on `engine`, which will watch by `trigger`.
    pub fn new(engine: omnipoll::EngineKind, trigger: omnipoll::Trigger) -> Self {
        let poller = omnipoll::Poller::with_engine(engine).expect("an engine of this machine");
        Self { poller, trigger, events: omnipoll::Events::with_capacity(CAPACITY) }
    }
}

impl Watcher for Omnipoll {
    fn add(&mut self, fd: RawFd) {
        let interest = omnipoll::Interest::READ | self.trigger;
        self.poller.add_raw(fd, interest, fd as u64).expect("a descriptor to watch");
    }

    fn change(&mut self, fd: RawFd, wish: Wish) {
        let interest = if wish == Wish::Read { omnipoll::Interest::READ } else { omnipoll::Interest::WRITE };
        self.poller.modify_raw(fd, interest | self.trigger, fd as u64).expect("a watched descriptor");
    }

    fn remove(&mut self, fd: RawFd) {
        self.poller.remove_raw(fd).expect("a watched descriptor");
    }

    fn wait(&mut self, timeout: Option<Duration>, mut visit: impl FnMut(RawFd)) -> usize {
        let count = self.poller.wait(&mut self.events, timeout).expect("a wait");
        for event in &self.events {
            visit(event.token() as RawFd);
        }
        count
    }
}

/// mio, which has edges only: each is read empty here, so it does the same work.
pub struct Mio {
    poll: mio::Poll,
    events: mio::Events,
}

impl Mio {
    /// An empty poll.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { poll: mio::Poll::new().expect("an epoll"), events: mio::Events::with_capacity(CAPACITY) }
    }
}

impl Watcher for Mio {
    fn add(&mut self, fd: RawFd) {
        let (mut source, token) = (mio::unix::SourceFd(&fd), mio::Token(fd as usize));
        let registered = self.poll.registry().register(&mut source, token, mio::Interest::READABLE);
        registered.expect("a descriptor to watch");
    }

    fn change(&mut self, fd: RawFd, wish: Wish) {
        let (mut source, token) = (mio::unix::SourceFd(&fd), mio::Token(fd as usize));
        let interest = if wish == Wish::Read { mio::Interest::READABLE } else { mio::Interest::WRITABLE };
        self.poll.registry().reregister(&mut source, token, interest).expect("a watched descriptor");
    }

    fn remove(&mut self, fd: RawFd) {
        self.poll.registry().deregister(&mut mio::unix::SourceFd(&fd)).expect("a watched descriptor");
    }

    fn wait(&mut self, timeout: Option<Duration>, mut visit: impl FnMut(RawFd)) -> usize {
        self.poll.poll(&mut self.events, timeout).expect("a wait");
        self.events.iter().inspect(|event| visit(event.token().0 as RawFd)).count()
    }
}

/// polling, set to be level-triggered.
pub struct Polling {
    poller: polling::Poller,
    events: polling::Events,
}

impl Polling {
    /// An empty poller.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let capacity = CAPACITY.try_into().expect("not zero");
        Self {
            poller: polling::Poller::new().expect("an epoll"),
            events: polling::Events::with_capacity(capacity),
        }
    }
}

impl Watcher for Polling {
    fn add(&mut self, fd: RawFd) {
        let (event, mode) = (polling::Event::readable(fd as usize), polling::PollMode::Level);
        // SAFETY: the descriptors outlive every watcher.
        unsafe { self.poller.add_with_mode(fd, event, mode) }.expect("a descriptor to watch");
    }

    fn change(&mut self, fd: RawFd, wish: Wish) {
        let key = fd as usize;
        let event = match wish {
            Wish::Read => polling::Event::readable(key),
            Wish::Write => polling::Event::writable(key),
        };
        // SAFETY: the descriptor is still open.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        self.poller.modify_with_mode(fd, event, polling::PollMode::Level).expect("a watched descriptor");
    }

    fn remove(&mut self, fd: RawFd) {
        // SAFETY: the descriptor is still open.
        self.poller.delete(unsafe { BorrowedFd::borrow_raw(fd) }).expect("a watched descriptor");
    }

    fn wait(&mut self, timeout: Option<Duration>, mut visit: impl FnMut(RawFd)) -> usize {
        self.events.clear();
        let count = self.poller.wait(&mut self.events, timeout).expect("a wait");
        for event in self.events.iter() {
            visit(event.key as RawFd);
        }
        count
    }
}
