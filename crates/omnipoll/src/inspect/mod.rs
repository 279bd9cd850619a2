//! What is inside a [`Poller`](crate::Poller): its counts, and everything it watches.

mod dump;
mod stats;

pub use dump::Registered;
pub(crate) use stats::Rounds;
pub use stats::Stats;
