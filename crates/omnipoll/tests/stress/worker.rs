//! A thread that changes the poller in every way there is, a bounded number of times.

use std::fs::File;
use std::thread;
use std::time::Duration;

use omnipoll::{Interest, Poller, Trigger};

use crate::accounting::{token, Accounting, Asked, Times};
use crate::suite::TRIGGERS;
use crate::support::sys;

/// What one worker does, in calls of every kind.
const OPERATIONS: usize = 3_000;
/// An operation uses one token at most; the last registrations, one each.
pub(crate) const MAX_TOKENS: usize = OPERATIONS + PIPES;
pub(crate) const PIPES: usize = 6;

/// An armed timer: its id, its token, whether it has a period, whether it was set again.
type Armed = (u64, u64, bool, bool);

pub(crate) struct Worker<'a> {
    poller: &'a Poller,
    accounting: &'a Accounting,
    readers: &'a [File],
    writers: Vec<File>,
    /// Of each pipe's registration, if it has one: token and trigger.
    registered: [Option<(u64, Trigger)>; PIPES],
    armed: Vec<Armed>,
    asked: Asked,
    random: u64,
}

impl<'a> Worker<'a> {
    /// Writes to these pipes, and is the only one to change what is registered of them.
    pub(crate) fn new(
        poller: &'a Poller,
        accounting: &'a Accounting,
        readers: &'a [File],
        writers: Vec<File>,
        thread: usize,
    ) -> Self {
        Self {
            poller,
            accounting,
            readers,
            writers,
            registered: [None; PIPES],
            armed: Vec::new(),
            asked: Asked { thread, tokens: Vec::new(), posts: 0, wakes: 0 },
            random: 0x9e37_79b9_7f4a_7c15 ^ (thread as u64 + 1),
        }
    }

    pub(crate) fn run(mut self) -> Asked {
        for _ in 0..OPERATIONS {
            match self.draw(12) {
                0 | 1 => self.begin_or_modify(),
                2 => self.remove(),
                3 => self.rearm(),
                4 | 5 => self.trigger_readiness(),
                6 => self.add_and_remove(),
                7 => self.post(),
                8 => self.wake(),
                9 => self.arm(),
                10 => self.cancel(),
                _ => self.move_timer(),
            }
        }
        self.leave()
    }

    /// Marsaglia's xorshift; below `end`.
    fn draw(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) as usize % end
    }

    fn new_token(&mut self, times: Times) -> u64 {
        self.asked.tokens.push(times);
        token(self.asked.thread, self.asked.tokens.len() - 1)
    }

    fn expect(&mut self, token: u64, times: Times) {
        self.asked.tokens[token as u32 as usize] = times;
    }

    /// A call has ended this token's life: no wait that begins now may report it.
    fn end(&self, old: Option<(u64, Trigger)>) {
        old.inspect(|&(token, _)| self.accounting.end(token));
    }

    fn begin_or_modify(&mut self) {
        let (index, trigger) = (self.draw(PIPES), TRIGGERS[self.draw(3)]);
        self.register(index, trigger, Times::Any);
    }

    /// Registers a pipe, or replaces its registration, under a token that is new.
    fn register(&mut self, index: usize, trigger: Trigger, times: Times) {
        let is_once = times == Times::Any && trigger.contains(Trigger::ONESHOT);
        let token = self.new_token(if is_once { Times::OnceAtMost } else { times });
        let (reader, interest) = (&self.readers[index], Interest::READ | trigger);
        let old = self.registered[index].replace((token, trigger));
        match old {
            Some(_) => self.poller.modify(reader, interest, token).expect("modify"),
            None => self.poller.add(reader, interest, token).expect("add"),
        }
        self.end(old);
    }

    fn remove(&mut self) {
        let index = self.draw(PIPES);
        let old = self.registered[index].take();
        let result = self.poller.remove(&self.readers[index]);
        assert_eq!(
            result.err().and_then(|error| error.raw_os_error()),
            old.is_none().then_some(libc::ENOENT)
        );
        self.end(old);
    }

    fn rearm(&mut self) {
        let index = self.draw(PIPES);
        let expected = match self.registered[index] {
            None => Some(libc::ENOENT),
            Some((_, trigger)) => trigger.contains(Trigger::ONESHOT).then_some(libc::EINVAL),
        };
        let result = self.poller.rearm(&self.readers[index], Interest::READ);
        assert_eq!(result.err().and_then(|error| error.raw_os_error()), expected);
    }

    fn trigger_readiness(&mut self) {
        let index = self.draw(PIPES);
        // Full, perhaps, while it is not watched.
        let _ = std::io::Write::write(&mut &self.writers[index], b".");
    }

    /// A number that is soon another thread's: no event of this life may reach the next.
    fn add_and_remove(&mut self) {
        let always = sys::eventfd(1);
        let token = self.new_token(Times::OnceAtMost);
        self.poller.add(&always, Interest::READ | Trigger::ONESHOT, token).expect("add");
        self.poller.remove(&always).expect("remove");
        self.accounting.end(token);
    }

    fn post(&mut self) {
        while let Err(error) = self.poller.post(self.asked.thread as u64, self.asked.posts) {
            assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "post: {error}");
            thread::yield_now();
        }
        self.asked.posts += 1;
    }

    fn wake(&mut self) {
        self.poller.wake().expect("wake");
        self.asked.wakes += 1;
    }

    fn arm(&mut self) {
        let delay = Duration::from_micros(self.draw(2_000) as u64);
        let period = (self.draw(4) == 0).then_some(Duration::from_millis(1));
        let token = self.new_token(if period.is_some() { Times::Any } else { Times::Once });
        let id = self.poller.timer_add(delay, period, token).expect("timer_add");
        self.armed.push((id, token, period.is_some(), false));
    }

    fn cancel(&mut self) {
        if self.armed.is_empty() {
            return;
        }
        let index = self.draw(self.armed.len());
        let armed = self.armed.swap_remove(index);
        self.cancel_one(armed);
    }

    /// A timer without a period has either expired, and is reported once, or is never reported. One
    /// that was set again may have expired before.
    fn cancel_one(&mut self, (id, token, is_periodic, was_set): Armed) {
        match self.poller.timer_cancel(id) {
            Ok(()) if is_periodic => self.accounting.end(token),
            Ok(()) => self.expect(token, if was_set { Times::Any } else { Times::Never }),
            Err(error) => assert_eq!((error.raw_os_error(), is_periodic), (Some(libc::ESTALE), false)),
        }
    }

    fn move_timer(&mut self) {
        if self.armed.is_empty() {
            return;
        }
        let index = self.draw(self.armed.len());
        let (id, token, is_periodic, _) = self.armed[index];
        let delay = Duration::from_micros(self.draw(2_000) as u64);
        match self.poller.timer_set(id, delay, is_periodic.then_some(Duration::from_millis(1))) {
            Ok(()) if is_periodic => {}
            Ok(()) => {
                self.armed[index].3 = true;
                self.expect(token, Times::OnceAtLeast);
            }
            Err(error) => assert_eq!((error.raw_os_error(), is_periodic), (Some(libc::ESTALE), false)),
        }
    }

    /// Ends every period, and the timers that were set again: of these the last expiry may come after the one
    /// that is waited for. Leaves each pipe registered and hung up: whatever happened to it
    /// before, this must be reported. (A byte could be read by a waiter that still serves an event of
    /// before; an end of file stays.)
    fn leave(mut self) -> Asked {
        for armed in std::mem::take(&mut self.armed) {
            if armed.2 || armed.3 {
                self.cancel_one(armed);
            }
        }
        for (index, writer) in std::mem::take(&mut self.writers).into_iter().enumerate() {
            self.register(index, TRIGGERS[index % 3], Times::OnceAtLeast);
            drop(writer);
        }
        self.asked
    }
}
