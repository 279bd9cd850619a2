//! What a random program is made of.

use omnipoll::{Interest, Trigger};
use proptest::prelude::*;

use crate::channel::{Action, Kind};

/// How many channels a program may have open at a time.
pub(crate) const SLOTS: usize = 4;

/// One step. Those that need a channel do nothing where none is open, and `Open` nothing
/// where one is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Open {
        slot: usize,
        kind: Kind,
    },
    Add {
        slot: usize,
        interest: Interest,
    },
    Modify {
        slot: usize,
        interest: Interest,
    },
    Remove {
        slot: usize,
    },
    Rearm {
        slot: usize,
        interest: Interest,
    },
    Do {
        slot: usize,
        action: Action,
    },
    /// Closes, waits with so much room before it removes, and removes.
    Close {
        slot: usize,
        looks: Option<usize>,
    },
    Wake,
    Wait {
        capacity: usize,
    },
}

impl Operation {
    pub(crate) fn slot(self) -> usize {
        match self {
            Self::Open { slot, .. }
            | Self::Add { slot, .. }
            | Self::Modify { slot, .. }
            | Self::Remove { slot }
            | Self::Rearm { slot, .. }
            | Self::Do { slot, .. }
            | Self::Close { slot, .. } => slot,
            Self::Wake | Self::Wait { .. } => 0,
        }
    }
}

pub(crate) fn programs() -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(operation(), 1..80)
}

fn operation() -> impl Strategy<Value = Operation> {
    let slot = || 0..SLOTS;
    let kind = prop::sample::select(vec![Kind::Reader, Kind::Writer, Kind::Pair]);
    let action = prop::sample::select(vec![
        Action::TheirsWrites,
        Action::TheirsWrites,
        Action::Drain,
        Action::Drain,
        Action::Fill,
        Action::TheirsDrains,
        Action::HangUp,
    ]);
    let room = || prop::sample::select(vec![1, 2, 3, 8]);
    prop_oneof![
        4 => (slot(), kind).prop_map(|(slot, kind)| Operation::Open { slot, kind }),
        4 => (slot(), interest()).prop_map(|(slot, interest)| Operation::Add { slot, interest }),
        2 => (slot(), interest()).prop_map(|(slot, interest)| Operation::Modify { slot, interest }),
        1 => slot().prop_map(|slot| Operation::Remove { slot }),
        3 => (slot(), directions()).prop_map(|(slot, interest)| Operation::Rearm { slot, interest }),
        10 => (slot(), action).prop_map(|(slot, action)| Operation::Do { slot, action }),
        1 => (slot(), prop::option::of(room())).prop_map(|(slot, looks)| Operation::Close { slot, looks }),
        1 => Just(Operation::Wake),
        8 => room().prop_map(|capacity| Operation::Wait { capacity }),
    ]
}

fn directions() -> impl Strategy<Value = Interest> {
    let (read, write) = (Interest::READ, Interest::WRITE);
    prop::sample::select(vec![read, read, write, read | write])
}

fn interest() -> impl Strategy<Value = Interest> {
    let (level, edge, once) = (Trigger::LEVEL, Trigger::EDGE, Trigger::ONESHOT);
    let trigger = prop::sample::select(vec![level, level, edge, edge, edge, once, once, edge | once]);
    (directions(), trigger).prop_map(|(directions, trigger)| directions | trigger)
}
