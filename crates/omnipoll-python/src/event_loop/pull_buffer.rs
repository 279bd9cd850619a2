//! [`PullBuffer`]: the bytes of the events of one wait, and the views of them that a program has.
//!
//! They lie in a bytearray: in the stable ABI of 3.9 no class of a module's own can lend its memory and know
//! when that is over. A bytearray knows, and can't be resized meanwhile.

use std::ops::Range;

use pyo3::exceptions::PyBufferError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PySlice};

use crate::gil_cell::GilCell;

/// How many bytes there is room for: a few reads of the longest kind. What is beyond stays unread.
pub(super) const BUFFER: usize = 256 << 10;

/// One more, which is never used: see [`PullBuffer::check_is_free`].
const SIZE: usize = BUFFER + 1;

/// Of a loop, and of the events of its last wait.
pub(super) struct PullBuffer {
    bytes: Py<PyByteArray>,
    views: GilCell<Views>,
}

struct Views {
    /// While there is this one it can't be resized.
    guard: Py<PyAny>,
    /// The program's, of the last wait's events.
    exported: Vec<Py<PyAny>>,
    /// Something may have been made of them.
    is_exported: bool,
}

impl PullBuffer {
    pub(super) fn new(py: Python<'_>) -> PyResult<Self> {
        let bytes = PyByteArray::new_with(py, SIZE, |_| Ok(()))?;
        let views = Views { guard: view_of(&bytes)?.unbind(), exported: Vec::new(), is_exported: false };
        Ok(Self { bytes: bytes.unbind(), views: GilCell::new(py, views) })
    }

    /// Where it begins, until the next wait; for [`BUFFER`] bytes.
    pub(super) fn start(&self, py: Python<'_>) -> *mut u8 {
        self.bytes.bind(py).data()
    }

    pub(super) fn copy<'py>(&self, py: Python<'py>, range: Range<usize>) -> Bound<'py, PyBytes> {
        // SAFETY: no Python runs while there is the slice, and only waits write to it.
        PyBytes::new(py, unsafe { &self.bytes.bind(py).as_bytes()[range] })
    }

    /// A read-only view, until the next wait.
    pub(super) fn view<'py>(&self, py: Python<'py>, range: Range<usize>) -> PyResult<Bound<'py, PyAny>> {
        let slice = PySlice::new(py, range.start as isize, range.end as isize, 1);
        let view = view_of(self.bytes.bind(py))?.get_item(slice)?;
        let mut views = self.views.borrow(py);
        views.exported.push(view.clone().unbind());
        views.is_exported = true;
        drop(views);
        Ok(view)
    }

    /// Releases the views: the bytes of the next wait take the place of these. `BufferError` while something
    /// that was made of one still uses them.
    pub(super) fn release_views(&self, py: Python<'_>) -> PyResult<()> {
        while let Some(view) = self.last_exported(py) {
            release(&view).map_err(in_use)?;
            let released = self.views.borrow(py).exported.pop();
            drop(released);
        }
        if self.views.borrow(py).is_exported {
            self.check_is_free(py)?;
            self.views.borrow(py).is_exported = false;
        }
        Ok(())
    }

    fn last_exported<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.views.borrow(py).exported.last().map(|view| view.bind(py).clone())
    }

    /// A bytearray with views refuses to be resized. The guard is away for this moment.
    fn check_is_free(&self, py: Python<'_>) -> PyResult<()> {
        let bytes = self.bytes.bind(py);
        let guard = self.views.borrow(py).guard.clone_ref(py);
        release(guard.bind(py))?;
        let resized = bytes.resize(BUFFER).and_then(|()| bytes.resize(SIZE));
        let guard = view_of(bytes)?.unbind();
        let released = std::mem::replace(&mut self.views.borrow(py).guard, guard);
        drop(released);
        resized.map_err(in_use)
    }
}

/// A read-only view of all of it.
pub(super) fn view_of<'py>(bytes: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    PyMemoryView::from(bytes)?.call_method0(intern!(bytes.py(), "toreadonly"))
}

fn release(view: &Bound<'_, PyAny>) -> PyResult<()> {
    view.call_method0(intern!(view.py(), "release")).map(drop)
}

fn in_use(_: PyErr) -> PyErr {
    PyBufferError::new_err(
        "something that was made of a view of the last wait still uses its bytes, such as a slice or an array: \
         release it, or make it of data",
    )
}
