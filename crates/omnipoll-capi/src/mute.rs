//! Where strict mode's findings are not reported.

use std::cell::Cell;

thread_local! {
    static MUTED: Cell<bool> = const { Cell::new(false) };
}

/// Runs something in which no callback of `omni_poller_on_finding` is called: it may drop pollers
/// whose callbacks' contexts are gone.
pub(crate) fn muted<T>(body: impl FnOnce() -> T) -> T {
    MUTED.set(true);
    let result = body();
    MUTED.set(false);
    result
}

/// Whether this thread is inside of [`muted`].
pub(crate) fn is_muted() -> bool {
    MUTED.get()
}
