//! The conformance suite of servers: what a handler and its clients may rely on, under every
//! model and on every engine.
//!
//! A behaviour is a function; the list at the top of its module says in which ways it is served.

#[path = "../conformance/suite.rs"]
#[allow(dead_code)]
mod suite;
#[path = "../support/mod.rs"]
mod support;

mod acts;
mod client;
mod log;
mod process;
mod served;
mod unix;
mod way;

mod bytes;
mod datagrams;
mod ending;
mod flow;
mod forking;
mod hostile;
mod listening;
mod memory;
mod others;
mod processes;
mod stopping;
mod timeouts;

fn main() -> std::process::ExitCode {
    // Tests put sockets where systemd does, and count what is open.
    support::sys::close_inherited();
    let mut suite = suite::Suite::default();
    bytes::behaviours(&mut suite);
    ending::behaviours(&mut suite);
    flow::behaviours(&mut suite);
    hostile::behaviours(&mut suite);
    timeouts::behaviours(&mut suite);
    others::behaviours(&mut suite);
    listening::behaviours(&mut suite);
    memory::behaviours(&mut suite);
    stopping::behaviours(&mut suite);
    processes::behaviours(&mut suite);
    forking::behaviours(&mut suite);
    unix::behaviours(&mut suite);
    datagrams::behaviours(&mut suite);
    suite.main()
}
