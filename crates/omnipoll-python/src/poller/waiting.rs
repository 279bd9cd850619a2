//! Poller.wait().

use std::ffi::CStr;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::PyPoller;
use crate::convert::{self, Timeout};
use crate::event;
use crate::fastcall::{Argument, Method};

impl Method<2> for PyPoller {
    type Class = Self;
    const METHOD: &'static CStr = c"wait";
    const ARGUMENTS: [&'static str; 2] = ["timeout", "max_events"];
    const DOCUMENTATION: &'static CStr = c"wait($self, /, timeout=None, max_events=None)
--

Waits until something is ready and returns the events as a list, empty when time was up.

timeout: seconds, with fractions down to a nanosecond, and never early; None waits indefinitely, 0
looks and returns. max_events: at most so many, and at least one; what else is ready is returned by
the waits that follow. Without it there is room for every descriptor and 1,000 others.

Other threads run meanwhile. A signal's handler runs at once; the wait then continues with the
time that is left, unless the handler raised an exception (Ctrl-C does).

Raises ValueError for a negative timeout or one that is no number, and when the poller is
closed, also while it waits; OverflowError for a timeout of more than 292 years; OSError
(EOWNERDEAD) in a forked child that has not called after_fork().";

    fn call<'py>(
        this: &Bound<'py, Self>,
        [timeout, max_events]: [Argument<'_, 'py>; 2],
    ) -> PyResult<Bound<'py, PyAny>> {
        let timeout = match convert::timeout(timeout)? {
            Timeout::Negative => {
                return Err(PyValueError::new_err("timeout must not be negative: None waits indefinitely"))
            }
            timeout => timeout.duration(),
        };
        // What is less than one event is no room.
        let most = max_events.map(|most| most.extract::<isize>()).transpose()?;
        let most = most.map(|most| usize::try_from(most).unwrap_or(0));
        let events = this.get().core.get()?.call(|core| core.wait(this.py(), timeout, most, event::make))?;
        events.map(Bound::into_any).ok_or_else(convert::closed)
    }
}
