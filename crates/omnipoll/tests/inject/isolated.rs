//! Walks through the faults of what a process can do again and again by itself.
//!
//! It does so in a forked child: a child that crashes or hangs is replaced by one that continues with the next
//! fault.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::calls::CALLS;
use crate::client::PATIENCE;
use crate::plan::{Fault, Plan};
use crate::process::{fork, status_of};
use crate::selection::{Asked, Tally, SOME};
use crate::supervisor::supervise;
use crate::support::sys;

/// `act` while each call fails that it makes. It returns an error when something is wrong with what
/// it does, not when the fault has come out as one.
pub(crate) fn walk(asked: &Asked, tally: &mut Tally, act: impl Fn(&Plan) -> Result<(), String>) {
    let faults: Vec<Fault> = CALLS
        .iter()
        .flat_map(|call| call.errnos().map(move |errno| (call, errno)))
        .flat_map(|(call, errno)| SOME.map(|nth| Fault { call, errno, nth, lasting: false }))
        .filter(|fault| asked.wants(fault))
        .collect();
    let plan = Plan::new();
    while (plan.step.load(Ordering::SeqCst) as usize) < faults.len() {
        let child = fork(|| run_faults(plan, &faults, tally, &act));
        let how = match end_of(child, plan) {
            Some(0) => break,
            Some(status) if status == NEXT << 8 => continue,
            Some(status) => format!("the process has ended with status {status:#x}"),
            None => String::from("it hangs"),
        };
        let failed = plan.step.fetch_add(1, Ordering::SeqCst);
        plan.total.fetch_add(1, Ordering::SeqCst);
        match faults.get(failed as usize) {
            Some(fault) => tally.say(fault, &how),
            None => tally.report_failure(&how),
        }
    }
    tally.count(plan.total.load(Ordering::SeqCst), plan.survived.load(Ordering::SeqCst));
}

/// Waits for the end of a child: its status, or nothing when it stands still.
fn end_of(child: i32, plan: &Plan) -> Option<i32> {
    let (mut step, mut since) = (plan.step.load(Ordering::SeqCst), Instant::now());
    loop {
        if let Some(status) = status_of(child) {
            return Some(status);
        }
        let now = plan.step.load(Ordering::SeqCst);
        if now != step {
            (step, since) = (now, Instant::now());
        }
        if since.elapsed() > 2 * PATIENCE {
            // SAFETY: takes no pointer; the child leads this group, and has not been reaped.
            unsafe { libc::kill(-child, libc::SIGKILL) };
            // SAFETY: no place for the status is passed.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            return None;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn run_faults(
    plan: &'static Plan,
    faults: &[Fault],
    tally: &Tally,
    act: &impl Fn(&Plan) -> Result<(), String>,
) -> i32 {
    supervise(plan).expect("seccomp");
    // What is made once for a process is made here.
    for _ in 0..2 {
        assert_eq!(act(plan), Ok(()), "without any fault");
    }
    let before = sys::open_descriptors();
    let first = plan.step.load(Ordering::SeqCst) as usize;
    // The call and the error whose walk is at its end.
    let mut done = None;
    for (step, fault) in faults.iter().enumerate().skip(first) {
        plan.step.store(step as u32, Ordering::SeqCst);
        if !plan.has_seen(fault.call) || done == Some((fault.call.number, fault.errno)) {
            continue;
        }
        plan.arm(fault);
        let acted = catch_unwind(AssertUnwindSafe(|| act(plan)));
        if plan.disarm() == 0 {
            done = Some((fault.call.number, fault.errno));
        }
        let after = sys::open_descriptors();
        let outcome = match acted {
            Err(_) => Err(String::from("a panic")),
            Ok(Ok(())) if after != before => Err(format!("open are {after:?}, and were {before:?}")),
            Ok(outcome) => outcome.and_then(|()| {
                act(plan).map_err(|words| format!("without any fault, but after one: {words}"))
            }),
        };
        if plan.injected() == 0 && outcome.is_ok() {
            continue;
        }
        plan.total.fetch_add(1, Ordering::SeqCst);
        match outcome {
            Ok(()) => drop(plan.survived.fetch_add(1, Ordering::SeqCst)),
            // The next fault must not be affected by it.
            Err(words) => {
                tally.say(fault, &words);
                plan.step.fetch_add(1, Ordering::SeqCst);
                return NEXT;
            }
        }
    }
    0
}

/// What a child returns that another one is to follow.
const NEXT: i32 = 77;
