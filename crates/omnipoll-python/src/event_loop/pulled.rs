//! What has happened in a pulled wait, until it is returned.

use std::io;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::Arc;

use omnipoll::{Address, Datagram, DatagramId, Event, LoopEventKind};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::loop_event::{make, Content, Happened, PyLoopEvent};
use super::pull_buffer::{PullBuffer, BUFFER};
use super::shared::Shared;
use crate::list_builder::ListBuilder;
use crate::methods::error_object;

/// What is kept without the interpreter until the wait returns.
#[derive(Default)]
pub(crate) struct Pulled {
    events: Vec<Kept>,
    /// How many of them have been returned.
    returned: usize,
    /// How many bytes they have.
    length: usize,
    filling: Option<Filling>,
}

/// A buffer that a wait fills.
struct Filling {
    buffer: Arc<PullBuffer>,
    start: *mut u8,
    used: usize,
}

/// The bytes of an event.
enum Piece {
    Buffered(Range<usize>),
    /// The buffer has no room for such a long frame.
    Long(Vec<u8>),
}

pub(super) struct Kept {
    kind: LoopEventKind,
    what: What,
}

enum What {
    /// Of the program's own.
    Own(Event),
    Connection(usize),
    Data(usize, Piece),
    Posted(usize, i64),
    Closed(usize, Option<Reason>),
    Datagram(Box<KeptDatagram>),
    DatagramError(DatagramId, Reason),
}

/// An error, which keeps its words.
struct Reason(io::Error, String);

struct KeptDatagram {
    socket: DatagramId,
    token: u64,
    peer: Address,
    local: Address,
    piece: Piece,
}

impl Reason {
    fn of(error: io::Error) -> Self {
        let words = omnipoll::explain(&error).to_string();
        Self(error, words)
    }
}

impl Kept {
    pub(super) fn own(event: Event) -> Self {
        Self { kind: LoopEventKind::Io, what: What::Own(event) }
    }

    pub(super) fn opened(key: usize, is_outgoing: bool) -> Self {
        let kind = if is_outgoing { LoopEventKind::Connected } else { LoopEventKind::Accepted };
        Self { kind, what: What::Connection(key) }
    }

    pub(super) fn ended(key: usize) -> Self {
        Self { kind: LoopEventKind::Ended, what: What::Connection(key) }
    }

    pub(super) fn drained(key: usize) -> Self {
        Self { kind: LoopEventKind::Drained, what: What::Connection(key) }
    }

    pub(super) fn stopping(key: usize) -> Self {
        Self { kind: LoopEventKind::Stopping, what: What::Connection(key) }
    }

    pub(super) fn timer(key: usize) -> Self {
        Self { kind: LoopEventKind::ConnTimer, what: What::Connection(key) }
    }

    pub(super) fn posted(key: usize, value: i64) -> Self {
        Self { kind: LoopEventKind::ConnPost, what: What::Posted(key, value) }
    }

    pub(super) fn closed(key: usize, error: Option<io::Error>) -> Self {
        Self { kind: LoopEventKind::Closed, what: What::Closed(key, error.map(Reason::of)) }
    }

    pub(super) fn datagram_error(socket: DatagramId, error: io::Error) -> Self {
        Self { kind: LoopEventKind::DatagramError, what: What::DatagramError(socket, Reason::of(error)) }
    }
}

impl Pulled {
    pub(super) fn push(&mut self, kept: Kept) {
        self.events.push(kept);
    }

    pub(super) fn push_data(&mut self, key: usize, data: &[u8]) {
        let piece = self.keep(data);
        self.push(Kept { kind: LoopEventKind::Data, what: What::Data(key, piece) });
    }

    pub(super) fn push_datagram(&mut self, datagram: &Datagram<'_>, data: &[u8]) {
        let kept = KeptDatagram {
            socket: datagram.socket(),
            token: datagram.token(),
            peer: datagram.peer().clone(),
            local: datagram.local(),
            piece: self.keep(data),
        };
        self.push(Kept { kind: LoopEventKind::Datagram, what: What::Datagram(Box::new(kept)) });
    }

    fn keep(&mut self, data: &[u8]) -> Piece {
        self.length += data.len();
        match &mut self.filling {
            Some(filling) if data.len() <= BUFFER - filling.used => Piece::Buffered(filling.keep(data)),
            _ => Piece::Long(data.to_vec()),
        }
    }

    /// Whatever comes first has room, so that a long frame does come.
    #[inline]
    pub(super) fn room(&self) -> usize {
        match self.length {
            0 => usize::MAX,
            length => BUFFER.saturating_sub(length),
        }
    }

    /// Before a wait: the views of the last one's bytes end.
    pub(super) fn begin(&mut self, py: Python<'_>) -> PyResult<()> {
        let filling = match self.filling.take() {
            Some(filling) => filling,
            None => Filling { buffer: Arc::new(PullBuffer::new(py)?), start: null_mut(), used: 0 },
        };
        let filling = self.filling.insert(filling);
        filling.buffer.release_views(py)?;
        filling.start = filling.buffer.start(py);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.returned == self.events.len()
    }

    /// All were returned: room for those of the next wait.
    pub(super) fn forget(&mut self) {
        self.events.clear();
        self.length = 0;
        self.returned = 0;
        if let Some(filling) = &mut self.filling {
            filling.used = 0;
        }
    }

    /// Takes out at most so many events.
    fn next(&mut self, most: usize) -> Vec<Kept> {
        let count = most.min(self.events.len() - self.returned);
        let empty = || Kept { kind: LoopEventKind::Post, what: What::Connection(usize::MAX) };
        let taken = self.events[self.returned..][..count].iter_mut();
        let taken = taken.map(|kept| std::mem::replace(kept, empty())).collect();
        self.returned += count;
        taken
    }

    /// The next events as a list.
    pub(super) fn take<'py>(
        &mut self,
        py: Python<'py>,
        shared: &Shared,
        most: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        let taken = self.next(most);
        let mut list = ListBuilder::new(py, taken.len())?;
        for kept in taken {
            if let Some(event) = self.event(py, shared, kept)? {
                list.push(event);
            }
        }
        list.finish()
    }

    /// `None` when the registration that an event is of has ended.
    fn event(&self, py: Python<'_>, shared: &Shared, kept: Kept) -> PyResult<Option<Py<PyAny>>> {
        let mut content = Content::None;
        let event = match kept.what {
            What::Own(event) => return shared.poller.get().core()?.report(py, &event, make),
            What::Connection(key) => Happened::of_connection(py, shared, kept.kind, key),
            What::Data(key, piece) => {
                content = self.content(py, piece);
                Happened::of_connection(py, shared, kept.kind, key)
            }
            What::Posted(key, value) => {
                Happened { value, ..Happened::of_connection(py, shared, kept.kind, key) }
            }
            What::Closed(key, error) => {
                let event = Happened {
                    error: error.map(|error| reason(py, &error)),
                    ..Happened::of_connection(py, shared, kept.kind, key)
                };
                shared.remove(py, key);
                event
            }
            What::Datagram(datagram) => {
                content = self.content(py, datagram.piece);
                Happened {
                    addresses: Some(Box::new((datagram.peer, datagram.local))),
                    ..Happened::of_datagram(py, shared, kept.kind, datagram.socket, datagram.token)
                }
            }
            What::DatagramError(socket, error) => {
                let token = socket.token().unwrap_or(u64::MAX);
                let error = Some(reason(py, &error));
                Happened { error, ..Happened::of_datagram(py, shared, kept.kind, socket, token) }
            }
        };
        let is_buffered = content.is_buffered();
        let event = Py::new(py, PyLoopEvent::new(py, event, content))?;
        if is_buffered {
            shared.returned.borrow(py).push(event.clone_ref(py));
        }
        Ok(Some(event.into_any()))
    }

    fn content(&self, py: Python<'_>, piece: Piece) -> Content {
        match (piece, &self.filling) {
            (Piece::Buffered(range), Some(filling)) => Content::Buffered(filling.buffer.clone(), range, None),
            (Piece::Long(bytes), _) => Content::Bytes(PyBytes::new(py, &bytes).unbind()),
            (Piece::Buffered(_), None) => Content::None,
        }
    }
}

impl Filling {
    fn keep(&mut self, data: &[u8]) -> Range<usize> {
        let range = self.used..self.used + data.len();
        assert!(range.end <= BUFFER);
        // SAFETY: the buffer has BUFFER bytes from `start` on, and stays where it is until the next `begin`:
        // it is guarded. Nothing reads there: events of earlier waits have copies, and views have ended.
        unsafe { self.start.add(range.start).copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        self.used = range.end;
        range
    }
}

fn reason(py: Python<'_>, reason: &Reason) -> Py<PyAny> {
    let Reason(error, words) = reason;
    match error.raw_os_error() {
        Some(errno) if !words.is_empty() => {
            pyo3::exceptions::PyOSError::new_err((errno, words.clone())).into_value(py).into_any()
        }
        _ => error_object(py, Some(error)).unbind(),
    }
}
