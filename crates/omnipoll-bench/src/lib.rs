//! What omnipoll costs, measured side by side with bare system calls and with other libraries.
//!
//! `race/` builds all programs, runs them in turns, and writes `docs/race.md`; the programs under
//! `src/bin` and `c/` measure, and print a line of JSON for each contender; those named `echo_`, `proxy_` and
//! `serve_` are servers, driven by `load`, `wrk` and `redis-benchmark`. Apart from the race stand
//! `wake`, and `count.sh`, which counts instructions and system calls. Nothing here is a test: a
//! busy machine may make any figure look bad, so none of them fails anything.

pub mod echo;
pub mod figures;
pub mod histogram;
pub mod machine;
pub mod pairs;
pub mod protocol;
pub mod random;
pub mod turns;
pub mod watcher;
pub mod wheel;
