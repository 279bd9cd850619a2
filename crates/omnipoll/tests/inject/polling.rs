//! A poller with everything that it can wait for, while its calls fail: what fails says so and works
//! the second time, and nothing is lost.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use omnipoll::{explain, EngineKind, EventKind, Events, Interest, Poller, Trigger};

use crate::client::PATIENCE;
use crate::isolated::walk;
use crate::plan::Plan;
use crate::selection::{Asked, Tally};
use crate::supervisor::forget;
use crate::support::fds;

pub(crate) fn faults(engine: EngineKind, asked: &Asked, tally: &mut Tally) {
    walk(asked, tally, |plan| {
        let poller = again(plan, "a poller", || Poller::with_engine(engine))?;
        descriptors(&poller, plan)?;
        timers(&poller, plan)?;
        wakes(&poller, plan)?;
        signals(&poller, plan)?;
        children(&poller, plan)
    });
}

/// Calls it, and once more if the fault was its end: it must have words, and have left nothing behind.
pub(crate) fn again<T>(
    plan: &Plan,
    what: &str,
    mut call: impl FnMut() -> io::Result<T>,
) -> Result<T, String> {
    let injected = plan.injected();
    call().or_else(|error| {
        if explain(&error).is_empty() || plan.injected() == injected {
            return Err(format!("{what}: {error:?}"));
        }
        call().map_err(|second| format!("{what}: {error}, and the second time {}", explain(&second)))
    })
}

/// Waits for an event of that kind and token: its value.
fn expect(poller: &Poller, plan: &Plan, kind: EventKind, token: u64) -> Result<i64, String> {
    let mut events = Events::with_capacity(16);
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        again(plan, "wait", || poller.wait(&mut events, Some(PATIENCE)))?;
        if let Some(event) = events.iter().find(|event| event.kind() == kind && event.token() == token) {
            return Ok(event.value());
        }
    }
    Err(format!("{kind:?} {token} never came"))
}

fn expect_nothing(poller: &Poller, plan: &Plan) -> Result<(), String> {
    let mut events = Events::with_capacity(16);
    match again(plan, "wait", || poller.wait(&mut events, Some(Duration::ZERO)))? {
        0 => Ok(()),
        _ => Err(format!("{events:?} has come instead of nothing")),
    }
}

fn descriptors(poller: &Poller, plan: &Plan) -> Result<(), String> {
    for trigger in [Trigger::LEVEL, Trigger::EDGE, Trigger::ONESHOT] {
        let (ours, theirs) = plan.without_faults(fds::pair);
        let (reader, writer) = plan.without_faults(fds::pipe);
        again(plan, "add", || poller.add(&ours, Interest::READ | trigger, 1))?;
        again(plan, "add", || poller.add(&reader, Interest::READ | trigger, 2))?;
        expect_nothing(poller, plan)?;
        for _ in 0..2 {
            plan.without_faults(|| fds::write_byte(&theirs));
            expect(poller, plan, EventKind::Io, 1)?;
            plan.without_faults(|| fds::drain(&ours));
            if trigger == Trigger::EDGE {
                again(plan, "rearm", || poller.rearm(&ours, Interest::READ))?;
            } else {
                again(plan, "modify", || poller.modify(&ours, Interest::READ | trigger, 1))?;
            }
            expect_nothing(poller, plan)?;
        }
        again(plan, "modify", || poller.modify(&ours, Interest::WRITE | trigger, 3))?;
        expect(poller, plan, EventKind::Io, 3)?;
        again(plan, "remove", || poller.remove(&ours))?;
        plan.without_faults(|| fds::write_byte(&writer));
        expect(poller, plan, EventKind::Io, 2)?;
        again(plan, "remove", || poller.remove(&reader))?;
        expect_nothing(poller, plan)?;
    }
    Ok(())
}

fn timers(poller: &Poller, plan: &Plan) -> Result<(), String> {
    let moment = Duration::from_millis(1);
    again(plan, "timer_add", || poller.timer_add(moment, None, 4))?;
    expect(poller, plan, EventKind::Timer, 4)?;
    let timer = again(plan, "timer_add", || poller.timer_add(Duration::from_secs(100), None, 5))?;
    again(plan, "timer_set", || poller.timer_set(timer, moment, None))?;
    expect(poller, plan, EventKind::Timer, 5)?;
    again(plan, "timer_add_at", || poller.timer_add_at(SystemTime::now() + moment, 6))?;
    expect(poller, plan, EventKind::Timer, 6)?;
    expect_nothing(poller, plan)
}

fn wakes(poller: &Poller, plan: &Plan) -> Result<(), String> {
    std::thread::scope(|scope| {
        let poster = || again(plan, "post", || poller.post(7, 70));
        let poster = plan.without_faults(|| scope.spawn(poster));
        let value = expect(poller, plan, EventKind::Post, 7)?;
        poster.join().expect("no panic")?;
        if value != 70 {
            return Err(format!("70 was posted, and {value} has come"));
        }
        let waker = plan.without_faults(|| scope.spawn(|| again(plan, "wake", || poller.wake())));
        expect(poller, plan, EventKind::Wake, 0)?;
        waker.join().expect("no panic")
    })
}

fn signals(poller: &Poller, plan: &Plan) -> Result<(), String> {
    again(plan, "signal_add", || poller.signal_add(libc::SIGUSR1, 8))?;
    for _ in 0..2 {
        // SAFETY: takes no pointer.
        unsafe { libc::raise(libc::SIGUSR1) };
        expect(poller, plan, EventKind::Signal, 8)?;
    }
    again(plan, "signal_remove", || poller.signal_remove(libc::SIGUSR1))
}

fn children(poller: &Poller, plan: &Plan) -> Result<(), String> {
    // SAFETY: the child calls but what a signal handler may call.
    let pid = plan.without_faults(|| unsafe {
        match libc::fork() {
            0 => {
                forget();
                libc::_exit(3)
            }
            pid => pid,
        }
    });
    let watched = again(plan, "child_add", || poller.child_add(pid, 9));
    let ended = watched.and_then(|()| expect(poller, plan, EventKind::Child, 9));
    // Nobody is left behind.
    let mut status = 0;
    // SAFETY: the status is writable during the call.
    let left = plan.without_faults(|| unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) });
    match ended? {
        status if status != 3 << 8 => Err(format!("the child's status is {status:#x}")),
        _ if left >= 0 => Err(String::from("the child was not reaped")),
        _ => Ok(()),
    }
}
