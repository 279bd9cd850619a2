//! What the library says of itself.

use std::ffi::{c_char, c_int};
use std::ptr;

use omnipoll::{EngineKind, Model};

use crate::constants::{OMNI_ENGINE_AUTO, OMNI_VERSION};
use crate::error::{answer, Failure};
use crate::text;

// `OMNI_VERSION` is a literal for the header's sake.
const _: () = {
    const fn part(digits: &str) -> u32 {
        match u32::from_str_radix(digits, 10) {
            Ok(part) => part,
            Err(_) => panic!("a version is made of numbers"),
        }
    }
    let major = part(env!("CARGO_PKG_VERSION_MAJOR"));
    let minor = part(env!("CARGO_PKG_VERSION_MINOR"));
    let patch = part(env!("CARGO_PKG_VERSION_PATCH"));
    assert!(OMNI_VERSION == major << 24 | minor << 16 | patch << 8);
};

/// The version of the library that is running, 0xMMmmpp00: 0x00010000 is 0.1.0. May be newer
/// than OMNI_VERSION, which is that of the header the program was compiled with.
///
/// Can't fail. Makes no system call. May be called from any thread and from a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn omni_version() -> u32 {
    OMNI_VERSION
}

/// Whether a poller can be made on this engine here: 1 if so, 0 if not. 0 as well for a number
/// that this version of the library does not know. OMNI_ENGINE_AUTO is always available.
///
/// Can't fail. Makes no system call, but for the first question about OMNI_ENGINE_IO_URING, which
/// is tried out. May be called from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn omni_engine_available(engine: u32) -> c_int {
    let known = EngineKind::from_number(engine);
    (engine == OMNI_ENGINE_AUTO || known.is_some_and(EngineKind::is_available)).into()
}

/// The engine's name: "auto", "select", "poll", "epoll", "io_uring" or "kqueue". All but "auto"
/// are what `OMNIPOLL_ENGINE` understands. NULL for a number that is no engine.
///
/// The text lives as long as the library and is not to be freed. Makes no system call. May be
/// called from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn omni_engine_name(engine: u32) -> *const c_char {
    const NAMES: [&std::ffi::CStr; 6] = [c"auto", c"select", c"poll", c"epoll", c"io_uring", c"kqueue"];
    NAMES.get(engine as usize).map_or(ptr::null(), |name| name.as_ptr())
}

/// The model's name: "reactor", "cores", "thread", "fork" or "prefork". NULL for a number that
/// is no model.
///
/// The text lives as long as the library and is not to be freed. Makes no system call. May be
/// called from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn omni_model_name(model: u32) -> *const c_char {
    const NAMES: [&std::ffi::CStr; 5] = [c"reactor", c"cores", c"thread", c"fork", c"prefork"];
    let index = model.checked_sub(1).map(|index| index as usize);
    index.and_then(|index| NAMES.get(index)).map_or(ptr::null(), |name| name.as_ptr())
}

/// The number of the model that `omni_model_name` gives this name: OMNI_MODEL_REACTOR for
/// "reactor".
///
/// Returns the number, or:
///   -EINVAL: `name` is NULL, or no model's.
///
/// May be called from any thread. Makes no system call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_model_by_name(name: *const c_char) -> c_int {
    let find = || {
        // SAFETY: NULL or a text by this function's contract.
        let name = unsafe { text::taken(name, "name is NULL") }?;
        let model = Model::from_name(name);
        model.map(|model| model as c_int).ok_or(Failure::new(libc::EINVAL, "no model has that name"))
    };
    answer("omni_model_by_name", find())
}
