//! The time to add and to remove a registration, beside a bare `epoll_ctl`.
//!
//! `registration [--quick]`. On select and poll, which ask `fstat(2)` which file it is, the
//! ratio is still to `epoll_ctl`.

use std::time::Duration;

use omnipoll::EngineKind;
use omnipoll_bench::contender::{self, Contender};
use omnipoll_bench::{contest, machine, pairs::Pairs};

const REGISTRATIONS: usize = 9_000;

fn main() {
    machine::settle_down();
    machine::raise_descriptor_limit(2 * REGISTRATIONS as u64 + 100);
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let budget = Duration::from_millis(if is_quick { 500 } else { 4_000 });
    let (clock, pairs) = (machine::Clock::new(), Pairs::new(REGISTRATIONS));
    let (names, mut contenders): (Vec<_>, Vec<_>) = contenders().into_iter().unzip();

    let scores = contest::hold(&mut contenders, budget, |contender| {
        let added = machine::time(&clock, || pairs.watched().for_each(|fd| contender.watch(fd)));
        let removed = machine::time(&clock, || pairs.watched().for_each(|fd| contender.forget(fd)));
        [added, removed].map(|nanoseconds| nanoseconds / REGISTRATIONS as f64)
    });

    println!(
        "Register and unregister {REGISTRATIONS} descriptors, ns each; ratio to raw: median (quartiles)\n"
    );
    println!("{:16}{:>11}{:22}{:>11}", "", "add", "", "remove");
    for (name, [added, removed]) in names.iter().zip(scores) {
        println!("{name:16}{added}{removed}");
    }
}

fn contenders() -> Vec<(&'static str, Box<dyn Contender>)> {
    let ours = |kind| -> Box<dyn Contender> { Box::new(contender::Omnipoll::new(kind)) };
    let named = |name| contender::by_name(name).expect("a contender");
    vec![
        ("raw", named("raw")),
        ("raw", named("raw")),
        ("omnipoll epoll", named("omnipoll")),
        ("omnipoll poll", ours(EngineKind::Poll)),
        ("omnipoll select", ours(EngineKind::Select)),
        ("mio", named("mio")),
        ("polling", named("polling")),
    ]
}
