//! A server that serves, and one that stops: each of its calls fails once, then from one on.

use std::time::{Duration, Instant};

use omnipoll::{EngineKind, Model};

use crate::calls::{Call, CALLS, LASTING};
use crate::client::Client;
use crate::plan::Fault;
use crate::process::{until, Process};
use crate::selection::{Asked, Tally, SOME};

/// Calls that fail while no client is served, during a lasting fault: a loop that spins
/// makes tens of thousands.
const SPINS: u32 = 500;

/// Bytes that some hundred faults may leave behind: room that is kept for the next clients.
const LEAK: isize = 16_384;

pub(crate) struct Serving {
    model: Model,
    engine: EngineKind,
    process: Process,
    /// What it has open when all its clients have gone.
    descriptors: usize,
    allocated: isize,
}

impl Serving {
    fn start(model: Model, engine: EngineKind) -> Self {
        let process = Process::start(model, engine);
        for _ in 0..5 {
            assert_eq!(process.round(), Ok(0), "without any fault");
        }
        Self { model, engine, process, descriptors: 0, allocated: 0 }
    }

    /// One that knows what it has open at rest.
    fn start_and_settle(model: Model, engine: EngineKind) -> Self {
        let mut serving = Self::start(model, engine);
        serving.descriptors = serving.settled();
        serving.allocated = serving.allocated();
        serving
    }

    /// Its descriptors when their number changes no more.
    fn settled(&self) -> usize {
        let (mut count, mut since) = (self.process.descriptors(), Instant::now());
        while since.elapsed() < Duration::from_millis(100) {
            std::thread::sleep(Duration::from_millis(2));
            let now = self.process.descriptors();
            if now != count {
                (count, since) = (now, Instant::now());
            }
        }
        count
    }

    fn allocated(&self) -> isize {
        self.process.plan.allocated.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Whether all is as it was before a fault; if the server has ended, how.
    fn works_after(&mut self, fault: &Fault) -> Result<(), String> {
        let again = self.process.round();
        let may_end = !fault.is_survived();
        if self.process.has_ended() || again != Ok(0) && may_end && until(|| self.process.has_ended()) {
            return self.ended_with_message(fault);
        }
        match again? {
            0 => {}
            count => return Err(format!("{count} clients of the next two were not served")),
        }
        // Each of the two workers, once replaced, was forked when its parent had a descriptor of the
        // other.
        let most = self.descriptors + if self.model == Model::Prefork { 2 } else { 0 };
        let mut open = 0;
        let as_before = until(|| {
            open = self.process.descriptors();
            (self.descriptors..=most).contains(&open)
        });
        if !as_before {
            return Err(format!("{open} descriptors are open, and were {}", self.descriptors));
        }
        Ok(())
    }

    fn ended_with_message(&mut self, fault: &Fault) -> Result<(), String> {
        let (errno, words) = self.process.ending()?;
        if fault.is_survived() {
            return Err(format!("`run` has returned: {words}"));
        }
        if errno == 0 || words.is_empty() {
            return Err(format!("`run` has returned {errno}, {words:?}: no error, or no words"));
        }
        Ok(())
    }

    /// One call fails. `None` when there was no such call.
    fn once(&mut self, fault: &Fault) -> Option<Result<(), String>> {
        self.process.plan.arm(fault);
        let suffered = self.process.round();
        if self.process.plan.disarm() == 0 {
            return suffered.err().map(Err);
        }
        // Where the loop may give up, a worker's clients go with it.
        let most = match fault.call {
            _ if !fault.is_survived() => 2,
            call if call.is_unnoticed(fault.errno) => 0,
            _ => 1,
        };
        Some(match suffered {
            Ok(count) if count > most => Err(format!("{count} clients were not served")),
            Ok(_) => self.works_after(fault),
            Err(error) => match self.process.has_ended() {
                true => self.ended_with_message(fault),
                false => Err(error),
            },
        })
    }

    /// Every call fails from one on, for a while.
    fn for_a_while(&mut self, fault: &Fault) -> Option<Result<(), String>> {
        self.process.plan.arm(fault);
        let clients = [Client::connect(self.process.port), Client::connect(self.process.port)];
        clients.iter().for_each(|client| client.send(b"anybody there?"));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(120) && !self.process.has_ended() {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(clients);
        match self.process.plan.disarm() {
            0 => None,
            count if count > SPINS => Some(Err(format!("it spins: {count} calls have failed"))),
            _ => Some(self.works_after(fault)),
        }
    }

    /// A client is being served, the server is stopped, and a call fails.
    fn stop(&mut self, fault: &Fault) -> Option<Result<(), String>> {
        let mut client = Client::connect(self.process.port);
        if let Err(error) = client.ask(b"before", b"before") {
            return Some(Err(error));
        }
        self.process.plan.arm(fault);
        self.process.terminate();
        // A client that was not served may have been the fault's.
        let _ = client.ask(b"last words", b"last words");
        let _ = client.end();
        drop(client);
        let ending = self.process.ending();
        let injected = self.process.plan.disarm() > 0;
        match ending {
            Ok((0, _)) => injected.then_some(Ok(())),
            Ok((_, words)) if fault.is_survived() && !fault.lasting => {
                Some(Err(format!("`run` has returned: {words}")))
            }
            Ok((_, words)) if words.is_empty() => Some(Err(String::from("an error without words"))),
            Ok(_) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    }

    fn again(&mut self) {
        *self = Self::start_and_settle(self.model, self.engine);
    }
}

/// The calls that a round makes.
fn calls(serving: &Serving) -> Vec<&'static Call> {
    CALLS.iter().filter(|call| serving.process.plan.has_seen(call)).collect()
}

/// One call of each kind fails, with each error, at each place.
pub(crate) fn faults(model: Model, engine: EngineKind, asked: &Asked, tally: &mut Tally) {
    let mut serving = Serving::start_and_settle(model, engine);
    for call in calls(&serving) {
        for errno in call.errnos() {
            for nth in SOME {
                let fault = Fault { call, errno, nth, lasting: false };
                let may_end = !fault.is_survived();
                if !asked.wants(&fault) || may_end && nth > 3 {
                    continue;
                }
                let Some(outcome) = serving.once(&fault) else { break };
                let failed = outcome.is_err();
                tally.add(&fault, outcome);
                // It may end a moment after it was found to serve. And each time that it dies soon, a
                // worker of PREFORK is replaced later.
                if failed || may_end || serving.process.has_ended() {
                    serving.again();
                }
            }
        }
    }
    // It is known when another call is made, and a client's thread may be on its way out.
    let has_leaked = || serving.process.round() != Ok(0) || serving.allocated() > serving.allocated + LEAK;
    if !until(|| !has_leaked()) {
        if let Some((_, words)) = serving.process.plan.ending() {
            return tally.report_failure(&format!("`run` has returned: {words}"));
        }
        let leaked = serving.allocated() - serving.allocated;
        tally.report_failure(&format!("{leaked} bytes more are allocated than before the faults"));
    }
}

/// All calls of each kind fail, for a while.
pub(crate) fn lasting(model: Model, engine: EngineKind, asked: &Asked, tally: &mut Tally) {
    let mut serving = Serving::start_and_settle(model, engine);
    for call in calls(&serving) {
        for &errno in LASTING {
            let fault = Fault { call, errno, nth: 1, lasting: true };
            if !asked.wants(&fault) {
                continue;
            }
            let Some(outcome) = serving.for_a_while(&fault) else { break };
            let failed = outcome.is_err();
            tally.add(&fault, outcome);
            let is_slow = !fault.is_survived() && model == Model::Prefork;
            if failed || is_slow || serving.process.has_ended() {
                serving.again();
            }
        }
    }
}

/// The server stops while one call fails, or all of a kind do.
pub(crate) fn stopping(model: Model, engine: EngineKind, asked: &Asked, tally: &mut Tally) {
    let mut serving = Serving::start(model, engine);
    for call in calls(&serving) {
        for errno in [libc::EINTR, libc::EAGAIN, libc::ENOMEM, libc::EPERM] {
            for nth in [1, 2, 3, 0] {
                let lasting = nth == 0 && LASTING.contains(&errno);
                let fault = Fault { call, errno, nth: nth.max(1), lasting };
                // Who sleeps is not woken when no waker can be written.
                let is_deaf = lasting && call.number == libc::SYS_write;
                if nth == 0 && !lasting || is_deaf || !asked.wants(&fault) {
                    continue;
                }
                let outcome = serving.stop(&fault);
                serving = Serving::start(model, engine);
                match outcome {
                    Some(outcome) => tally.add(&fault, outcome),
                    None => break,
                }
            }
        }
    }
}
