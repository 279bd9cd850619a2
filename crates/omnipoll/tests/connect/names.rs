//! Names that only this program has, and those that are looked up slowly: its getaddrinfo(3).

use std::ffi::{c_char, c_int, CStr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

static ARE_ANSWERED: Mutex<bool> = Mutex::new(false);
static CHANGED: Condvar = Condvar::new();
/// How many slow look-ups have been begun.
static BEGUN: AtomicUsize = AtomicUsize::new(0);

type GetAddrInfo = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const libc::addrinfo,
    *mut *mut libc::addrinfo,
) -> c_int;

/// Has every name that begins with "slow" be answered: it is `127.0.0.1`.
pub(crate) fn answer_slow_names() {
    *ARE_ANSWERED.lock().unwrap() = true;
    CHANGED.notify_all();
}

/// How many slow look-ups have been begun.
pub(crate) fn slow_lookups() -> usize {
    BEGUN.load(Ordering::SeqCst)
}

/// The C library's, but for slow names, and for those that begin with "both": `::1` and `127.0.0.1`, in the
/// order that the C library gives them.
///
/// # Safety
///
/// As of the C library's.
#[no_mangle]
pub(crate) unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const libc::addrinfo,
    result: *mut *mut libc::addrinfo,
) -> c_int {
    // SAFETY: the caller passes a string, or null.
    let is_slow = !node.is_null() && unsafe { CStr::from_ptr(node) }.to_bytes().starts_with(b"slow");
    // SAFETY: as above.
    let is_both = !node.is_null() && unsafe { CStr::from_ptr(node) }.to_bytes().starts_with(b"both");
    let (node, service) = match (is_slow, is_both) {
        (true, _) => (c"127.0.0.1".as_ptr(), service),
        // Without a name it is this machine, by both families.
        (_, true) => (std::ptr::null(), c"0".as_ptr()),
        _ => (node, service),
    };
    if is_slow {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        let answered = ARE_ANSWERED.lock().unwrap();
        drop(CHANGED.wait_while(answered, |are_answered| !*are_answered).unwrap());
    }
    // SAFETY: the name is a string that lives through the call.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"getaddrinfo".as_ptr()) };
    assert!(!found.is_null(), "the C library has no getaddrinfo");
    // SAFETY: it is the function of that name, which has this type.
    let next = unsafe { std::mem::transmute::<*mut libc::c_void, GetAddrInfo>(found) };
    // SAFETY: these are the caller's arguments, or a string that lives for ever.
    unsafe { next(node, service, hints, result) }
}
