//! A loop in an outer loop, while the loop's calls fail: its descriptor is there or its call says why not, and
//! nothing that the loop waits for leaves the outer loop asleep.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use omnipoll::{explain, EngineKind, LoopEvent, LoopEventKind, LoopOptions, PulledLoop};

use crate::client::PATIENCE;
use crate::isolated::walk;
use crate::plan::Plan;
use crate::polling::again;
use crate::selection::{Asked, Tally};

/// How often a wait may fail by one fault.
const MAX_FAILED_WAITS: usize = 10;

pub(crate) fn faults(engine: EngineKind, asked: &Asked, tally: &mut Tally) {
    walk(asked, tally, |plan| match hold(plan, engine) {
        // Not even the loop or its descriptor could be had.
        Err(error) if explain(&error).is_empty() => Err(String::from("an error without words")),
        Err(error) if plan.injected() == 0 => Err(explain(&error)),
        Err(_) => Ok(()),
        Ok(held) => held,
    });
}

/// Whether a descriptor is readable before patience ends.
fn is_readable(plan: &Plan, descriptor: RawFd) -> bool {
    let mut watched = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    let patience = PATIENCE.as_millis() as libc::c_int;
    // SAFETY: one writable element.
    plan.without_faults(|| unsafe { libc::poll(&mut watched, 1, patience) }) > 0
}

/// Holds a loop with a client, a timer and a post until each of them has been reported.
fn hold(plan: &Plan, engine: EngineKind) -> io::Result<Result<(), String>> {
    let options = LoopOptions::new().engine(engine).linger(Duration::ZERO);
    let mut event_loop = PulledLoop::with_options(options)?;
    let address = event_loop.listen("127.0.0.1:0", 1)?;
    // What has failed is done by the second call.
    let descriptor = again(plan, "descriptor", || event_loop.descriptor().map(|it| it.as_raw_fd()));
    let descriptor = match descriptor {
        Ok(descriptor) => descriptor,
        Err(words) => return Ok(Err(words)),
    };
    event_loop.poller().timer_add(Duration::from_millis(1), None, 2)?;
    event_loop.poller().post(3, 0)?;
    let client = plan.without_faults(|| -> io::Result<TcpStream> {
        let mut client = TcpStream::connect(&address)?;
        client.write_all(b"hello")?;
        Ok(client)
    })?;
    let reported = until_reported(plan, &mut event_loop, descriptor);
    plan.without_faults(|| drop(client));
    Ok(reported)
}

fn until_reported(plan: &Plan, event_loop: &mut PulledLoop, descriptor: RawFd) -> Result<(), String> {
    // A fault may cost the client its connection.
    let (mut timer, mut post, mut client) = (false, false, false);
    let (end, mut failed_waits) = (Instant::now() + PATIENCE, 0);
    while !(timer && post && client) {
        let seen = format!("timer {timer}, post {post}, client {client}");
        if Instant::now() > end || !is_readable(plan, descriptor) {
            return Err(format!("the outer loop sleeps: {seen}"));
        }
        let mut events = [LoopEvent::default(); 4];
        let count = match event_loop.wait(&mut events, Some(Duration::ZERO)) {
            Ok(count) => count,
            Err(error) if failed_waits == MAX_FAILED_WAITS => {
                return Err(format!("{}, again and again: {seen}", explain(&error)));
            }
            Err(_) => {
                failed_waits += 1;
                continue;
            }
        };
        for event in &events[..count] {
            match event.kind() {
                LoopEventKind::Timer => timer = true,
                LoopEventKind::Post => post = true,
                LoopEventKind::Data | LoopEventKind::Closed => client = true,
                _ => {}
            }
        }
    }
    Ok(())
}
