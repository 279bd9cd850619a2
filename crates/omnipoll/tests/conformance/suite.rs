//! The harness: a behaviour is run for every engine, or for every engine and trigger.
//!
//! Each case runs in a process of its own, because what is under test belongs to a process:
//! descriptor numbers that are used again, signals, limits, forks. A case that hangs is ended
//! by an alarm, and one that crashes affects no other. It takes the standard harness's
//! `--list`, `--exact`, `--test-threads` and names to filter by, and passes over the rest.
//! What a case that passes has printed is shown as a note: it could not do all it should.

use std::any::type_name;
use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use omnipoll::{EngineKind, Interest, Trigger};

use crate::support::{engines, sys};

/// The seconds after which a case that has not ended is killed: one that hangs. On a machine that
/// is busy with something else, one that takes a second alone may take a minute.
pub(crate) const PATIENCE: u32 = 240;

/// Has the program run one case in this very process.
const INSIDE: &str = "--inside";

/// The triggers that every engine has.
pub(crate) const TRIGGERS: [Trigger; 3] = [Trigger::LEVEL, Trigger::EDGE, Trigger::ONESHOT];

/// Every behaviour on every engine: what is run, and what it is called.
#[derive(Default)]
pub(crate) struct Suite {
    cases: Vec<Case>,
}

struct Case {
    name: String,
    run: Box<dyn Fn() + Sync>,
}

impl Suite {
    /// A behaviour that is no engine's in particular.
    pub(crate) fn once<F: Fn() + Sync + 'static>(&mut self, behaviour: F) {
        self.add(name_of::<F>(), behaviour);
    }

    /// A case of any name.
    pub(crate) fn add(&mut self, name: String, run: impl Fn() + Sync + 'static) {
        self.cases.push(Case { name, run: Box::new(run) });
    }

    /// A behaviour that every engine shows.
    pub(crate) fn on_each_engine<F: Fn(EngineKind) + Copy + Sync + 'static>(&mut self, behaviour: F) {
        for kind in engines() {
            let name = format!("{} [{}]", name_of::<F>(), kind.name());
            self.add(name, move || behaviour(kind));
        }
    }

    /// A behaviour that every engine shows under every trigger, each in its own way.
    pub(crate) fn on_each_trigger<F>(&mut self, behaviour: F)
    where
        F: Fn(EngineKind, Trigger) + Copy + Sync + 'static,
    {
        for kind in engines() {
            for trigger in TRIGGERS {
                let name = format!("{} [{}, {trigger:?}]", name_of::<F>(), kind.name());
                self.add(name, move || behaviour(kind, trigger));
            }
        }
    }

    /// Does what the command line asks for. Most cases sleep most of their time: there are
    /// several at once for each processor.
    pub(crate) fn main(self) -> ExitCode {
        self.main_with(6)
    }

    /// The same, with that many cases at once for each processor.
    pub(crate) fn main_with(self, for_each_processor: usize) -> ExitCode {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        if let [first, name] = arguments.as_slice() {
            if first == INSIDE {
                return self.run_inside(name);
            }
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let asked = Asked::from(arguments, for_each_processor * processors);
        let cases: Vec<&Case> = self.cases.iter().filter(|case| asked.wants(&case.name)).collect();
        if asked.list {
            cases.iter().for_each(|case| println!("{}: test", case.name));
            return ExitCode::SUCCESS;
        }
        run_each_in_its_process(&cases, asked.threads)
    }

    fn run_inside(&self, name: &str) -> ExitCode {
        sys::end_after_seconds(PATIENCE);
        let case = self.cases.iter().find(|case| case.name == name).expect("a case of that name");
        (case.run)();
        ExitCode::SUCCESS
    }
}

/// What the command line asks for.
struct Asked {
    names: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    list: bool,
    threads: usize,
}

impl Asked {
    fn from(arguments: Vec<String>, threads: usize) -> Self {
        let mut asked = Self { names: Vec::new(), skipped: Vec::new(), exact: false, list: false, threads };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => asked.exact = true,
                "--list" => asked.list = true,
                "--skip" => asked.skipped.extend(arguments.next()),
                "--test-threads" => {
                    asked.threads = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(threads);
                }
                flag if flag.starts_with('-') => {}
                _ => asked.names.push(argument),
            }
        }
        asked
    }

    fn wants(&self, name: &str) -> bool {
        let matches = |asked: &String| if self.exact { name == asked } else { name.contains(asked) };
        let is_named = self.names.is_empty() || self.names.iter().any(matches);
        is_named && !self.skipped.iter().any(matches)
    }
}

/// Runs the cases, `threads` of them at a time, and lists those that failed.
fn run_each_in_its_process(cases: &[&Case], threads: usize) -> ExitCode {
    let begun = Instant::now();
    let next = Mutex::new(cases.iter());
    let failed = Mutex::new(Vec::new());
    let notes = Mutex::new(BTreeMap::<String, Vec<&str>>::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| loop {
                let Some(case) = next.lock().unwrap().next() else { break };
                let Output { status, stdout, stderr } = run_in_a_process(case);
                let [said, cried] =
                    [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                if !status.success() {
                    println!("---- {}: {status}\n{said}{cried}", case.name);
                    failed.lock().unwrap().push(case.name.as_str());
                } else if !said.is_empty() {
                    notes.lock().unwrap().entry(said).or_default().push(&case.name);
                }
            });
        }
    });
    for (note, names) in notes.into_inner().unwrap() {
        println!("note: {} ({} cases, {} the first)", note.trim_end(), names.len(), names[0]);
    }
    let failed = failed.into_inner().unwrap();
    failed.iter().for_each(|name| println!("    {name}"));
    println!(
        "\ntest result: {}. {} passed; {} failed; engines {}; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        cases.len() - failed.len(),
        failed.len(),
        engines().map(EngineKind::name).collect::<Vec<_>>().join(", "),
        begun.elapsed().as_secs_f64(),
    );
    ExitCode::from(u8::from(!failed.is_empty()))
}

fn run_in_a_process(case: &Case) -> Output {
    let program = std::env::current_exe().expect("the program knows its own path");
    let mut command = Command::new(program);
    command.arg(INSIDE).arg(&case.name).env_remove("OMNIPOLL_ENGINE").stdin(Stdio::null());
    command.output().expect("the program can be started again")
}

/// `edge::the_pipe_experiment`, from the function's type.
pub(crate) fn name_of<F>() -> String {
    let path = type_name::<F>();
    path.split_once("::").map_or(path, |(_, name)| name).to_owned()
}

/// READ under `trigger`, which is what most behaviours watch.
pub(crate) fn read(trigger: Trigger) -> Interest {
    Interest::READ | trigger
}
