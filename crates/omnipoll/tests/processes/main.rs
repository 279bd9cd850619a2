//! What timers, signals, children and posts are to a process that forks, and to one whose clock
//! is set. Each case runs in a process of its own, with one thread unless it starts more.

#[allow(dead_code)]
#[path = "../conformance/suite.rs"]
mod suite;
#[path = "../support/mod.rs"]
mod support;

mod clock;
mod fork;
mod matrix;

fn main() -> std::process::ExitCode {
    // Tests look at what a program inherits.
    support::sys::close_inherited();
    let mut suite = suite::Suite::default();
    fork::behaviours(&mut suite);
    clock::behaviours(&mut suite);
    matrix::behaviours(&mut suite);
    suite.main()
}
