//! The suite of event loops: what a program may rely on that runs one of its own, on every engine.

// The loops reap children.
#![allow(clippy::zombie_processes)]

#[path = "../serve/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../conformance/suite.rs"]
#[allow(dead_code)]
mod suite;
#[path = "../support/mod.rs"]
mod support;

mod broadcasts;
mod by_handler;
mod connecting;
mod datagrams;
#[cfg(target_os = "linux")]
mod descriptor;
mod frames;
mod listening;
mod own_events;
mod policy;
mod pulled;
mod relays;
mod running;
mod spawning;

fn main() -> std::process::ExitCode {
    let mut suite = suite::Suite::default();
    pulled::behaviours(&mut suite);
    by_handler::behaviours(&mut suite);
    broadcasts::behaviours(&mut suite);
    frames::behaviours(&mut suite);
    own_events::behaviours(&mut suite);
    policy::behaviours(&mut suite);
    relays::behaviours(&mut suite);
    listening::behaviours(&mut suite);
    connecting::behaviours(&mut suite);
    spawning::behaviours(&mut suite);
    datagrams::behaviours(&mut suite);
    #[cfg(target_os = "linux")]
    descriptor::behaviours(&mut suite);
    suite.main()
}
