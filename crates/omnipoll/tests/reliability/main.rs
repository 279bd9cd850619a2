//! What a server withstands: many idle clients, slow ones, clients that vanish, and processes
//! that are killed. Each case prints what it has measured.

#[path = "../serve/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../serve/config.rs"]
#[allow(dead_code)]
mod config;
#[path = "../serve/log.rs"]
#[allow(dead_code)]
mod log;
#[path = "../serve/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../serve/running_server.rs"]
#[allow(dead_code)]
mod running_server;
#[path = "../conformance/suite.rs"]
#[allow(dead_code)]
mod suite;
#[path = "../support/mod.rs"]
mod support;
#[path = "../serve/test_handler.rs"]
#[allow(dead_code)]
mod test_handler;

mod echo;
mod loss;
mod memory;
mod share;
mod slow;

#[global_allocator]
static MEMORY: memory::Counting = memory::Counting;

fn main() -> std::process::ExitCode {
    let mut suite = suite::Suite::default();
    memory::behaviours(&mut suite);
    slow::behaviours(&mut suite);
    loss::behaviours(&mut suite);
    share::behaviours(&mut suite);
    // They compute all the time, and would measure each other.
    suite.main_with(1)
}
