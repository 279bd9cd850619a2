//! What strict mode finds, passed to a callback of the caller's.

use std::ffi::{c_char, c_int, c_void, CString};

use omnipoll::{Finding, FindingKind};

use crate::error::Failure;
use crate::mute::is_muted;
use crate::poller::call;
use crate::types::omni_poller;

/// Kind of finding: OMNI_EDGE on a descriptor without O_NONBLOCK: reading it until EAGAIN would
/// block.
pub const OMNI_FINDING_BLOCKING_EDGE: u32 = 1;
/// Kind of finding: something was left to read under OMNI_EDGE and will not be reported again.
pub const OMNI_FINDING_UNDRAINED: u32 = 2;
/// Kind of finding: an OMNI_ONESHOT fired and was not enabled again, though there is
/// something to read.
pub const OMNI_FINDING_FORGOTTEN_ONESHOT: u32 = 3;
/// Kind of finding: a descriptor was closed before it was removed.
pub const OMNI_FINDING_CLOSED: u32 = 4;
/// Kind of finding: a descriptor was closed before it was removed, and its number stands for
/// another file.
pub const OMNI_FINDING_REUSED: u32 = 5;
/// Kind of finding: a descriptor was reported as nothing but writable a thousand times, and
/// nothing was written.
pub const OMNI_FINDING_BUSY_WRITER: u32 = 6;
/// Kind of finding: a thread spent more than 100 ms between two waits.
pub const OMNI_FINDING_BLOCKED_LOOP: u32 = 7;
/// Kind of finding: a forked child used its parent's poller.
pub const OMNI_FINDING_FORKED_CHILD: u32 = 8;
/// Kind of finding: the poller was freed while a descriptor was registered.
pub const OMNI_FINDING_LEAKED: u32 = 9;

// cbindgen reads literals only; that they are the core's numbers is checked here.
const _: () = {
    assert!(OMNI_FINDING_BLOCKING_EDGE == FindingKind::BlockingEdge as u32);
    assert!(OMNI_FINDING_UNDRAINED == FindingKind::Undrained as u32);
    assert!(OMNI_FINDING_FORGOTTEN_ONESHOT == FindingKind::ForgottenOneshot as u32);
    assert!(OMNI_FINDING_CLOSED == FindingKind::Closed as u32);
    assert!(OMNI_FINDING_REUSED == FindingKind::Reused as u32);
    assert!(OMNI_FINDING_BUSY_WRITER == FindingKind::BusyWriter as u32);
    assert!(OMNI_FINDING_BLOCKED_LOOP == FindingKind::BlockedLoop as u32);
    assert!(OMNI_FINDING_FORKED_CHILD == FindingKind::ForkedChild as u32);
    assert!(OMNI_FINDING_LEAKED == FindingKind::Leaked as u32);
};

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
    /// 0.
    pub reserved: u32,
    /// The descriptor's token; 0 when there is none.
    pub token: u64,
    /// The mistake and the remedy, in one sentence without a newline.
    pub words: *const c_char,
}

/// cbindgen:postfix=OMNI_NONNULL(1,2)
/// Sets the callback that every finding of a poller with OMNI_STRICT is passed to, instead of a
/// line on stderr. It replaces the previous one.
///
/// `callback` gets the finding and `context`. It is called by the thread that made the mistake or
/// notices it, before the call during which that happens returns, and by several threads at a time
/// when several find something. It may call any function of this library. `context` is the
/// caller's, and stays in use until `omni_poller_free` and every other call on the poller have
/// returned.
///
/// Returns 0, or:
///   -EINVAL: the poller is not strict.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_poller_on_finding(
    poller: *mut omni_poller,
    callback: Option<unsafe extern "C" fn(finding: *const omni_finding, context: *mut c_void)>,
    context: *mut c_void,
) -> c_int {
    call("omni_poller_on_finding", poller, |poller| {
        let callback = callback.ok_or(Failure::new(libc::EINVAL, "callback is NULL"))?;
        let listener = Listener { callback, context };
        poller.on_finding(Box::new(move |finding| listener.report(finding)))?;
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

impl Listener {
    fn report(&self, finding: &Finding) {
        if is_muted() {
            return;
        }
        let words = CString::new(finding.words.as_str()).unwrap_or_default();
        let finding = omni_finding {
            size: size_of::<omni_finding>() as u32,
            kind: finding.kind as u32,
            fd: finding.fd,
            reserved: 0,
            token: finding.token,
            words: words.as_ptr(),
        };
        // SAFETY: the caller's function, with the context it wants; both are there until the
        // poller's last call has returned, by `omni_poller_on_finding`'s contract.
        unsafe { (self.callback)(&finding, self.context) };
    }
}
