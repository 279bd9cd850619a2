//! The suite of connections out: whatever becomes of a connect, on every engine.

#[path = "../serve/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../conformance/suite.rs"]
#[allow(dead_code)]
mod suite;
#[path = "../support/mod.rs"]
mod support;

mod names;
mod outgoing;
mod peers;

mod by_handler;
mod connecting;
mod failing;
mod resolving;
mod stopping;

fn main() -> std::process::ExitCode {
    // Some cases count what is open.
    support::sys::close_inherited();
    let mut suite = suite::Suite::default();
    connecting::behaviours(&mut suite);
    failing::behaviours(&mut suite);
    resolving::behaviours(&mut suite);
    stopping::behaviours(&mut suite);
    by_handler::behaviours(&mut suite);
    suite.main()
}
