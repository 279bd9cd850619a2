//! The time of wait and read for each event, on epoll: a bare `epoll_wait`, omnipoll, mio, polling.
//!
//! `readiness [--quick]`. The bare loop runs twice: how far its second ratio is from 1 is how
//! far to trust the others.

use std::time::Duration;

use omnipoll_bench::{contender, contest, machine, pairs::Pairs};

const NAMES: [&str; 5] = ["raw", "raw", "omnipoll", "mio", "polling"];

fn main() {
    machine::settle_down();
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let budget = Duration::from_millis(if is_quick { 250 } else { 2_000 });
    println!("Wait and read one byte, Rust crates on epoll, ns an event; ratio to raw: median (quartiles)\n");
    print!("{:>7}{:>7}{:>9}", "watched", "ready", "raw");
    NAMES[1..].iter().for_each(|name| print!("{name:>11}{:22}", ""));
    println!();
    for watched in [100, 1_000, 9_000, 50_000] {
        if machine::raise_descriptor_limit(2 * watched + 100) < 2 * watched + 100 {
            println!("{watched:>7}  not measured: the descriptor limit is lower");
            continue;
        }
        measure(watched as usize, budget);
    }
}

fn measure(watched: usize, budget: Duration) {
    let (clock, mut pairs) = (machine::Clock::new(), Pairs::new(watched));
    let mut contenders: Vec<_> =
        NAMES.iter().map(|name| contender::by_name(name).expect("a contender")).collect();
    for contender in &mut contenders {
        pairs.watched().for_each(|fd| contender.watch(fd));
    }
    for ready in [1, 100, 1_000].into_iter().filter(|&ready| ready <= watched) {
        let turn =
            |contender: &mut dyn contender::Contender| [contest::serve(contender, &mut pairs, ready, &clock)];
        let scores = contest::hold(&mut contenders, budget, turn);
        print!("{watched:>7}{ready:>7}{:>9.1}", scores[0][0].nanoseconds);
        scores[1..].iter().for_each(|[score]| print!("{score}"));
        println!();
    }
}
