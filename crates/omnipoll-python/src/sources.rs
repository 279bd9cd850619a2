//! What timers, signals, children and posts stand for in Python: an object for each.
//!
//! Every source gets a token that no other ever had, so an event that another thread collected
//! before its source ended finds nothing here.

use std::collections::HashMap;

use omnipoll::{Event, EventKind};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::table::Leftover;

/// In a timer's token: it has a period, so that its event doesn't end it. Known by the token,
/// because the timer may be given another period between the core's event and our report.
const PERIODIC: u64 = 1;

#[derive(Default)]
pub(crate) struct Sources {
    /// By token, without PERIODIC.
    all: HashMap<u64, Source>,
    signals: HashMap<i32, u64>,
    children: HashMap<i32, u64>,
    /// The token given last; always even.
    last: u64,
}

struct Source {
    object: Py<PyAny>,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Timer(Timer),
    Signal,
    Child(i32),
    Post,
}

/// A timer as the core knows it.
#[derive(Clone, Copy)]
pub(crate) struct Timer {
    pub(crate) id: u64,
    pub(crate) clock: Clock,
}

/// What a timer goes by. It also says which changes need a new token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// A delay.
    Once,
    /// A delay, and then a period.
    Periodic,
    /// A time of the wall clock.
    Wall,
}

impl Clock {
    pub(crate) fn of_period<T>(period: Option<T>) -> Self {
        period.map_or(Self::Once, |_| Self::Periodic)
    }
}

impl Sources {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// A token for the source that comes next.
    pub(crate) fn new_token(&mut self) -> u64 {
        self.last += 2;
        self.last
    }

    pub(crate) fn add_timer(&mut self, token: u64, timer: Timer, object: Py<PyAny>) {
        self.all.insert(token, Source { object, kind: Kind::Timer(timer) });
    }

    /// The timer of that id, unless it has ended. Python knows a timer by its token.
    pub(crate) fn timer(&mut self, id: u64) -> Option<&mut Timer> {
        match &mut self.all.get_mut(&id)?.kind {
            Kind::Timer(timer) => Some(timer),
            _ => None,
        }
    }

    pub(crate) fn add_signal(&mut self, token: u64, signo: i32, object: Py<PyAny>) {
        self.signals.insert(signo, token);
        self.all.insert(token, Source { object, kind: Kind::Signal });
    }

    pub(crate) fn remove_signal(&mut self, signo: i32) -> Leftover {
        self.signals.remove(&signo).map_or_else(Leftover::default, |token| self.end(token))
    }

    pub(crate) fn add_child(&mut self, token: u64, pid: i32, object: Py<PyAny>) {
        self.children.insert(pid, token);
        self.all.insert(token, Source { object, kind: Kind::Child(pid) });
    }

    pub(crate) fn remove_child(&mut self, pid: i32) -> Leftover {
        self.children.get(&pid).copied().map_or_else(Leftover::default, |token| self.end(token))
    }

    pub(crate) fn add_post(&mut self, token: u64, object: Py<PyAny>) {
        self.all.insert(token, Source { object, kind: Kind::Post });
    }

    /// Ends a source.
    pub(crate) fn end(&mut self, token: u64) -> Leftover {
        let Some(source) = self.all.remove(&token) else { return Leftover::default() };
        if let Kind::Child(pid) = source.kind {
            // Its number may already stand for another child.
            if self.children.get(&pid) == Some(&token) {
                self.children.remove(&pid);
            }
        }
        Leftover::of(source.object)
    }

    /// The object of the source that this event is of.
    pub(crate) fn object(&self, event: &Event) -> Option<&Py<PyAny>> {
        self.all.get(&(event.token() & !PERIODIC)).map(|source| &source.object)
    }

    /// Ends the source that this event is of, if it is the last one.
    pub(crate) fn told(&mut self, event: &Event) -> Leftover {
        let goes_on = match event.kind() {
            EventKind::Timer => event.token() & PERIODIC != 0,
            kind => kind == EventKind::Signal,
        };
        match goes_on {
            true => Leftover::default(),
            false => self.end(event.token()),
        }
    }

    /// In a forked child: its parent's children and posts are not its own.
    pub(crate) fn after_fork(&mut self) -> Vec<Leftover> {
        self.children.clear();
        let inherited = |source: &Source| matches!(source.kind, Kind::Child(_) | Kind::Post);
        let tokens = self.all.iter().filter(|(_, source)| inherited(source)).map(|(token, _)| *token);
        let tokens: Vec<_> = tokens.collect();
        tokens.into_iter().map(|token| self.end(token)).collect()
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.all.values().try_for_each(|source| visit.call(&source.object))
    }
}

/// A timer's token as the core gets it.
pub(crate) fn as_told(token: u64, clock: Clock) -> u64 {
    match clock {
        Clock::Periodic => token | PERIODIC,
        Clock::Once | Clock::Wall => token,
    }
}
