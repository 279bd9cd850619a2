//! Programs that a loop starts, while its calls fail, and those of the program: each runs to its end, which is
//! reported, or could not be started, and nothing is left of it.

use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use omnipoll::{explain, ConnId, EngineKind, LoopEvent, LoopEventKind, LoopOptions, Pipes, PulledLoop};

use crate::client::PATIENCE;
use crate::isolated::walk;
use crate::plan::Plan;
use crate::selection::{Asked, Tally};

/// How often a wait may fail by one fault.
const MAX_FAILED_WAITS: usize = 10;

pub(crate) fn faults(engine: EngineKind, asked: &Asked, tally: &mut Tally) {
    walk(asked, tally, |plan| {
        let options = LoopOptions::new().engine(engine).linger(Duration::ZERO);
        let ran = PulledLoop::with_options(options).map(|mut event_loop| {
            let first = run(plan, &mut event_loop);
            // The loop is as it was: another program runs.
            first.and_then(|()| plan.without_faults(|| run(plan, &mut event_loop)))
        });
        let ran = match ran {
            // Not even the loop could be made.
            Err(error) if plan.injected() == 0 => Err(explain(&error)),
            Err(_) => Ok(()),
            Ok(ran) => ran,
        };
        ran.and_then(|()| plan.without_faults(nobody_is_left))
    });
}

/// Whether this process has no child any more.
fn nobody_is_left() -> Result<(), String> {
    // SAFETY: no place for the status is passed.
    let left = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
    match (left, io::Error::last_os_error().raw_os_error()) {
        (-1, Some(libc::ECHILD)) => Ok(()),
        _ => Err(format!("a program was left behind: {left}")),
    }
}

/// Starts a program with connections, and follows it to its end.
fn run(plan: &Plan, event_loop: &mut PulledLoop) -> Result<(), String> {
    let mut command = Command::new("cat");
    let spawned = event_loop.spawn(&mut command, Pipes::STDIN | Pipes::STDOUT, 5);
    let cat = match spawned {
        Err(error) if explain(&error).is_empty() => return Err(String::from("an error without words")),
        Err(error) if plan.injected() == 0 => return Err(explain(&error)),
        Err(_) => return expect_nothing(event_loop),
        Ok(cat) => cat,
    };
    let (stdin, stdout) = (cat.stdin.expect("asked for"), cat.stdout.expect("asked for"));
    // The loop may have ended one of them by the fault.
    let _ = stdin.write(b"hello").and_then(|_| stdin.close());
    let output = follow(event_loop, [stdin, stdout])?;
    match output.as_slice() {
        b"hello" => Ok(()),
        _ if plan.injected() > 0 => Ok(()),
        output => Err(format!("{output:?} has come")),
    }
}

/// Of a program that was not started no stream opens, and no end is reported.
fn expect_nothing(event_loop: &mut PulledLoop) -> Result<(), String> {
    let mut events = [LoopEvent::default(); 8];
    let count = event_loop.wait(&mut events, Some(Duration::ZERO)).map_err(|error| explain(&error))?;
    match &events[..count] {
        [] => Ok(()),
        events => Err(format!("of a program that was not started: {events:?}")),
    }
}

/// What a program writes, when it and its streams have ended.
fn follow(event_loop: &mut PulledLoop, streams: [ConnId; 2]) -> Result<Vec<u8>, String> {
    let (mut open, mut has_ended, mut output) = (streams.to_vec(), false, Vec::new());
    let (end, mut failed_waits) = (Instant::now() + PATIENCE, 0);
    while !open.is_empty() || !has_ended {
        let mut events = [LoopEvent::default(); 8];
        let count = event_loop.wait(&mut events, Some(PATIENCE)).unwrap_or_else(|_| {
            failed_waits += 1;
            0
        });
        if Instant::now() > end || failed_waits > MAX_FAILED_WAITS {
            return Err(format!(
                "{failed_waits} waits have failed; open are {open:?}; it has ended: {has_ended}"
            ));
        }
        for event in &events[..count] {
            match event.kind() {
                LoopEventKind::Data => output.extend_from_slice(&event_loop.data(event)),
                LoopEventKind::Ended => _ = event.conn().close(),
                LoopEventKind::Closed => open.retain(|&id| id != event.conn()),
                LoopEventKind::Child => has_ended = true,
                _ => {}
            }
        }
    }
    Ok(output)
}
