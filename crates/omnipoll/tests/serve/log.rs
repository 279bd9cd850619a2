//! What a server's handler has been called for, reported to the test's process through a pipe:
//! the calls are made in other threads, and under some models in other processes.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use omnipoll::Conn;

use crate::support::expect::LONG;
use crate::support::{fds, sys};

/// Which call it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callback {
    Open,
    Data,
    End,
    Drain,
    Post,
    Timeout,
    Timer,
    Stop,
    Close,
    WorkerStart,
    WorkerEnd,
    /// One of the program's own.
    Event,
    /// The handler of the test has something to say.
    Value,
}

const CALLBACKS: [Callback; 13] = [
    Callback::Open,
    Callback::Data,
    Callback::End,
    Callback::Drain,
    Callback::Post,
    Callback::Timeout,
    Callback::Timer,
    Callback::Stop,
    Callback::Close,
    Callback::WorkerStart,
    Callback::WorkerEnd,
    Callback::Event,
    Callback::Value,
];

/// A call, and what it was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) callback: Callback,
    /// The client's port.
    pub(crate) port: u16,
    pub(crate) worker: usize,
    pub(crate) process: i32,
    pub(crate) id: u64,
    /// The error's number of a close, the value of a post, the length of data, which timeout.
    pub(crate) value: i64,
}

const WORDS: usize = 6;

impl Entry {
    fn pack(&self) -> [u8; WORDS * 8] {
        let words = [
            self.callback as u64,
            u64::from(self.port),
            self.worker as u64,
            self.process as u64,
            self.id,
            self.value as u64,
        ];
        let mut bytes = [0; WORDS * 8];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn unpack(bytes: &[u8; WORDS * 8]) -> Self {
        let word = |n: usize| u64::from_le_bytes(bytes[n * 8..][..8].try_into().expect("8 bytes"));
        Self {
            callback: CALLBACKS[word(0) as usize],
            port: word(1) as u16,
            worker: word(2) as usize,
            process: word(3) as i32,
            id: word(4),
            value: word(5) as i64,
        }
    }
}

/// The end that is written to. An entry is shorter than what a pipe takes as a whole.
pub(crate) type LogWriter = Arc<File>;

/// The log of one connection's callbacks.
#[derive(Clone)]
pub(crate) struct ConnLog {
    log_writer: LogWriter,
    port: u16,
    worker: usize,
    id: u64,
}

impl ConnLog {
    pub(crate) fn of(conn: &Conn<'_>, log_writer: &LogWriter) -> Self {
        let port = conn.peer().as_socket_addr().map_or(0, |address| address.port());
        Self { log_writer: log_writer.clone(), port, worker: conn.worker(), id: conn.id().number() }
    }

    /// For the calls that are of a worker itself.
    pub(crate) fn of_worker(worker: usize, log_writer: &LogWriter) -> Self {
        Self { worker, ..Self::without_connection(log_writer) }
    }

    /// For what belongs to no connection.
    pub(crate) fn without_connection(log_writer: &LogWriter) -> Self {
        Self { log_writer: log_writer.clone(), port: 0, worker: 0, id: 0 }
    }

    pub(crate) fn record(&self, callback: Callback, value: i64) {
        let Self { port, worker, id, .. } = *self;
        let entry = Entry { callback, port, worker, process: std::process::id() as i32, id, value };
        (&*self.log_writer).write_all(&entry.pack()).expect("the test reads its log");
    }

    /// Passes a number to the test.
    pub(crate) fn value(&self, value: impl TryInto<i64>) {
        self.record(Callback::Value, value.try_into().unwrap_or(i64::MAX));
    }
}

#[derive(Default)]
struct Entries {
    entries: Mutex<Vec<Entry>>,
    more: Condvar,
}

/// All that has been logged so far.
pub(crate) struct Log {
    shared: Arc<Entries>,
    reading: Option<JoinHandle<()>>,
}

impl Log {
    /// The end to write to, and what will read the other: start it in the process of the test.
    pub(crate) fn pipe() -> (LogWriter, File) {
        let (reader, writer) = fds::pipe();
        sys::set_blocking(&reader);
        sys::set_blocking(&writer);
        (Arc::new(writer), reader)
    }

    pub(crate) fn read(mut reader: File) -> Self {
        let shared = Arc::new(Entries::default());
        let writing = shared.clone();
        let reading = thread::spawn(move || {
            let mut bytes = [0; WORDS * 8];
            while reader.read_exact(&mut bytes).is_ok() {
                writing.lock().push(Entry::unpack(&bytes));
                writing.more.notify_all();
            }
        });
        Self { shared, reading: Some(reading) }
    }

    /// Waits for the end of the log: every process that could write to it has ended.
    pub(crate) fn complete(&mut self) {
        self.reading.take().map(JoinHandle::join);
    }

    /// Waits until `found` finds something in the log.
    #[track_caller]
    pub(crate) fn wait_for<T>(&self, what: &str, mut found: impl FnMut(&[Entry]) -> Option<T>) -> T {
        let end = Instant::now() + LONG;
        let mut entries = self.shared.lock();
        loop {
            if let Some(found) = found(&entries) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} was never logged; only {entries:#?}");
            entries = self.shared.more.wait_timeout(entries, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What was logged of a client, so far.
    pub(crate) fn of(&self, port: u16) -> Vec<Entry> {
        self.shared.lock().iter().filter(|entry| entry.port == port).copied().collect()
    }

    pub(crate) fn all(&self) -> Vec<Entry> {
        self.shared.lock().clone()
    }
}

impl Entries {
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
