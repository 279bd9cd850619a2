//! The conformance suite of servers: what a handler and its clients may rely on, under every
//! model and on every engine.
//!
//! A behaviour is a function; the list at the top of its module says in which ways it is served.

#[path = "../conformance/suite.rs"]
#[allow(dead_code)]
mod suite;
#[path = "../support/mod.rs"]
mod support;

mod client;
mod config;
mod log;
mod process;
mod running_server;
mod test_handler;
mod unix;

mod admission;
mod back_pressure;
mod broadcasts;
mod bytes;
mod closing;
mod datagrams;
mod forking;
mod frames;
mod hostile;
mod listening;
mod memory;
mod notify;
mod on_timeout;
mod other_threads;
mod processes;
mod proxy_header;
mod replacing;
mod restarting;
mod socket_options;
mod step_by_step;
mod stopping;
mod timeouts;
mod timers;
mod workers;

fn main() -> std::process::ExitCode {
    restarting::program();
    // Tests put sockets where systemd does, and count what is open.
    support::sys::close_inherited();
    let mut suite = suite::Suite::default();
    bytes::behaviours(&mut suite);
    closing::behaviours(&mut suite);
    back_pressure::behaviours(&mut suite);
    hostile::behaviours(&mut suite);
    timeouts::behaviours(&mut suite);
    on_timeout::behaviours(&mut suite);
    timers::behaviours(&mut suite);
    frames::behaviours(&mut suite);
    other_threads::behaviours(&mut suite);
    broadcasts::behaviours(&mut suite);
    listening::behaviours(&mut suite);
    memory::behaviours(&mut suite);
    notify::behaviours(&mut suite);
    stopping::behaviours(&mut suite);
    replacing::behaviours(&mut suite);
    restarting::behaviours(&mut suite);
    step_by_step::behaviours(&mut suite);
    admission::behaviours(&mut suite);
    socket_options::behaviours(&mut suite);
    proxy_header::behaviours(&mut suite);
    processes::behaviours(&mut suite);
    workers::behaviours(&mut suite);
    forking::behaviours(&mut suite);
    unix::behaviours(&mut suite);
    datagrams::behaviours(&mut suite);
    suite.main()
}
