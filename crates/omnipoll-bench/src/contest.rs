//! How contenders are compared: in short turns, forwards and backwards, so that whatever slows
//! the machine down for a while slows down all of them.

use std::fmt;
use std::time::{Duration, Instant};

use crate::contender::Contender;
use crate::machine::{time, Clock};
use crate::pairs::Pairs;

/// What one contender came to.
pub struct Score {
    /// The median of its turns, in nanoseconds.
    pub nanoseconds: f64,
    /// Quartiles of its ratio to the first contender, taken turn by turn.
    pub ratio: [f64; 3],
}

/// Lets the contenders take turns until `budget` is used up. `turn` measures some things of one
/// of them, each in nanoseconds. The first contender is what the others are compared with.
pub fn hold<const THINGS: usize>(
    contenders: &mut [Box<dyn Contender>],
    budget: Duration,
    mut turn: impl FnMut(&mut dyn Contender) -> [f64; THINGS],
) -> Vec<[Score; THINGS]> {
    let mut times = vec![Vec::new(); contenders.len()];
    let begin = Instant::now();
    for sweep in 0.. {
        if sweep >= 4 && begin.elapsed() > budget {
            break;
        }
        for index in 0..contenders.len() {
            let index = if sweep % 2 == 0 { index } else { contenders.len() - 1 - index };
            times[index].push(turn(contenders[index].as_mut()));
        }
    }
    // The first sweep is for the caches.
    let first = &times[0][1..];
    times.iter().map(|own| std::array::from_fn(|thing| score(&own[1..], first, thing))).collect()
}

fn score<const THINGS: usize>(own: &[[f64; THINGS]], first: &[[f64; THINGS]], thing: usize) -> Score {
    let mut times: Vec<_> = own.iter().map(|times| times[thing]).collect();
    let mut ratios: Vec<_> = times.iter().zip(first).map(|(own, first)| own / first[thing]).collect();
    Score { nanoseconds: quartiles(&mut times)[1], ratio: quartiles(&mut ratios) }
}

/// [`serve`] goes on for this long, with at least three rounds and at most so many.
const TURN: Duration = Duration::from_millis(1);
const MOST_ROUNDS: usize = 100;

/// The time of an event over some rounds, after two for the caches. What is made ready is drawn
/// anew each time: a set used twice would be in the cache the second time.
pub fn serve(contender: &mut dyn Contender, pairs: &mut Pairs, ready: usize, clock: &Clock) -> f64 {
    // An epoll lists what the others' turns made ready until it is asked again.
    assert_eq!(contender.look(), 0, "everything was read");
    let mut round = || {
        pairs.make_ready(ready);
        let nanoseconds = time(clock, || assert_eq!(contender.serve(), ready));
        nanoseconds / ready as f64
    };
    round();
    round();
    let (begin, mut times) = (Instant::now(), Vec::with_capacity(MOST_ROUNDS));
    while times.len() < 3 || times.len() < MOST_ROUNDS && begin.elapsed() < TURN {
        times.push(round());
    }
    middle(&mut times)
}

/// The mean of the middle half: as steady as the median, and finer than the clock's steps.
pub fn middle(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let outer = values.len() / 4;
    let half = &values[outer..values.len() - outer];
    half.iter().sum::<f64>() / half.len() as f64
}

/// The values a quarter, a half and three quarters of the way up. There must be some.
fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_unstable_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

impl fmt::Display for Score {
    /// 33 columns: nanoseconds, ratio and its quartiles.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, middle, high] = self.ratio;
        write!(f, "{:11.1}{middle:8.3} ({low:.3}-{high:.3})", self.nanoseconds)
    }
}
