//! Structs that grow: each begins with its size, as the program was compiled with it.

use std::mem::{self, MaybeUninit};
use std::ptr;

use crate::error::Failure;

/// A struct of C's that begins with `uint32_t size`.
///
/// # Safety
/// It is `repr(C)`, its first member is that size, and all zeros is a value of it, which means
/// the default throughout.
pub(crate) unsafe trait Sized32: Copy {
    /// The size of its first version.
    const MIN_SIZE: usize;
    /// What to say of a size below that.
    const UNSET: &'static str;
}

/// No version of a struct is longer. A size beyond is garbage, and reading so far might leave the
/// caller's memory; clone3(2) and openat2(2) have the same bound.
const MAX_SIZE: usize = 4096;

/// Reads a struct that a program of another age may have filled in: what an older one lacks is
/// zero, and what a newer one has besides must be.
///
/// # Safety
/// `from` is not NULL, and the struct has as many bytes as its first member says.
pub(crate) unsafe fn read<T: Sized32>(from: *const T) -> Result<T, Failure> {
    // SAFETY: every version of the struct begins with its size.
    let size = unsafe { from.cast::<u32>().read() } as usize;
    if size < T::MIN_SIZE {
        return Err(Failure::new(libc::EINVAL, T::UNSET));
    }
    if size > MAX_SIZE {
        return Err(Failure::new(libc::E2BIG, "no version of the struct has that size"));
    }
    let known = size.min(mem::size_of::<T>());
    // SAFETY: as many bytes as it says.
    let beyond = unsafe { std::slice::from_raw_parts(from.cast::<u8>().add(known), size - known) };
    if beyond.iter().any(|&byte| byte != 0) {
        return Err(Failure::new(
            libc::E2BIG,
            "the struct is a newer version's, and asks for something that this one does not have",
        ));
    }
    let mut read = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are on either side, and zeros are a value of the rest.
    unsafe {
        ptr::copy_nonoverlapping(from.cast::<u8>(), read.as_mut_ptr().cast(), known);
        Ok(read.assume_init())
    }
}

/// Writes as much of `from` as the caller's struct has room for, and how much that is into it.
///
/// # Safety
/// `to` is not NULL, and the struct has as many bytes as its first member says.
pub(crate) unsafe fn write<T: Sized32>(from: &T, to: *mut T) -> Result<(), Failure> {
    // SAFETY: every version of the struct begins with its size.
    let room = unsafe { to.cast::<u32>().read() } as usize;
    if !(T::MIN_SIZE..=MAX_SIZE).contains(&room) {
        return Err(Failure::new(libc::EINVAL, T::UNSET));
    }
    let known = room.min(mem::size_of::<T>());
    // SAFETY: `known` bytes are on either side, and the size among them.
    unsafe {
        ptr::copy_nonoverlapping(ptr::from_ref(from).cast::<u8>(), to.cast(), known);
        to.cast::<u32>().write(known as u32);
    }
    Ok(())
}
