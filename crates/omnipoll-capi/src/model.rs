//! Models: their numbers and names.

use std::ffi::{c_char, c_int};
use std::ptr;

use omnipoll::Model;

use crate::buffer::read_str;
use crate::error::{to_c_result, Failure};

/// Model: one loop in one thread, for all the clients. Nothing runs in parallel; all memory is shared.
pub const OMNI_MODEL_REACTOR: u32 = 1;
/// Model: a loop for each core, each with its share of the clients, in threads that share memory.
pub const OMNI_MODEL_CORES: u32 = 2;
/// Model: a thread for each client. The threads share memory.
pub const OMNI_MODEL_THREAD: u32 = 3;
/// Model: a process for each client, forked when it connects. It sees memory as it was then, and its
/// changes end with it; a crash ends only one client.
pub const OMNI_MODEL_FORK: u32 = 4;
/// Model: a fixed set of processes, forked at the start and replaced when one dies. Each has memory
/// of its own and serves many clients.
pub const OMNI_MODEL_PREFORK: u32 = 5;

// cbindgen reads literals only; that they are the core's numbers is checked here.
const _: () = {
    assert!(OMNI_MODEL_REACTOR == Model::Reactor as u32);
    assert!(OMNI_MODEL_CORES == Model::Cores as u32);
    assert!(OMNI_MODEL_THREAD == Model::Thread as u32);
    assert!(OMNI_MODEL_FORK == Model::Fork as u32);
    assert!(OMNI_MODEL_PREFORK == Model::Prefork as u32);
};

/// The model's name: "reactor", "cores", "thread", "fork" or "prefork". NULL for a number that is
/// no model.
///
/// The text lives as long as the library. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_model_name(model: u32) -> *const c_char {
    const NAMES: [&std::ffi::CStr; 5] = [c"reactor", c"cores", c"thread", c"fork", c"prefork"];
    let index = model.checked_sub(1).map(|index| index as usize);
    index.and_then(|index| NAMES.get(index)).map_or(ptr::null(), |name| name.as_ptr())
}

/// cbindgen:postfix=OMNI_NONNULL(1)
/// The number of the model that has this name: OMNI_MODEL_REACTOR for "reactor".
///
/// Returns the number, or:
///   -EINVAL: no model has that name.
///
/// System calls: none. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omni_model_by_name(name: *const c_char) -> c_int {
    let find = || {
        // SAFETY: NULL or a text by this function's contract.
        let name = unsafe { read_str(name, "name is NULL") }?;
        let model = Model::from_name(name);
        model.map(|model| model as c_int).ok_or(Failure::new(libc::EINVAL, "no model has that name"))
    };
    to_c_result("omni_model_by_name", find())
}
