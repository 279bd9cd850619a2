//! The loops that are compared: each watches the same descriptors and reads what is ready.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::pairs;

/// Room for events, in every loop alike.
pub const CAPACITY: usize = 1_024;

/// One way to watch for reading, level-triggered where it has that.
pub trait Watcher {
    /// Starts watching.
    fn add(&mut self, fd: RawFd);

    /// Stops watching.
    fn remove(&mut self, fd: RawFd);

    /// Waits once (`None`: for ever), calls `visit` for what is ready and says how much it was.
    fn wait(&mut self, timeout: Option<Duration>, visit: impl FnMut(RawFd)) -> usize;
}

/// What is compared of a [`Watcher`]; the calls for each event are compiled into it.
pub trait Contender {
    /// [`Watcher::add`].
    fn watch(&mut self, fd: RawFd);

    /// [`Watcher::remove`].
    fn forget(&mut self, fd: RawFd);

    /// Waits for ever and reads a byte from everything that is ready.
    fn serve(&mut self) -> usize;

    /// Waits for ever and reads nothing.
    fn wait_only(&mut self) -> usize;

    /// Looks without waiting, which clears the kernel's list of what others have read since.
    fn look(&mut self) -> usize;
}

impl<W: Watcher> Contender for W {
    fn watch(&mut self, fd: RawFd) {
        self.add(fd);
    }

    fn forget(&mut self, fd: RawFd) {
        self.remove(fd);
    }

    fn serve(&mut self) -> usize {
        self.wait(None, pairs::read_byte)
    }

    fn wait_only(&mut self) -> usize {
        self.wait(None, |fd| {
            std::hint::black_box(fd);
        })
    }

    fn look(&mut self) -> usize {
        self.wait(Some(Duration::ZERO), |_| ())
    }
}

/// The contenders by name: `raw`, `omnipoll`, `mio` and `polling`, all on epoll.
pub fn by_name(name: &str) -> Option<Box<dyn Contender>> {
    Some(match name {
        "raw" => Box::new(Raw::new()),
        "omnipoll" => Box::new(Omnipoll::new(omnipoll::EngineKind::Epoll)),
        "mio" => Box::new(Mio::new()),
        "polling" => Box::new(Polling::new()),
        _ => return None,
    })
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

    fn control(&self, operation: libc::c_int, fd: RawFd) {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: fd as u64 };
        // SAFETY: `event` lives through the call.
        let result = unsafe { libc::epoll_ctl(self.set.as_raw_fd(), operation, fd, &mut event) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
}

impl Watcher for Raw {
    fn add(&mut self, fd: RawFd) {
        self.control(libc::EPOLL_CTL_ADD, fd);
    }

    fn remove(&mut self, fd: RawFd) {
        self.control(libc::EPOLL_CTL_DEL, fd);
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
    events: omnipoll::Events,
}

impl Omnipoll {
    /// An empty poller on `engine`.
    pub fn new(engine: omnipoll::EngineKind) -> Self {
        let poller = omnipoll::Poller::with_engine(engine).expect("an engine of this machine");
        Self { poller, events: omnipoll::Events::with_capacity(CAPACITY) }
    }
}

impl Watcher for Omnipoll {
    fn add(&mut self, fd: RawFd) {
        self.poller.add(&fd, omnipoll::Interest::READ, fd as u64).expect("a descriptor to watch");
    }

    fn remove(&mut self, fd: RawFd) {
        self.poller.remove(&fd).expect("a watched descriptor");
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

    fn remove(&mut self, fd: RawFd) {
        self.poll.registry().deregister(&mut mio::unix::SourceFd(&fd)).expect("a watched descriptor");
    }

    fn wait(&mut self, timeout: Option<Duration>, mut visit: impl FnMut(RawFd)) -> usize {
        self.poll.poll(&mut self.events, timeout).expect("a wait");
        self.events.iter().inspect(|event| visit(event.token().0 as RawFd)).count()
    }
}

/// polling, told to be level-triggered.
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
        // SAFETY: the descriptors outlive every contender.
        unsafe { self.poller.add_with_mode(fd, event, mode) }.expect("a descriptor to watch");
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
