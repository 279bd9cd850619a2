//! A pulled loop that connects.

use std::time::{Duration, Instant};

use omnipoll::{
    explain, ConnId, ConnectOptions, EngineKind, LoopEvent, LoopEventKind, LoopOptions, PulledLoop,
};

use crate::support::expect::LONG;

/// The time limit of a connect that must not end before it.
pub(crate) const SHORT: Duration = Duration::from_millis(100);

pub(crate) struct Outgoing {
    pub(crate) event_loop: PulledLoop,
    /// Events that were not asked for yet.
    waiting: Vec<LoopEvent>,
}

/// How a connection has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) errno: i32,
    pub(crate) words: String,
}

impl Outgoing {
    pub(crate) fn new(engine: EngineKind) -> Self {
        let event_loop = PulledLoop::with_options(LoopOptions::new().engine(engine)).expect("a loop");
        Self { event_loop, waiting: Vec::new() }
    }

    #[track_caller]
    pub(crate) fn connect(&mut self, address: &str) -> ConnId {
        self.connect_with(address, &ConnectOptions::new())
    }

    #[track_caller]
    pub(crate) fn connect_with(&mut self, address: &str, options: &ConnectOptions) -> ConnId {
        self.event_loop.connect(address, options, 7).expect("a connect that is tried")
    }

    /// Waits for the next event of that connection.
    #[track_caller]
    pub(crate) fn next(&mut self, id: ConnId) -> LoopEvent {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.waiting.iter().position(|event| event.conn() == id) {
                return self.waiting.remove(at);
            }
            assert!(begun.elapsed() < LONG, "nothing of {id}, but {:?}", self.waiting);
            self.wait(LONG);
        }
    }

    /// Waits once. Of what an event has only its words are kept: the next wait takes its bytes.
    pub(crate) fn wait(&mut self, limit: Duration) {
        let mut events = [LoopEvent::default(); 64];
        let count = self.event_loop.wait(&mut events, Some(limit)).expect("wait");
        self.waiting.extend_from_slice(&events[..count]);
    }

    #[track_caller]
    pub(crate) fn connected(&mut self, id: ConnId) {
        let event = self.next(id);
        let ended = self.event_loop.data(&event).to_vec();
        assert_eq!(event.kind(), LoopEventKind::Connected, "{}", String::from_utf8_lossy(&ended));
        assert_eq!(event.token(), 7);
    }

    /// Waits for the end of a connection that was never connected.
    #[track_caller]
    pub(crate) fn failed(&mut self, id: ConnId) -> Ended {
        let event = self.next(id);
        assert_eq!((event.kind(), event.token()), (LoopEventKind::Closed, 7));
        let words = String::from_utf8(self.event_loop.data(&event).to_vec()).expect("words");
        let error = event.error().expect("an error");
        assert!(!words.is_empty(), "{}", explain(&error));
        // Nobody reaches it any more.
        assert_eq!(id.write(b"x").unwrap_err().raw_os_error(), Some(libc::ESTALE));
        Ended { errno: error.raw_os_error().expect("an errno"), words }
    }

    /// Connects, which must fail.
    #[track_caller]
    pub(crate) fn fails(&mut self, address: &str) -> Ended {
        let id = self.connect(address);
        self.failed(id)
    }

    /// What there is no such address or option for, at once.
    #[track_caller]
    pub(crate) fn is_refused(&mut self, address: &str, options: &ConnectOptions) -> Ended {
        let error = self.event_loop.connect(address, options, 7).expect_err("no connect");
        Ended { errno: error.raw_os_error().expect("an errno"), words: explain(&error) }
    }
}
