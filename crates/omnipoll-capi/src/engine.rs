//! Engines: their numbers, their names, and what each can do.

use std::ffi::{c_char, c_int};
use std::fmt::Write;
use std::io;
use std::ptr;

use omnipoll::{Capabilities, EngineKind, Poller};

use crate::buffer::{read_str, write_str};
use crate::error::{catch_panic, name_of, to_c_result, Failure};

/// Engine: the one that the environment variable `OMNIPOLL_ENGINE` names, or else the best here.
pub const OMNI_ENGINE_AUTO: u32 = 0;
/// Engine: select(2), without its limit of 1024. Its cost grows with the highest descriptor.
pub const OMNI_ENGINE_SELECT: u32 = 1;
/// Engine: poll(2). Its cost grows with the number of descriptors watched.
pub const OMNI_ENGINE_POLL: u32 = 2;
/// Engine: epoll(7), Linux. Its cost grows with the number of descriptors that are ready.
pub const OMNI_ENGINE_EPOLL: u32 = 3;
/// Engine: io_uring(7). Linux 5.17, where it is permitted.
pub const OMNI_ENGINE_IO_URING: u32 = 4;
/// Engine: kqueue(2). Not available in this version.
pub const OMNI_ENGINE_KQUEUE: u32 = 5;

/// Capability: OMNI_HANGUP and OMNI_ERROR are reported. Without it they show as OMNI_READ and
/// OMNI_WRITE alone.
pub const OMNI_REPORTS_HANGUP: u32 = 0x1;
/// Capability: OMNI_READ_CLOSED is reported. Without it it shows as OMNI_READ alone.
pub const OMNI_REPORTS_READ_CLOSED: u32 = 0x2;
/// Capability: edges come from the kernel, and `omni_poller_rearm` is not needed.
pub const OMNI_NATIVE_EDGE: u32 = 0x4;
/// Capability: OMNI_EXCLUSIVE is available.
pub const OMNI_HAS_EXCLUSIVE: u32 = 0x8;

// cbindgen reads literals only; that they are the core's numbers is checked here.
const _: () = {
    assert!(OMNI_ENGINE_SELECT == EngineKind::Select as u32);
    assert!(OMNI_ENGINE_POLL == EngineKind::Poll as u32);
    assert!(OMNI_ENGINE_EPOLL == EngineKind::Epoll as u32);
    assert!(OMNI_ENGINE_IO_URING == EngineKind::IoUring as u32);
    assert!(OMNI_ENGINE_KQUEUE == EngineKind::Kqueue as u32);
    assert!(OMNI_REPORTS_HANGUP == Capabilities::REPORTS_HANGUP.bits());
    assert!(OMNI_REPORTS_READ_CLOSED == Capabilities::REPORTS_READ_CLOSED.bits());
    assert!(OMNI_NATIVE_EDGE == Capabilities::NATIVE_EDGE.bits());
    assert!(OMNI_HAS_EXCLUSIVE == Capabilities::HAS_EXCLUSIVE.bits());
};

/// Whether a poller can be made on this engine here: 1 if so, 0 if not, and 0 for a number that
/// this version of the library doesn't know. OMNI_ENGINE_AUTO is always available.
///
/// System calls: none, except that the first question about OMNI_ENGINE_IO_URING tries it out.
/// Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_engine_available(engine: u32) -> c_int {
    let known = EngineKind::from_number(engine);
    (engine == OMNI_ENGINE_AUTO || known.is_some_and(EngineKind::is_available)).into()
}

/// The engine's name: "auto", "select", "poll", "epoll", "io_uring" or "kqueue". All but "auto" are
/// what `OMNIPOLL_ENGINE` understands. NULL for a number that is no engine.
///
/// The text lives as long as the library. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_engine_name(engine: u32) -> *const c_char {
    const NAMES: [&std::ffi::CStr; 6] = [c"auto", c"select", c"poll", c"epoll", c"io_uring", c"kqueue"];
    NAMES.get(engine as usize).map_or(ptr::null(), |name| name.as_ptr())
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// The number of the engine that has this name, as `omni_engine_name` returns it: OMNI_ENGINE_EPOLL
/// for "epoll", whether it is available here or not.
///
/// Returns the number, or:
///   -EINVAL: no engine has that name.
///
/// System calls: none. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_engine_by_name(name: *const c_char) -> c_int {
    let find = || {
        // SAFETY: NULL or a text by this function's contract.
        let name = unsafe { read_str(name, "name is NULL") }?;
        let engine = (name != "auto").then(|| EngineKind::from_name(name));
        let number = engine.map_or(Some(OMNI_ENGINE_AUTO), |kind| kind.map(|kind| kind as u32));
        number.map(|number| number as c_int).ok_or(Failure::new(libc::EINVAL, "no engine has that name"))
    };
    to_c_result("omni_engine_by_name", find())
}

/// Writes which features of the kernel pollers, loops and servers on an engine use, and why not the others,
/// as text for people: a line for each, with its name, the version of Linux that it came with, and "in
/// use" or the errno with which the kernel has refused it and what that means. Each is tried out, whatever
/// the kernel's version says. No text for select and poll, which use none, and for OMNI_ENGINE_AUTO that of
/// the engine it stands for. The features may change with each version.
///
/// Works like snprintf(3): writes at most `capacity` bytes to `buffer`, including a final zero.
/// `buffer` may be NULL when `capacity` is 0.
///
/// Returns the length of the whole text without the zero, whether there was room for it or not, or:
///   -EINVAL: there is no engine of that number, or buffer is NULL.
///
/// System calls: those that the features need, on descriptors of its own. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_engine_features(engine: u32, buffer: *mut c_char, capacity: usize) -> c_int {
    let write = || {
        let kind = match engine_kind(engine)? {
            Some(kind) => kind,
            None => Poller::new()?.engine(),
        };
        let mut text = String::new();
        for feature in kind.features() {
            let state = feature.error().map_or("in use".into(), |error| in_words(&error));
            let _ = writeln!(text, "{} (Linux {}): {state}", feature.name(), feature.linux());
        }
        // SAFETY: as this function's contract says.
        unsafe { write_str(&text, buffer, capacity) }
    };
    to_c_result("omni_engine_features", catch_panic(write))
}

/// An errno, and what the system says of it.
fn in_words(error: &io::Error) -> String {
    let words = error.to_string();
    let words = words.split_once(" (os error").map_or(&*words, |(words, _)| words);
    match error.raw_os_error().and_then(name_of) {
        Some(name) => format!("{name}, {words}"),
        None => words.to_owned(),
    }
}

/// The engine of that number; none for the library to choose.
pub(crate) fn engine_kind(engine: u32) -> Result<Option<EngineKind>, Failure> {
    match EngineKind::from_number(engine) {
        None if engine != OMNI_ENGINE_AUTO => {
            Err(Failure::new(libc::EINVAL, "there is no engine of that number"))
        }
        kind => Ok(kind),
    }
}
