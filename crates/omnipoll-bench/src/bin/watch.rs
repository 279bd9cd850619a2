//! What it costs to watch descriptors through Rust crates. The C program `watch.c` says what is
//! measured, and has the same arguments:
//!
//! `watch PAIRS READY IDLE MILLISECONDS`, or `watch count CONTENDER PAIRS READY WAITS`. (mio has
//! edges only: a wait for what was not read would never end.)

use std::time::{Duration, Instant};

use omnipoll::{Capabilities, EngineKind, Trigger};
use omnipoll_bench::watcher::{Mio, Omnipoll, Polling, Raw, Watcher, Wish};
use omnipoll_bench::{figures, machine, pairs, pairs::Pairs, random::Random};

/// How long the rounds of a turn last, unless it needs longer for three.
const ROUNDS_TIME: Duration = Duration::from_millis(1);
const MAX_ROUNDS: usize = 100;

const FIGURES: [&str; 5] = ["event_ns", "add_ns", "change_ns", "remove_ns", "bytes"];

type Turn = [f64; FIGURES.len()];

/// What watches, and what is watched.
struct Match {
    pairs: Pairs,
    ready: usize,
    clock: machine::Clock,
}

type TakeTurn = dyn Fn(&mut Match) -> Turn;
type Count = dyn Fn(&mut Match, usize);

/// A turn and a count of waits, with the watcher's calls compiled in.
struct Contender {
    name: String,
    turn: Box<TakeTurn>,
    count: Box<Count>,
}

impl Contender {
    fn new<W: Watcher>(name: &str, open: impl Fn() -> W + Copy + 'static) -> Self {
        Self {
            name: format!("{name}, Rust"),
            turn: Box::new(move |own| own.turn(open)),
            count: Box::new(move |own, waits| own.count(open(), waits)),
        }
    }
}

/// The first is what the others are compared with; it runs twice, which shows the noise.
fn contenders() -> Vec<Contender> {
    let mut all = vec![
        Contender::new("raw epoll", Raw::new),
        Contender::new("raw epoll again", Raw::new),
        Contender::new("mio", Mio::new),
        Contender::new("polling", Polling::new),
    ];
    let engines = (1..).map_while(EngineKind::from_number).filter(|engine| engine.is_available());
    for engine in engines {
        let mut enter = |suffix, trigger| {
            let name = format!("omnipoll {}{suffix}", engine.name());
            all.push(Contender::new(&name, move || Omnipoll::new(engine, trigger)));
        };
        enter("", Trigger::LEVEL);
        if engine.capabilities().contains(Capabilities::NATIVE_EDGE) {
            enter(", edges", Trigger::EDGE);
        }
    }
    all
}

impl Match {
    fn new(pairs: usize, ready: usize, idle: usize) -> Self {
        machine::raise_descriptor_limit((2 * pairs + idle + 100) as u64);
        Self { pairs: Pairs::new(pairs, idle), ready, clock: machine::Clock::default() }
    }

    fn turn<W: Watcher>(&mut self, open: impl Fn() -> W) -> Turn {
        let all: Vec<_> = self.pairs.watched().chain(self.pairs.idle()).collect();
        let changed = &all[..self.pairs.watched().count()];
        let before = machine::allocated();
        let mut watcher = open();
        let each = |watcher: &mut W, fds: &[i32], change: fn(&mut W, i32)| {
            let begin = Instant::now();
            fds.iter().for_each(|&fd| change(watcher, fd));
            assert_eq!(watcher.wait(Some(Duration::ZERO), |_| ()), 0, "nothing is ready");
            begin.elapsed().as_nanos() as f64 / fds.len() as f64
        };
        let add = each(&mut watcher, &all, W::add);
        let event = self.rounds(&mut watcher);
        let bytes = (machine::allocated() - before) / all.len() as f64;
        let change = each(&mut watcher, changed, |watcher, fd| watcher.change(fd, Wish::Write));
        let remove = each(&mut watcher, &all, W::remove);
        [event, add, change, remove, bytes]
    }

    fn rounds(&mut self, watcher: &mut impl Watcher) -> f64 {
        let mut times = Vec::with_capacity(MAX_ROUNDS);
        let mut round = || {
            self.pairs.make_ready(self.ready);
            let (ready, mut visited) = (self.ready, 0);
            let nanoseconds = machine::time(&self.clock, || {
                while visited < ready {
                    visited += watcher.wait(None, pairs::read_byte);
                }
            });
            nanoseconds / ready as f64
        };
        round();
        round();
        let begin = Instant::now();
        while times.len() < 3 || times.len() < MAX_ROUNDS && begin.elapsed() < ROUNDS_TIME {
            times.push(round());
        }
        figures::middle(&mut times)
    }

    fn count(&mut self, mut watcher: impl Watcher, waits: usize) {
        self.pairs.watched().for_each(|fd| watcher.add(fd));
        self.pairs.make_ready(self.ready);
        for _ in 0..waits {
            let ready = watcher.wait(None, |fd| {
                std::hint::black_box(fd);
            });
            assert_eq!(ready, self.ready);
        }
    }
}

/// The contenders take turns, in an order drawn again each time, for what one leaves behind in the
/// kernel's caches is found by the next. The first turn of each is for our own.
fn compare(mut own: Match, budget: Duration) {
    own.clock = machine::Clock::measured();
    let contenders = contenders();
    let mut figures = vec![[const { Vec::new() }; FIGURES.len()]; contenders.len()];
    let (mut order, mut random) = ((0..contenders.len()).collect::<Vec<_>>(), Random::new());
    let begin = Instant::now();
    for sweep in 0.. {
        if sweep >= 4 && begin.elapsed() > budget {
            break;
        }
        random.shuffle(&mut order);
        for &index in &order {
            let turn = (contenders[index].turn)(&mut own);
            if sweep > 0 {
                figures[index].iter_mut().zip(turn).for_each(|(values, value)| values.push(value));
            }
        }
    }
    for (contender, values) in contenders.iter().zip(figures) {
        figures::print(&contender.name, &FIGURES.into_iter().zip(values).collect::<Vec<_>>());
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let number = |text: &String| text.parse::<usize>().expect("a number");
    match arguments.as_slice() {
        [word, name, numbers @ ..] if word == "count" => {
            let [pairs, ready, waits] = numbers else { return usage() };
            let mut own = Match::new(number(pairs), number(ready), 0);
            let contender = contenders().into_iter().find(|contender| contender.name == *name);
            (contender.expect("a contender of that name").count)(&mut own, number(waits));
        }
        [pairs, ready, idle, milliseconds] => {
            machine::settle_down();
            let own = Match::new(number(pairs), number(ready), number(idle));
            compare(own, Duration::from_millis(number(milliseconds) as u64));
        }
        _ => usage(),
    }
}

fn usage() {
    eprintln!("usage: watch PAIRS READY IDLE MILLISECONDS, or watch count CONTENDER PAIRS READY WAITS");
    std::process::exit(2);
}
