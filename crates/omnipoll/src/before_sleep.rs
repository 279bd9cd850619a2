//! What the runtime of a language does after a spin, before the sleep that follows.

use std::io;
use std::sync::OnceLock;

type Hook = fn() -> io::Result<()>;

static HOOK: OnceLock<Hook> = OnceLock::new();

/// For bindings: from now on each wait that can be interrupted and has looked for as long as
/// [`WaitPolicy::Latency`](crate::WaitPolicy::Latency) says calls it before it sleeps, and returns its error.
/// The first one stays.
///
/// While it looks, the thread holds signals back, and another of the process's threads takes them. A runtime
/// whose handlers run in one thread, between two calls, would not hear of that until the sleep has ended.
#[doc(hidden)]
pub fn before_sleep(hook: Hook) {
    let _ = HOOK.set(hook);
}

/// Calls what [`before_sleep`] has set.
pub(crate) fn call() -> io::Result<()> {
    HOOK.get().map_or(Ok(()), |hook| hook())
}
