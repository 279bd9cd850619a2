use super::*;
use std::process::{Child, Command, Stdio};

fn shell(script: &str) -> Child {
    Command::new("sh").arg("-c").arg(script).stdin(Stdio::piped()).spawn().unwrap()
}

#[test]
fn are_reported_with_their_status_and_reaped_once() {
    on_every_engine(|poller| {
        let mut child = shell("read line; exit 3");
        let pid = child.id() as i32;
        poller.child_add(pid, 11).unwrap();
        assert_eq!(errno(poller.child_add(pid, 12)), libc::EEXIST);
        expect_none(poller);
        drop(child.stdin.take());
        assert_eq!(summarize(&collect(poller, 8, 1)), [(EventKind::Child, 11, 3 << 8)]);
        // SAFETY: takes no pointer but NULL.
        assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, -1, "it was not reaped");
        assert_eq!(errno(poller.child_add(pid, 11)), libc::ECHILD);
        assert_eq!(errno(poller.child_remove(pid)), libc::ENOENT);
        expect_none(poller);
    });
}

#[test]
fn killed_by_a_signal() {
    on_every_engine(|poller| {
        let mut child = shell("read line");
        poller.child_add(child.id() as i32, 1).unwrap();
        child.kill().unwrap();
        assert_eq!(summarize(&collect(poller, 8, 1)), [(EventKind::Child, 1, libc::SIGKILL.into())]);
    });
}

#[test]
fn that_have_ended_already_are_reported() {
    on_every_engine(|poller| {
        let mut child = shell("exit 0");
        drop(child.stdin.take());
        // SAFETY: siginfo_t is plain old data; it lives through the call.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            assert_eq!(libc::waitid(libc::P_PID, child.id(), &mut info, libc::WEXITED | libc::WNOWAIT), 0);
        }
        poller.child_add(child.id() as i32, 1).unwrap();
        assert_eq!(summarize(&collect(poller, 8, 1)), [(EventKind::Child, 1, 0)]);
    });
}

#[test]
fn other_processes_are_refused_and_left_alone() {
    on_every_engine(|poller| {
        for pid in [1, 0, -1, std::process::id() as i32, i32::MAX] {
            assert_eq!(errno(poller.child_add(pid, 1)), libc::ECHILD, "pid {pid}");
        }
        let mut forgotten = shell("exit 5");
        poller.child_add(forgotten.id() as i32, 1).unwrap();
        poller.child_remove(forgotten.id() as i32).unwrap();
        assert_eq!(forgotten.wait().unwrap().code(), Some(5));
        expect_none(poller);
    });
}

#[test]
fn many_at_once_each_reported_once() {
    on_every_engine(|poller| {
        let children: Vec<_> = (0..40).map(|code| shell(&format!("exit {code}"))).collect();
        for (code, child) in children.iter().enumerate() {
            poller.child_add(child.id() as i32, code as u64).unwrap();
        }
        let mut reported = summarize(&collect(poller, 3, 40));
        reported.sort_by_key(|fact| fact.1);
        assert_eq!(
            reported,
            (0..40).map(|code| (EventKind::Child, code as u64, code << 8)).collect::<Vec<_>>()
        );
        expect_none(poller);
    });
}

/// Only its tracer sees the stop; the poller reports the end.
#[test]
fn a_traced_one_that_stops_has_not_ended() {
    on_every_engine(|poller| {
        // SAFETY: the child makes three system calls, and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: takes no pointer but NULL.
            unsafe {
                libc::ptrace(libc::PTRACE_TRACEME, 0, std::ptr::null_mut::<u8>(), std::ptr::null_mut::<u8>());
                libc::kill(libc::getpid(), libc::SIGSTOP);
                libc::_exit(3);
            }
        }
        assert!(pid > 0);
        poller.child_add(pid, 1).unwrap();
        let look = |flags| {
            // SAFETY: siginfo_t is plain old data; it lives through the call.
            unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                assert_eq!(libc::waitid(libc::P_PID, pid as u32, &mut info, libc::WSTOPPED | flags), 0);
                info.si_code
            }
        };
        assert_eq!(look(libc::WNOWAIT), libc::CLD_TRAPPED);
        expect_none(poller);
        assert_eq!(look(0), libc::CLD_TRAPPED, "the stop is the tracer's");
        // SAFETY: takes no pointer but NULL; the child is stopped.
        unsafe {
            libc::ptrace(libc::PTRACE_CONT, pid, std::ptr::null_mut::<u8>(), std::ptr::null_mut::<u8>())
        };
        assert_eq!(summarize(&collect(poller, 8, 1)), [(EventKind::Child, 1, 3 << 8)]);
    });
}
