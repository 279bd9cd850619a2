//! What strict mode finds, told to a callback of the caller's.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void, CString};

use omnipoll::Finding;

use crate::error::Failure;
use crate::poller::{call, omni_poller};

/// A mistake that strict mode has found. Valid until the callback returns.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct omni_finding {
    /// The size of this struct in the library that fills it: later versions may have more.
    pub size: u32,
    /// OMNI_FINDING_BLOCKING_EDGE and so on. There may be more in later versions.
    pub kind: u32,
    /// The descriptor; -1 when it is about no single one.
    pub fd: i32,
    /// The descriptor's token; 0 when there is none.
    pub token: u64,
    /// What was found and what to do, in one sentence without a newline.
    pub words: *const c_char,
}

/// Sets what every finding of a poller with OMNI_STRICT is told to, instead of a line on stderr.
/// It replaces the one before.
///
/// `callback` gets the finding and `context`. It is called on the thread that is at fault or
/// notices it, before the call during which that happens returns, and by several threads at a
/// time when several find something. It may call any function of this library. `context` is the
/// caller's, and stays in use until `omni_poller_free` and every other call on the poller have
/// returned.
///
/// Returns 0, or:
///   -EINVAL: `poller` or `callback` is NULL; the poller is not strict.
///   -EOWNERDEAD, -ESTALE, -ENOTRECOVERABLE: as for `omni_poller_add`.
///
/// May be called from any thread. Makes no system call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_poller_on_finding(
    poller: *mut omni_poller,
    callback: Option<unsafe extern "C" fn(finding: *const omni_finding, context: *mut c_void)>,
    context: *mut c_void,
) -> c_int {
    call("omni_poller_on_finding", poller, |poller| {
        let callback = callback.ok_or(Failure::new(libc::EINVAL, "callback is NULL"))?;
        let listener = Listener { callback, context };
        poller.on_finding(Box::new(move |finding| listener.tell(finding)))?;
        Ok(0)
    })
}

struct Listener {
    callback: unsafe extern "C" fn(*const omni_finding, *mut c_void),
    context: *mut c_void,
}

// SAFETY: the caller has promised that callback and context may be used by any thread.
unsafe impl Send for Listener {}
// SAFETY: as above, by several at a time.
unsafe impl Sync for Listener {}

thread_local! {
    static MUTE: Cell<bool> = const { Cell::new(false) };
}

/// Runs something in which no callback is called: it may end pollers whose contexts are gone.
pub(crate) fn silently<T>(body: impl FnOnce() -> T) -> T {
    MUTE.set(true);
    let result = body();
    MUTE.set(false);
    result
}

impl Listener {
    fn tell(&self, finding: &Finding) {
        if MUTE.get() {
            return;
        }
        // Words with a zero byte in them there are none.
        let words = CString::new(finding.words.as_str()).unwrap_or_default();
        let finding = omni_finding {
            size: size_of::<omni_finding>() as u32,
            kind: finding.kind as u32,
            fd: finding.fd,
            token: finding.token,
            words: words.as_ptr(),
        };
        // SAFETY: the caller's function, with the context it wants; both are there until the
        // poller's last call has returned, by `omni_poller_on_finding`'s contract.
        unsafe { (self.callback)(&finding, self.context) };
    }
}
