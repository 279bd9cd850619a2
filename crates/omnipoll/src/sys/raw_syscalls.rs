//! The system calls that every message takes, made without going through libc.
//!
//! After a system call the processor has forgotten where to return to (the kernel clears its
//! return predictions on the way, against Spectre), so that each `ret` on the way back from it
//! is mispredicted. libc's wrapper adds one, which on some machines costs more than all the rest
//! of the library: `crates/omnipoll-bench` measures a message. Here the instruction is part of
//! the caller. On processors that aren't listed, and on other systems, libc makes the call.
//!
//! As in libc, a failed call returns -1 and sets `errno`. None of these is a cancellation point.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod by_instruction {
    /// # Safety
    ///
    /// As the system call of that number says of its arguments.
    #[inline(always)]
    unsafe fn call(number: libc::c_long, arguments: [usize; 6]) -> isize {
        let result: isize;
        // SAFETY: the kernel's convention: number and arguments in these registers, rcx and r11
        // overwritten, the stack untouched. What is done to memory is the caller's to answer for.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") number as isize => result,
                in("rdi") arguments[0],
                in("rsi") arguments[1],
                in("rdx") arguments[2],
                in("r10") arguments[3],
                in("r8") arguments[4],
                in("r9") arguments[5],
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        if result < 0 {
            return fail(-result as libc::c_int);
        }
        result
    }

    #[cold]
    fn fail(errno: libc::c_int) -> isize {
        // SAFETY: it points to this thread's errno.
        unsafe { *libc::__errno_location() = errno };
        -1
    }

    #[inline(always)]
    pub(crate) unsafe fn recv(fd: i32, buffer: *mut u8, length: usize) -> isize {
        // SAFETY: the caller's promise: `buffer` is writable for `length` bytes.
        unsafe { call(libc::SYS_recvfrom, [fd as usize, buffer as usize, length, 0, 0, 0]) }
    }

    #[inline(always)]
    pub(crate) unsafe fn send(fd: i32, data: *const u8, length: usize, flags: libc::c_int) -> isize {
        // SAFETY: the caller's promise: `data` is readable for `length` bytes.
        unsafe { call(libc::SYS_sendto, [fd as usize, data as usize, length, flags as usize, 0, 0]) }
    }

    #[inline(always)]
    pub(crate) unsafe fn epoll_ctl(set: i32, operation: i32, fd: i32, event: *mut libc::epoll_event) -> i32 {
        let arguments = [set as usize, operation as usize, fd as usize, event as usize, 0, 0];
        // SAFETY: the caller's promise: `event` is readable, or null where none is read.
        unsafe { call(libc::SYS_epoll_ctl, arguments) as i32 }
    }

    #[inline(always)]
    pub(crate) unsafe fn epoll_wait(set: i32, events: *mut libc::epoll_event, capacity: i32, ms: i32) -> i32 {
        let arguments = [set as usize, events as usize, capacity as usize, ms as usize, 0, 0];
        // SAFETY: the caller's promise: `events` is writable for `capacity` elements.
        unsafe { call(libc::SYS_epoll_wait, arguments) as i32 }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod by_libc {
    #[cfg(target_os = "linux")]
    pub(crate) use libc::{epoll_ctl, epoll_wait};

    pub(crate) unsafe fn recv(fd: i32, buffer: *mut u8, length: usize) -> isize {
        // SAFETY: the caller's promise.
        unsafe { libc::recv(fd, buffer.cast(), length, 0) }
    }

    pub(crate) unsafe fn send(fd: i32, data: *const u8, length: usize, flags: libc::c_int) -> isize {
        // SAFETY: the caller's promise.
        unsafe { libc::send(fd, data.cast(), length, flags) }
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) use by_instruction::*;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(crate) use by_libc::*;
