//! Bytes and texts from C, and texts for it, written as snprintf(3) writes them.

use std::ffi::{c_char, c_int, c_void, CStr};
use std::ptr;

use libc::{sockaddr, sockaddr_storage};
use omnipoll::Address;

use crate::error::Failure;

/// Writes as much of `text` to `buffer` as its `capacity` has room for, ended by a zero, and
/// returns the length of all of it.
///
/// # Safety
/// `buffer` is NULL, or has `capacity` bytes.
pub(crate) unsafe fn write_str(text: &str, buffer: *mut c_char, capacity: usize) -> Result<c_int, Failure> {
    if buffer.is_null() && capacity > 0 {
        return Err(Failure::new(libc::EINVAL, "buffer is NULL"));
    }
    if let Some(room) = capacity.checked_sub(1) {
        let length = text.len().min(room);
        // SAFETY: not NULL, and so `capacity` bytes, which is more than `length`.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, length);
            buffer.add(length).write(0);
        }
    }
    Ok(to_count(text.len()))
}

/// The text that C has passed.
///
/// # Safety
/// `text` is NULL, or ends with a zero, and stays as it is meanwhile.
pub(crate) unsafe fn read_str<'a>(text: *const c_char, null: &'static str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::new(libc::EINVAL, null));
    }
    // SAFETY: not NULL, and so as promised.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::new(libc::EINVAL, "the text is not UTF-8"))
}

/// The bytes that C has passed.
///
/// # Safety
/// `data` is NULL, or has `length` bytes, which stay as they are meanwhile.
pub(crate) unsafe fn read_bytes<'a>(data: *const c_void, length: usize) -> Result<&'a [u8], Failure> {
    match (data.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Failure::new(libc::EINVAL, "data is NULL")),
        (false, _) if length > isize::MAX as usize => {
            Err(Failure::new(libc::EINVAL, "length is more than there is memory"))
        }
        // SAFETY: not NULL, and so as promised.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(data.cast(), length) }),
    }
}

/// A count as C gets it.
pub(crate) fn to_count(count: usize) -> c_int {
    count.min(c_int::MAX as usize) as c_int
}

/// Writes an address as getpeername(2) does: as much as `length` has room for, and then its own length
/// there.
///
/// # Safety
/// `length` is NULL or readable and writable, and `address` is NULL or has as many bytes as it says.
pub(crate) unsafe fn write_sockaddr(
    from: &Address,
    address: *mut sockaddr,
    length: *mut u32,
) -> Result<c_int, Failure> {
    if address.is_null() || length.is_null() {
        return Err(Failure::new(libc::EINVAL, "the address or its length is NULL"));
    }
    let bytes = from.to_sockaddr()?;
    // SAFETY: not NULL, and so as promised; it may have any alignment.
    unsafe {
        let room = length.read_unaligned() as usize;
        ptr::copy_nonoverlapping(bytes.as_ptr(), address.cast(), bytes.len().min(room));
        length.write_unaligned(bytes.len() as u32);
    }
    Ok(0)
}

/// The address that C has passed.
///
/// # Safety
/// `address` is NULL, or has `length` bytes, which stay as they are meanwhile.
pub(crate) unsafe fn read_sockaddr(address: *const sockaddr, length: u32) -> Result<Address, Failure> {
    if address.is_null() {
        return Err(Failure::new(libc::EINVAL, "the address is NULL"));
    }
    if length as usize > size_of::<sockaddr_storage>() {
        return Err(Failure::new(libc::EINVAL, "no socket address is so long"));
    }
    // SAFETY: not NULL, and so as promised.
    let bytes = unsafe { std::slice::from_raw_parts(address.cast(), length as usize) };
    Ok(Address::from_sockaddr(bytes)?)
}
