//! A pulled loop with clients.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use omnipoll::{ConnId, EngineKind, LoopEvent, LoopEventKind, LoopOptions, PulledLoop};

use crate::client::with_timeouts;

/// Nothing takes so long unless it is lost.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A loop that listens.
pub(crate) struct Listening {
    pub(crate) event_loop: PulledLoop,
    pub(crate) address: SocketAddr,
    /// Events that were not asked for yet.
    waiting: Vec<LoopEvent>,
}

impl Listening {
    pub(crate) fn new(engine: EngineKind) -> Self {
        Self::with_options(LoopOptions::new().engine(engine))
    }

    pub(crate) fn with_options(options: LoopOptions) -> Self {
        let mut event_loop = PulledLoop::with_options(options).expect("a loop");
        let address = event_loop.listen("127.0.0.1:0", 1).expect("listen").parse().expect("an address");
        Self { event_loop, address, waiting: Vec::new() }
    }

    /// A client, and its connection.
    pub(crate) fn client(&mut self) -> (TcpStream, ConnId) {
        let client = with_timeouts(TcpStream::connect(self.address).expect("connect"));
        let accepted = self.next(LoopEventKind::Accepted);
        assert_eq!(accepted.token(), 1, "the listener's");
        (client, accepted.conn())
    }

    /// Waits for an event of that kind. Those before it are kept for later calls.
    #[track_caller]
    pub(crate) fn next(&mut self, kind: LoopEventKind) -> LoopEvent {
        if let Some(at) = self.waiting.iter().position(|event| event.kind() == kind) {
            return self.waiting.remove(at);
        }
        let begun = Instant::now();
        loop {
            let mut events = [LoopEvent::default(); 64];
            let count = self.event_loop.wait(&mut events, Some(LONG)).expect("wait");
            self.waiting.extend_from_slice(&events[..count]);
            if let Some(at) = self.waiting.iter().position(|event| event.kind() == kind) {
                return self.waiting.remove(at);
            }
            assert!(begun.elapsed() < LONG, "no {kind:?}, but {:?}", self.waiting);
        }
    }

    /// Runs the loop as long as a function of the clients' does.
    pub(crate) fn while_running<T: Send>(&mut self, clients: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let handle = self.event_loop.handle();
            let clients = scope.spawn(move || {
                let result = clients();
                handle.poller().post(0, 0).expect("post");
                result
            });
            self.next(LoopEventKind::Post);
            clients.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
