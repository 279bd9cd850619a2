//! A fixed number of waits and nothing else, for tools that count: see `count.sh`.
//!
//! `count raw|omnipoll|polling <watched> <ready> <waits>`. What is ready is never read, so each
//! of the waits returns at once with all of it. (mio has edges only: it would wait for ever.)

use omnipoll_bench::{contender, pairs::Pairs};

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [name, numbers @ ..] = arguments.as_slice() else { return usage() };
    let numbers: Option<Vec<usize>> = numbers.iter().map(|number| number.parse().ok()).collect();
    let (Some(mut contender), Some(&[watched, ready, waits])) =
        (contender::by_name(name).filter(|_| name != "mio"), numbers.as_deref())
    else {
        return usage();
    };
    let mut pairs = Pairs::new(watched);
    pairs.watched().for_each(|fd| contender.watch(fd));
    pairs.make_ready(ready);
    for _ in 0..waits {
        assert_eq!(contender.wait_only(), ready);
    }
}

fn usage() {
    eprintln!("usage: count raw|omnipoll|polling <watched> <ready> <waits>");
    std::process::exit(2);
}
