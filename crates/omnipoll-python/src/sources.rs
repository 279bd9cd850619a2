//! What timers, signals, children and posts stand for in Python: an object for each.
//!
//! Every source gets a token that no other ever had, so an event that another thread collected
//! before its source ended finds nothing here.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use omnipoll::Event;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::table::DeferredDrop;

/// How many timers without a period keep their ids after they have expired, as in the core.
const MAX_EXPIRED: usize = 65_536;

#[derive(Default)]
pub(crate) struct Sources {
    /// By token.
    all: HashMap<u64, Source>,
    signals: HashMap<i32, u64>,
    children: HashMap<i32, u64>,
    /// Timers that have expired, the oldest first: the token and the number of the expiry, which
    /// shows whether one was set again since.
    expired: VecDeque<(u64, u64)>,
    /// How many timers of `all` are not armed.
    resting: usize,
    /// Counts the timers that expire.
    expiries: u64,
    /// The token given last.
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

#[derive(Clone, Copy)]
struct Timer {
    /// What the core knows it by.
    id: u64,
    clock: Clock,
    /// The number of its expiry, until it is set again.
    expired: Option<u64>,
}

/// What a timer goes by.
#[derive(Clone, Copy)]
pub(crate) enum Clock {
    /// A delay: it expires then, and not before.
    Once(Instant),
    /// A delay, and then a period.
    Periodic,
    /// A time of the wall clock.
    Wall,
}

impl Clock {
    /// Asked before the core is: its deadline is no earlier.
    pub(crate) fn of(delay: Duration, period: Option<Duration>) -> Self {
        period.map_or_else(|| Self::Once(Instant::now() + delay), |_| Self::Periodic)
    }
}

impl Sources {
    /// How many there are that events may come of.
    pub(crate) fn len(&self) -> usize {
        self.all.len() - self.resting
    }

    /// A token for the source that comes next.
    pub(crate) fn new_token(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(crate) fn add_timer(&mut self, token: u64, id: u64, clock: Clock, object: Py<PyAny>) {
        self.all.insert(token, Source { object, kind: Kind::Timer(Timer { id, clock, expired: None }) });
    }

    /// What the core knows a timer by. It has the words for one that has ended.
    pub(crate) fn timer_id(&mut self, token: u64) -> u64 {
        const NONE: u64 = 0;
        self.timer(token).map_or(NONE, |timer| timer.id)
    }

    /// A timer was set, and is armed again if it had expired.
    pub(crate) fn set_timer(&mut self, token: u64, clock: Clock) {
        let Some(timer) = self.timer(token) else { return };
        timer.clock = clock;
        let had_expired = timer.expired.take().is_some();
        self.resting -= usize::from(had_expired);
    }

    /// Ends a timer.
    pub(crate) fn end_timer(&mut self, token: u64) -> DeferredDrop {
        match self.timer(token) {
            Some(_) => self.end(token),
            None => DeferredDrop::default(),
        }
    }

    /// The timer with that token, which is the id that Python knows it by.
    fn timer(&mut self, token: u64) -> Option<&mut Timer> {
        match &mut self.all.get_mut(&token)?.kind {
            Kind::Timer(timer) => Some(timer),
            _ => None,
        }
    }

    /// A timer without a period is delivered. It keeps its id until it is cancelled, or until so many
    /// others have expired.
    fn expire(&mut self, token: u64) -> DeferredDrop {
        let number = self.expiries + 1;
        let Some(timer) = self.timer(token) else { return DeferredDrop::default() };
        let was_armed = timer.expired.replace(number).is_none();
        self.resting += usize::from(was_armed);
        self.expiries = number;
        self.expired.push_back((token, number));
        if self.expired.len() <= MAX_EXPIRED {
            return DeferredDrop::default();
        }
        let oldest = self.expired.pop_front();
        let is_as_then = |&(token, number): &(u64, u64)| {
            self.timer(token).is_some_and(|timer| timer.expired == Some(number))
        };
        match oldest.filter(is_as_then) {
            Some((token, _)) => self.end(token),
            None => DeferredDrop::default(),
        }
    }

    pub(crate) fn add_signal(&mut self, token: u64, signo: i32, object: Py<PyAny>) {
        self.signals.insert(signo, token);
        self.all.insert(token, Source { object, kind: Kind::Signal });
    }

    pub(crate) fn remove_signal(&mut self, signo: i32) -> DeferredDrop {
        self.signals.remove(&signo).map_or_else(DeferredDrop::default, |token| self.end(token))
    }

    pub(crate) fn add_child(&mut self, token: u64, pid: i32, object: Py<PyAny>) {
        self.children.insert(pid, token);
        self.all.insert(token, Source { object, kind: Kind::Child(pid) });
    }

    pub(crate) fn remove_child(&mut self, pid: i32) -> DeferredDrop {
        self.children.get(&pid).copied().map_or_else(DeferredDrop::default, |token| self.end(token))
    }

    pub(crate) fn add_post(&mut self, token: u64, object: Py<PyAny>) {
        self.all.insert(token, Source { object, kind: Kind::Post });
    }

    /// Ends a source.
    pub(crate) fn end(&mut self, token: u64) -> DeferredDrop {
        let Some(source) = self.all.remove(&token) else { return DeferredDrop::default() };
        match source.kind {
            Kind::Timer(timer) => self.resting -= usize::from(timer.expired.is_some()),
            // Its number may already stand for another child.
            Kind::Child(pid) if self.children.get(&pid) == Some(&token) => _ = self.children.remove(&pid),
            Kind::Child(_) | Kind::Signal | Kind::Post => {}
        }
        DeferredDrop::of(source.object)
    }

    /// The object of the source that this event is of.
    pub(crate) fn object(&self, event: &Event) -> Option<&Py<PyAny>> {
        self.all.get(&event.token()).map(|source| &source.object)
    }

    /// Ends the source that this event is of, if it is the last one.
    pub(crate) fn delivered(&mut self, event: &Event) -> DeferredDrop {
        match self.all.get(&event.token()).map(|source| source.kind) {
            Some(Kind::Timer(Timer { clock: Clock::Periodic, .. }) | Kind::Signal) => DeferredDrop::default(),
            // Another thread has set it after the core had returned its event.
            Some(Kind::Timer(Timer { clock: Clock::Once(time), .. })) if Instant::now() < time => {
                DeferredDrop::default()
            }
            Some(Kind::Timer(Timer { clock: Clock::Once(_), .. })) => self.expire(event.token()),
            _ => self.end(event.token()),
        }
    }

    /// In a forked child: its parent's children and posts are not its own.
    pub(crate) fn after_fork(&mut self) -> Vec<DeferredDrop> {
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
