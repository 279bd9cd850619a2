//! What the tests share: descriptors to watch, and words for what is expected of a poller.

// Each test program uses a part of this.
#![allow(dead_code)]

pub(crate) mod expect;
pub(crate) mod fds;
pub(crate) mod sys;

use omnipoll::EngineKind;

/// Every engine that is available here. A new one joins the suite by this line alone.
pub(crate) fn engines() -> impl Iterator<Item = EngineKind> {
    EngineKind::ALL.into_iter().filter(|kind| kind.is_available())
}
