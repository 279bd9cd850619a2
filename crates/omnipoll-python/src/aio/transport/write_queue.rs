//! What waits to be sent.

use std::collections::VecDeque;
use std::io::IoSlice;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};
use pyo3::{PyTraverseError, PyVisit};

use crate::aio::view::View;

/// As many pieces as one system call takes: `IOV_MAX`.
const PIECES: usize = 1024;

/// What a datagram counts besides its bytes, so that empty ones count too. As in the standard library.
const DATAGRAM_HEADER: usize = 8;

/// What a program gives to be sent.
pub(super) enum Data<'a, 'py> {
    Bytes(&'a Bound<'py, PyBytes>),
    View(View),
}

impl<'a, 'py> Data<'a, 'py> {
    /// # Errors
    ///
    /// `TypeError` for all but `bytes`, `bytearray` and `memoryview`.
    #[inline]
    pub(super) fn new(object: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self::Bytes(bytes));
        }
        if object.is_instance_of::<PyByteArray>() || object.is_instance_of::<PyMemoryView>() {
            return View::new(object).map(Self::View);
        }
        let name = object.get_type().name()?;
        Err(PyTypeError::new_err(format!("data argument must be a bytes-like object, not '{name}'")))
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes(),
            Self::View(view) => view.as_slice(),
        }
    }

    /// Keeps what comes after the first `sent` bytes: by reference what nobody can change, a copy of
    /// the rest of what somebody can.
    pub(super) fn keep(self, py: Python<'py>, sent: usize) -> Piece {
        match self {
            Self::Bytes(bytes) => Piece::new(Kept::Bytes(bytes.clone().unbind()), sent),
            Self::View(view) if view.is_constant() => Piece::new(Kept::View(view), sent),
            Self::View(view) => {
                let copy = PyBytes::new(py, &view.as_slice()[sent..]).unbind();
                Piece::new(Kept::Bytes(copy), 0)
            }
        }
    }
}

enum Kept {
    Bytes(Py<PyBytes>),
    View(View),
}

/// One write, or what is left of it.
pub(super) struct Piece {
    kept: Kept,
    start: usize,
    /// Counted besides the bytes.
    header: usize,
    /// Of a datagram that has one of its own.
    pub(super) address: Option<Py<PyAny>>,
}

impl Piece {
    fn new(kept: Kept, start: usize) -> Self {
        Self { kept, start, header: 0, address: None }
    }

    pub(super) fn for_datagram(self, address: Option<Py<PyAny>>) -> Self {
        Self { header: DATAGRAM_HEADER, address, ..self }
    }

    /// As an object of Python's.
    pub(super) fn object<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match &self.kept {
            Kept::Bytes(bytes) if self.start == 0 => bytes.bind(py).clone().into_any(),
            _ => PyBytes::new(py, self.as_slice(py)).into_any(),
        }
    }

    fn size(&self, py: Python<'_>) -> usize {
        self.as_slice(py).len() + self.header
    }

    pub(super) fn as_slice<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        let whole = match &self.kept {
            Kept::Bytes(bytes) => bytes.as_bytes(py),
            Kept::View(view) => view.as_slice(),
        };
        &whole[self.start..]
    }
}

/// In the order in which it was written. Its size is counted as it changes.
#[derive(Default)]
pub(super) struct WriteQueue {
    pieces: VecDeque<Piece>,
    size: usize,
}

impl WriteQueue {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn push(&mut self, py: Python<'_>, piece: Piece) {
        self.size += piece.size(py);
        self.pieces.push_back(piece);
    }

    /// What one system call can send.
    pub(super) fn slices<'a>(&'a self, py: Python<'a>) -> Vec<IoSlice<'a>> {
        self.pieces.iter().take(PIECES).map(|piece| IoSlice::new(piece.as_slice(py))).collect()
    }

    /// Takes out what was sent. The pieces are to be dropped when nothing is borrowed.
    #[must_use]
    pub(super) fn sent(&mut self, py: Python<'_>, mut bytes: usize) -> Vec<Piece> {
        self.size -= bytes;
        let mut whole = 0;
        while let Some(piece) = self.pieces.get_mut(whole) {
            let len = piece.as_slice(py).len();
            if len > bytes {
                piece.start += bytes;
                break;
            }
            bytes -= len;
            whole += 1;
        }
        self.pieces.drain(..whole).collect()
    }

    /// Takes out the first one, whole.
    pub(super) fn pop(&mut self, py: Python<'_>) -> Option<Piece> {
        let piece = self.pieces.pop_front()?;
        self.size -= piece.size(py);
        Some(piece)
    }

    /// What was taken out is the first again.
    pub(super) fn put_back(&mut self, py: Python<'_>, piece: Piece) {
        self.size += piece.size(py);
        self.pieces.push_front(piece);
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.pieces.iter().try_for_each(|piece| visit.call(&piece.address))
    }
}
