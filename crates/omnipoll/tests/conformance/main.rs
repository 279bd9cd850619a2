//! The conformance suite: what the contract promises, on every engine and under every trigger.
//!
//! A behaviour is a function; the list at the top of its module says whether it is run for
//! each engine or for each engine and trigger. A new engine joins by being available.

#[path = "../support/mod.rs"]
mod support;

mod capacity;
mod changes;
mod closing;
mod edge;
mod errors;
mod file_release;
mod fork;
mod level;
mod no_direction;
mod oneshot;
mod policy;
mod scale;
mod shortage;
mod shutdowns;
mod sockets;
mod suite;
mod threads;
mod timeouts;
mod tokens;
mod wake;

fn main() -> std::process::ExitCode {
    let mut suite = suite::Suite::default();
    level::behaviours(&mut suite);
    edge::behaviours(&mut suite);
    oneshot::behaviours(&mut suite);
    no_direction::behaviours(&mut suite);
    errors::behaviours(&mut suite);
    closing::behaviours(&mut suite);
    file_release::behaviours(&mut suite);
    sockets::behaviours(&mut suite);
    changes::behaviours(&mut suite);
    shutdowns::behaviours(&mut suite);
    capacity::behaviours(&mut suite);
    tokens::behaviours(&mut suite);
    timeouts::behaviours(&mut suite);
    threads::behaviours(&mut suite);
    wake::behaviours(&mut suite);
    policy::behaviours(&mut suite);
    fork::behaviours(&mut suite);
    scale::behaviours(&mut suite);
    shortage::behaviours(&mut suite);
    suite.main()
}
