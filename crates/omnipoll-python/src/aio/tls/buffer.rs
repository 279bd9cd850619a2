//! `TlsBuffer`: where what arrives is received, and then decrypted.

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyMemoryView};
use pyo3::{ffi, intern};

use crate::aio::view::View;
use crate::gil_cell::GilCell;

/// As much as the standard library receives at once.
const SIZE: usize = 256 * 1024;

/// One for all connections of a loop; not for use by itself.
#[pyclass(frozen, module = "omnipoll._native")]
pub(crate) struct TlsBuffer {
    memory: GilCell<Option<Memory>>,
}

/// Memory that the ssl module writes to and reads from.
pub(super) struct Memory {
    /// A memoryview of it.
    pub(super) whole: Py<PyAny>,
    /// Of the same memory, which therefore stays where it is.
    view: View,
    /// As Python has it.
    pub(super) size: Py<PyAny>,
}

impl Memory {
    fn new(py: Python<'_>) -> PyResult<Self> {
        let bytes = PyByteArray::new_with(py, SIZE, |_| Ok(()))?;
        Self::of(&bytes)
    }

    /// # Errors
    ///
    /// `TypeError` and `BufferError` for an object that has no memory which can be written to.
    pub(super) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let view = View::writable(object)?;
        let size = view.as_slice().len();
        let mut whole = PyMemoryView::from(object)?.into_any();
        if whole.len()? != size {
            // Its items are longer than bytes.
            whole = whole.call_method1(intern!(py, "cast"), ("B",))?;
        }
        Ok(Self { whole: whole.unbind(), view, size: size.into_pyobject(py)?.into_any().unbind() })
    }

    pub(super) fn len(&self) -> usize {
        self.view.as_slice().len()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.view.as_slice()
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.view.as_mut_slice()
    }

    /// A memoryview of a part.
    #[inline]
    pub(super) fn part<'py>(&self, py: Python<'py>, start: usize, end: usize) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the memoryview is alive; the result is a new reference.
        unsafe {
            let part = ffi::PySequence_GetSlice(self.whole.as_ptr(), start as isize, end as isize);
            Bound::from_owned_ptr_or_err(py, part)
        }
    }
}

impl TlsBuffer {
    /// Lends the memory. Code of Python's that runs meanwhile, on a thread too while the ssl module has
    /// released the lock, is lent another one.
    #[inline]
    pub(super) fn lend<R>(
        &self,
        py: Python<'_>,
        body: impl FnOnce(&mut Memory) -> PyResult<R>,
    ) -> PyResult<R> {
        let kept = self.memory.borrow(py).take();
        let mut memory = match kept {
            Some(memory) => memory,
            None => Memory::new(py)?,
        };
        let result = body(&mut memory);
        let other = self.memory.borrow(py).replace(memory);
        drop(other);
        result
    }
}

#[pymethods]
impl TlsBuffer {
    #[new]
    fn new(py: Python<'_>) -> Self {
        Self { memory: GilCell::new(py, None) }
    }
}
