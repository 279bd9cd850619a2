//! What a server's handler has been called for, told to the process of the test through a pipe:
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
pub(crate) enum What {
    Open,
    Data,
    End,
    Drain,
    Post,
    Stop,
    Close,
    /// The handler of the test has something to say.
    Said,
}

const EVERY: [What; 8] =
    [What::Open, What::Data, What::End, What::Drain, What::Post, What::Stop, What::Close, What::Said];

/// A call, and what it was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) what: What,
    /// The client's port.
    pub(crate) port: u16,
    pub(crate) worker: usize,
    pub(crate) process: i32,
    pub(crate) id: u64,
    /// The error's number of a close, the value of a post, the length of data.
    pub(crate) value: i64,
}

const WORDS: usize = 6;

impl Entry {
    fn pack(&self) -> [u8; WORDS * 8] {
        let words = [
            self.what as u64,
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
            what: EVERY[word(0) as usize],
            port: word(1) as u16,
            worker: word(2) as usize,
            process: word(3) as i32,
            id: word(4),
            value: word(5) as i64,
        }
    }
}

/// The end that is written to. An entry is shorter than what a pipe takes as a whole.
pub(crate) type Pen = Arc<File>;

/// What one connection's calls are told with.
#[derive(Clone)]
pub(crate) struct Note {
    pen: Pen,
    port: u16,
    worker: usize,
    id: u64,
}

impl Note {
    pub(crate) fn of(conn: &Conn<'_>, pen: &Pen) -> Self {
        let port = conn.peer().as_socket_addr().map_or(0, |address| address.port());
        Self { pen: pen.clone(), port, worker: conn.worker(), id: conn.id().number() }
    }

    /// For what is no connection's.
    pub(crate) fn of_nobody(pen: &Pen) -> Self {
        Self { pen: pen.clone(), port: 0, worker: 0, id: 0 }
    }

    pub(crate) fn tell(&self, what: What, value: i64) {
        let Self { port, worker, id, .. } = *self;
        let entry = Entry { what, port, worker, process: std::process::id() as i32, id, value };
        (&*self.pen).write_all(&entry.pack()).expect("the test reads its log");
    }

    /// Says a number to the test.
    pub(crate) fn say(&self, value: impl TryInto<i64>) {
        self.tell(What::Said, value.try_into().unwrap_or(i64::MAX));
    }
}

#[derive(Default)]
struct Pages {
    entries: Mutex<Vec<Entry>>,
    more: Condvar,
}

/// All that has been told so far.
pub(crate) struct Log {
    pages: Arc<Pages>,
    reading: Option<JoinHandle<()>>,
}

impl Log {
    /// The end to write to, and what will read the other: start it in the process of the test.
    pub(crate) fn pipe() -> (Pen, File) {
        let (reader, writer) = fds::pipe();
        sys::set_blocking(&reader);
        sys::set_blocking(&writer);
        (Arc::new(writer), reader)
    }

    pub(crate) fn read(mut reader: File) -> Self {
        let pages = Arc::new(Pages::default());
        let writing = pages.clone();
        let reading = thread::spawn(move || {
            let mut bytes = [0; WORDS * 8];
            while reader.read_exact(&mut bytes).is_ok() {
                writing.lock().push(Entry::unpack(&bytes));
                writing.more.notify_all();
            }
        });
        Self { pages, reading: Some(reading) }
    }

    /// Waits for the end of what is told: all who could tell something have ended.
    pub(crate) fn complete(&mut self) {
        self.reading.take().map(JoinHandle::join);
    }

    /// Waits until `found` finds something in what was told.
    #[track_caller]
    pub(crate) fn wait_for<T>(&self, what: &str, mut found: impl FnMut(&[Entry]) -> Option<T>) -> T {
        let end = Instant::now() + LONG;
        let mut entries = self.pages.lock();
        loop {
            if let Some(found) = found(&entries) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} was never told; only {entries:#?}");
            entries = self.pages.more.wait_timeout(entries, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What was told of a client, so far.
    pub(crate) fn of(&self, port: u16) -> Vec<Entry> {
        self.pages.lock().iter().filter(|entry| entry.port == port).copied().collect()
    }

    pub(crate) fn all(&self) -> Vec<Entry> {
        self.pages.lock().clone()
    }
}

impl Pages {
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
