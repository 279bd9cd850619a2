//! Every system call that a poller or a server makes is made to fail, one after another, with every
//! error that it may fail with, as SQLite's tests do with their files and curl's with their memory.
//!
//! A fault may cost one client its connection, or end a call with an error in words. All the others
//! are served, the same descriptors are open as before, a stop is noticed, and nothing waits indefinitely.
//!
//! ```sh
//! cargo test -p omnipoll --test inject                                    # all of it
//! cargo test -p omnipoll --test inject -- serving-fork-epoll              # one case
//! cargo test -p omnipoll --test inject -- serving-fork-epoll recvfrom EINTR 2   # the second one fails
//! ```

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod client;
mod connecting;
mod embedding;
mod isolated;
mod memory;
mod plan;
mod polling;
mod process;
mod selection;
mod server;
mod serving;
mod spawning;
mod startup;
mod supervisor;

use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;

use omnipoll::{EngineKind, Model};

use selection::{Asked, Tally};
use support::{engines, sys};

/// Seconds after which a case that has not ended is killed.
const PATIENCE: u32 = 300;
/// Cases at once for each processor: they wait a good deal.
const AT_ONCE: usize = 2;

type Case = Box<dyn Fn(&Asked, &mut Tally)>;

fn cases() -> Vec<(String, Case)> {
    let mut cases: Vec<(String, Case)> = Vec::new();
    for engine in engines() {
        let polling: Case = Box::new(move |asked, tally| polling::faults(engine, asked, tally));
        cases.push((format!("polling-{}", engine.name()), polling));
        let connecting: Case = Box::new(move |asked, tally| connecting::faults(engine, asked, tally));
        cases.push((format!("connecting-{}", engine.name()), connecting));
        if matches!(engine, EngineKind::Epoll | EngineKind::IoUring) {
            let embedding: Case = Box::new(move |asked, tally| embedding::faults(engine, asked, tally));
            cases.push((format!("embedding-{}", engine.name()), embedding));
        }
        let spawning: Case = Box::new(move |asked, tally| spawning::faults(engine, asked, tally));
        cases.push((format!("spawning-{}", engine.name()), spawning));
        for model in Model::ALL {
            let way = format!("{}-{}", model.name(), engine.name());
            let mut add = |name: &str, case: Case| cases.push((format!("{name}-{way}"), case));
            add("starting", Box::new(move |asked, tally| startup::faults(model, engine, asked, tally)));
            add("serving", Box::new(move |asked, tally| serving::faults(model, engine, asked, tally)));
            add("lasting", Box::new(move |asked, tally| serving::lasting(model, engine, asked, tally)));
            add("stopping", Box::new(move |asked, tally| serving::stopping(model, engine, asked, tally)));
        }
    }
    cases
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, name, fault @ ..] = arguments.as_slice() {
        if first == "--inside" {
            return inside(name, fault);
        }
    }
    let (name, fault) = match arguments.split_first() {
        Some((name, fault)) => (name.as_str(), fault),
        None => ("", arguments.as_slice()),
    };
    let names: Vec<String> = cases().into_iter().map(|(name, _)| name).collect();
    let wanted: Vec<&String> = names.iter().filter(|known| known.contains(name)).collect();
    if !supervisor::is_possible() {
        println!("seccomp(2) can't hand over system calls here (Linux 5.5), or is forbidden");
        let is_needed = std::env::var("CI").is_ok_and(|ci| ci == "true");
        println!("0 passed, {} failed, {} skipped", u8::from(is_needed), u8::from(!is_needed));
        return ExitCode::from(u8::from(is_needed));
    }
    run_each_in_its_process(&wanted, fault)
}

/// Runs a case in this very process.
fn inside(name: &str, fault: &[String]) -> ExitCode {
    sys::end_after_seconds(PATIENCE);
    let (_, case) = cases().into_iter().find(|(known, _)| known == name).expect("a case of that name");
    case(&Asked(fault.to_vec()), &mut Tally::new(name));
    ExitCode::SUCCESS
}

fn run_each_in_its_process(names: &[&String], fault: &[String]) -> ExitCode {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let next = Mutex::new(names.iter());
    let totals = Mutex::new((0, 0, 0));
    std::thread::scope(|scope| {
        for _ in 0..processors * AT_ONCE {
            scope.spawn(|| loop {
                let Some(name) = next.lock().unwrap().next() else { break };
                let (injected, survived, is_well) = run(name, fault);
                let mut totals = totals.lock().unwrap();
                *totals = (totals.0 + injected, totals.1 + survived, totals.2 + usize::from(!is_well));
            });
        }
    });
    let (injected, survived, failed) = *totals.lock().unwrap();
    println!("{injected} faults injected, {survived} survived");
    println!("{} passed, {failed} failed", names.len() - failed);
    ExitCode::from(u8::from(failed > 0))
}

/// Runs a case in a process of its own: how many faults were injected and survived, and whether
/// all is well.
fn run(name: &str, fault: &[String]) -> (usize, usize, bool) {
    let program = std::env::current_exe().expect("the program knows its own path");
    let mut command = Command::new(program);
    command.arg("--inside").arg(name).args(fault).env_remove("OMNIPOLL_ENGINE").stdin(Stdio::null());
    let output = command.output().expect("the program can be started again");
    let said = String::from_utf8_lossy(&output.stdout);
    let (failures, numbers): (Vec<&str>, Vec<&str>) =
        said.lines().partition(|line| line.starts_with("FAILED"));
    let mut numbers = numbers.last().into_iter().flat_map(|line| line.split(' ')).map(str::parse);
    let (injected, survived) = match (numbers.next(), numbers.next()) {
        (Some(Ok(injected)), Some(Ok(survived))) => (injected, survived),
        _ => (0, 0),
    };
    let is_well = output.status.success() && failures.is_empty();
    if !is_well {
        failures.iter().for_each(|line| println!("{line}"));
        println!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    (injected, survived, is_well)
}
