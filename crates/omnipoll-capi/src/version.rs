//! Versions: the header's and the library's.

use std::ffi::{c_char, CStr};

/// The first number of this header's version.
pub const OMNI_VERSION_MAJOR: u32 = 0;
/// The second number.
pub const OMNI_VERSION_MINOR: u32 = 1;
/// The third number.
pub const OMNI_VERSION_PATCH: u32 = 0;
/// The version of this header, 0xMMmmpp00 (major, minor, patch). `omni_version` returns the
/// library's.
pub const OMNI_VERSION: u32 = 0x0001_0000;

// Literals for the header's sake.
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
    assert!(OMNI_VERSION_MAJOR == major && OMNI_VERSION_MINOR == minor && OMNI_VERSION_PATCH == patch);
    assert!(OMNI_VERSION == major << 24 | minor << 16 | patch << 8);
};

/// The version of the library that is running, in the form of OMNI_VERSION: 0x00010000 is 0.1.0. It
/// may be newer than the header that the program was compiled with.
///
/// May be called from a signal handler. System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_version() -> u32 {
    OMNI_VERSION
}

/// The version of the library that is running, as text: "0.1.0". It lives as long as the library.
///
/// System calls: none. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn omni_version_string() -> *const c_char {
    const TEXT: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a version has no zero in it"),
    };
    TEXT.as_ptr()
}
