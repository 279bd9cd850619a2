//! What omnipoll costs, measured side by side with a bare `epoll_wait` and with other libraries.
//!
//! `run.sh` builds and runs everything; each program under `src/bin` prints one table. Nothing
//! here is a test: a busy machine may make any figure look bad, so none of them fails anything.

pub mod echo;
pub mod figures;
pub mod histogram;
pub mod machine;
pub mod pairs;
pub mod protocol;
pub mod random;
pub mod watcher;
pub mod wheel;
