//! Every way to fork, with everything that a child may do with the poller it has inherited. The
//! child gets what it is promised, and its parent's registrations stay as they were.

// The pollers reap them.
#![allow(clippy::zombie_processes)]

use std::fs::File;
use std::io::{Read, Write};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::Child;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime};

use omnipoll::{
    EngineKind, EventKind, Events, Finding, FindingKind, Interest, Options, Poller, Ready, Trigger,
};

use crate::fork::{collect, sleeper};
use crate::suite::Suite;
use crate::support::engines;
use crate::support::expect::{
    expect_error, expect_event, expect_none, expect_wake, poller, tokens, waiter, LONG,
};
use crate::support::fds::{close, drain, pipe, write_byte};
use crate::support::sys::{self, ForkCall};

/// Where the process is forked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Plainly,
    InAHandler,
    ReturningFromAHandler,
    InADestructor,
    InACallback,
    ReturningFromACallback,
    WhileOthersWait,
    WhileOthersChange,
}

impl Place {
    /// Whether there are waits that last until the child has ended.
    fn has_waiters(self) -> bool {
        matches!(self, Self::InAHandler | Self::ReturningFromAHandler | Self::WhileOthersWait)
    }

    /// Whether the child returns to where it was forked before it does anything.
    fn returns(self) -> bool {
        matches!(self, Self::ReturningFromAHandler | Self::ReturningFromACallback)
    }
}

const PLACES: [Place; 8] = [
    Place::Plainly,
    Place::InAHandler,
    Place::ReturningFromAHandler,
    Place::InADestructor,
    Place::InACallback,
    Place::ReturningFromACallback,
    Place::WhileOthersWait,
    Place::WhileOthersChange,
];

/// Who takes notice of the children's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaper {
    TheParent,
    /// SIGCHLD is ignored.
    TheSystem,
    /// `waitpid(-1)` in a thread.
    AThread,
}

const REAPERS: [Reaper; 3] = [Reaper::TheParent, Reaper::TheSystem, Reaper::AThread];

/// What the child does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Drops,
    Rebuilds,
    Executes,
    UsesWithoutRebuilding,
    MakesItsOwn,
}

const ACTS: [Act; 5] =
    [Act::Drops, Act::Rebuilds, Act::Executes, Act::UsesWithoutRebuilding, Act::MakesItsOwn];

pub(crate) fn behaviours(suite: &mut Suite) {
    for kind in engines() {
        for (call, place) in sys::fork_calls().flat_map(|call| PLACES.map(|place| (call, place))) {
            // Only after `fork(2)` is the memory of a process usable whose other threads allocate.
            if place == Place::WhileOthersChange && call != ForkCall::Fork {
                continue;
            }
            for reaper in REAPERS {
                let name = format!("matrix::{place:?} [{}, {call:?}, reaped by {reaper:?}]", kind.name());
                suite.add(name, move || for_each_act(kind, call, place, reaper));
            }
        }
    }
}

fn for_each_act(kind: EngineKind, call: ForkCall, place: Place, reaper: Reaper) {
    match reaper {
        Reaper::TheParent => {}
        Reaper::TheSystem => sys::ignore_children(),
        Reaper::AThread => sys::reap_all_children(),
    }
    for act in ACTS {
        let mut scene = Scene::new(kind, call, place, reaper, act);
        SCENE.store(&raw mut scene, Ordering::Release);
        scene.fork();
        scene.check_parent();
    }
}

/// What the handler of a signal, a thread's destructor and a callback fork.
static SCENE: AtomicPtr<Scene> = AtomicPtr::new(ptr::null_mut());

struct Scene {
    kind: EngineKind,
    call: ForkCall,
    place: Place,
    reaper: Reaper,
    act: Act,
    parent: u32,
    /// From a `Box`: a child may drop it under frames that hold references to it and never return.
    poller: AtomicPtr<Poller>,
    reader: File,
    writer: File,
    timer: u64,
    wall_timer: u64,
    watched: Child,
    /// The child says here that it has done well.
    report: File,
    reporter: Mutex<Option<File>>,
    /// The child, once it is forked.
    child: AtomicI32,
}

impl Scene {
    fn new(kind: EngineKind, call: ForkCall, place: Place, reaper: Reaper, act: Act) -> Self {
        let strict = matches!(place, Place::InACallback | Place::ReturningFromACallback);
        let poller = Options::new().engine(kind).strict(strict).build().expect("a poller");
        if strict {
            let callback = |finding: &Finding| {
                if finding.kind == FindingKind::Closed {
                    fork_here();
                }
            };
            poller.on_finding(Box::new(callback)).unwrap();
        }
        let ((reader, writer), (report, reporter)) = (pipe(), pipe());
        sys::set_blocking(&report);
        poller.add(&reader, Interest::READ, 1).unwrap();
        let timer = poller.timer_add(LONG * 9, None, 2).unwrap();
        let wall_timer = poller.timer_add_at(SystemTime::now() + LONG * 9, 3).unwrap();
        let watched = sleeper();
        poller.child_add(watched.id() as i32, 4).unwrap();
        Self {
            kind,
            call,
            place,
            reaper,
            act,
            parent: std::process::id(),
            poller: AtomicPtr::new(Box::into_raw(Box::new(poller))),
            reader,
            writer,
            timer,
            wall_timer,
            watched,
            report,
            reporter: Mutex::new(Some(reporter)),
            child: AtomicI32::new(0),
        }
    }

    fn poller(&self) -> &Poller {
        // SAFETY: from a `Box`, which only a child drops that looks at it no more.
        unsafe { &*self.poller.load(Ordering::Relaxed) }
    }

    fn is_child(&self) -> bool {
        std::process::id() != self.parent
    }

    /// Has the process forked at the place of the scene, and sees the child do well.
    fn fork(&self) {
        match self.place {
            Place::Plainly => fork_here(),
            Place::InAHandler | Place::ReturningFromAHandler => self.fork_in_a_handler(),
            Place::InADestructor => self.fork_in_a_destructor(),
            Place::InACallback | Place::ReturningFromACallback => self.fork_in_a_callback(),
            Place::WhileOthersWait => self.fork_while_other_threads_wait(),
            Place::WhileOthersChange => self.fork_while_other_threads_change(),
        }
        if !self.place.has_waiters() {
            self.expect_child_success();
        }
    }

    /// The handler interrupts a wait, which the parent resumes.
    fn fork_in_a_handler(&self) {
        extern "C" fn handler(_: libc::c_int) {
            fork_here();
        }
        sys::on_signal(libc::SIGUSR2, handler);
        thread::scope(|scope| {
            let (sender, reported) = std::sync::mpsc::channel();
            let wait = scope.spawn(move || {
                sender.send(sys::thread_id()).expect("the other thread listens");
                let mut events = Events::with_capacity(8);
                let waited = self.poller().wait(&mut events, Some(LONG));
                if self.is_child() {
                    expect_error(waited, libc::EOWNERDEAD);
                    self.live();
                }
                events.iter().copied().collect::<Vec<_>>()
            });
            let thread = reported.recv().expect("the thread runs");
            sys::wait_until_asleep(thread);
            sys::signal_thread(thread, libc::SIGUSR2);
            while self.child.load(Ordering::Acquire) == 0 {
                sys::yield_briefly();
            }
            self.expect_child_success();
            write_byte(&self.writer);
            assert_eq!(tokens(&wait.join().expect("a wait")), [1]);
            drain(&self.reader);
        });
    }

    /// When the thread's own storage has been destroyed.
    fn fork_in_a_destructor(&self) {
        extern "C" fn destructor(_: *mut libc::c_void) {
            fork_here();
        }
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                sys::at_thread_exit(destructor);
                // The words of its error are kept in storage of the thread's.
                expect_error(self.poller().remove(&self.writer), libc::ENOENT);
            });
            thread.join().expect("it ends, destructors and all");
        });
    }

    /// The callback is called by a wait.
    fn fork_in_a_callback(&self) {
        let (closed, _writer) = pipe();
        self.poller().add(&closed, Interest::READ, 9).unwrap();
        let number = close(closed);
        let waited = self.poller().wait(&mut Events::with_capacity(8), Some(Duration::ZERO));
        if self.is_child() {
            expect_error(waited, libc::EOWNERDEAD);
            self.live();
        }
        waited.unwrap();
        // Some engines have reported that it was closed, and removed it.
        let _ = self.poller().remove_raw(number);
    }

    fn fork_while_other_threads_wait(&self) {
        thread::scope(|scope| {
            // A second one may have the first make room for it, and allocate.
            let count = if self.call == ForkCall::Fork { 2 } else { 1 };
            let waiters: Vec<_> = (0..count).map(|_| waiter(scope, self.poller(), LONG)).collect();
            fork_here();
            self.expect_child_success();
            assert!(waiters.iter().all(|waiter| waiter.still_waits()));
            write_byte(&self.writer);
            for waiter in waiters {
                assert_eq!(tokens(&waiter.events()), [1]);
            }
            drain(&self.reader);
        });
    }

    fn fork_while_other_threads_change(&self) {
        let (over, begun) = (AtomicBool::new(false), AtomicBool::new(false));
        let (idle, _writer) = pipe();
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    self.poller().add(&idle, Interest::READ | Trigger::EDGE, 9).unwrap();
                    self.poller().modify(&idle, Interest::READ, 9).unwrap();
                    self.poller().remove(&idle).unwrap();
                    begun.store(true, Ordering::Relaxed);
                }
            });
            while !begun.load(Ordering::Relaxed) {
                sys::yield_briefly();
            }
            fork_here();
            over.store(true, Ordering::Relaxed);
        });
    }

    /// The child's life, to its end.
    fn live(&self) -> ! {
        // It must not unwind to where it was forked: there may be threads to be joined.
        let lived = catch_unwind(AssertUnwindSafe(|| {
            let mut reporter = self.reporter.lock().unwrap().take().expect("the child's copy");
            match self.act {
                Act::Drops => drop(self.take()),
                Act::Rebuilds => self.rebuild(),
                Act::Executes => {
                    sys::redirect_output(&reporter);
                    sys::execute("sh", &["-c", &format!("{}; echo .", sys::NOTHING_ELSE_IS_OPEN)]);
                }
                Act::UsesWithoutRebuilding => self.use_without_rebuilding(),
                Act::MakesItsOwn => self.make_its_own(),
            }
            reporter.write_all(b".\n").expect("the parent listens");
        }));
        sys::exit_at_once(i32::from(lived.is_err()))
    }

    /// The child's copy, which is not used any more.
    fn take(&self) -> Box<Poller> {
        // SAFETY: from a `Box`. The child does not return to the frames that have borrowed it.
        unsafe { Box::from_raw(self.poller.load(Ordering::Relaxed)) }
    }

    fn rebuild(&self) {
        if let Err(error) = self.poller().after_fork() {
            // Another thread was changing it: there is nothing to be done but to make a new one.
            assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
            assert!(matches!(self.place, Place::WhileOthersWait | Place::WhileOthersChange), "EBUSY");
            drop(self.take());
            return self.make_its_own();
        }
        let poller = self.poller();
        // What a callback was called with is checked here too.
        while !crate::support::expect::wait(poller, 8, Duration::ZERO).is_empty() {}
        use_pipe(poller);
        poller.timer_set(self.timer, Duration::ZERO, None).unwrap();
        assert_eq!(collect(poller, 1), [(EventKind::Timer, 2, 1)]);
        poller.timer_cancel(self.wall_timer).unwrap();
        expect_error(poller.child_remove(self.watched.id() as i32), libc::ENOENT);
        poller.modify(&self.reader, Interest::READ, 8).unwrap();
        poller.remove(&self.reader).unwrap();
        poller.wake().unwrap();
        expect_wake(poller, 1);
        drop(self.take());
    }

    fn use_without_rebuilding(&self) {
        let poller = self.poller();
        for timeout in [Duration::ZERO, LONG] {
            expect_error(poller.wait(&mut Events::with_capacity(8), Some(timeout)), libc::EOWNERDEAD);
            expect_error(poller.add(&self.writer, Interest::WRITE, 9), libc::EOWNERDEAD);
            expect_error(poller.modify(&self.reader, Interest::READ, 9), libc::EOWNERDEAD);
            expect_error(poller.remove(&self.reader), libc::EOWNERDEAD);
            expect_error(poller.timer_cancel(self.timer), libc::EOWNERDEAD);
            expect_error(poller.timer_cancel(self.wall_timer), libc::EOWNERDEAD);
            expect_error(poller.child_remove(self.watched.id() as i32), libc::EOWNERDEAD);
            expect_error(poller.post(9, 9), libc::EOWNERDEAD);
            expect_error(poller.wake(), libc::EOWNERDEAD);
        }
    }

    fn make_its_own(&self) {
        let poller = poller(self.kind);
        use_pipe(&poller);
        poller.signal_add(libc::SIGUSR1, 5).unwrap();
        sys::signal_thread(sys::thread_id(), libc::SIGUSR1);
        assert_eq!(collect(&poller, 1), [(EventKind::Signal, 5, libc::SIGUSR1.into())]);
        poller.timer_add(Duration::ZERO, None, 6).unwrap();
        assert_eq!(collect(&poller, 1), [(EventKind::Timer, 6, 1)]);
        poller.wake().unwrap();
        expect_wake(&poller, 1);
    }

    fn expect_child_success(&self) {
        self.reporter.lock().unwrap().take();
        let mut said = String::new();
        (&self.report).read_to_string(&mut said).expect("a report");
        assert_eq!(said, ".\n", "the child that {:?} failed: see its message above", self.act);
        if self.reaper == Reaper::TheParent {
            let child = self.child.load(Ordering::Acquire);
            assert_eq!(sys::wait_for(child), 0, "how the child that {:?} ended", self.act);
        }
    }

    fn check_parent(mut self) {
        // SAFETY: from a `Box`, and it is not used any more: the threads of the scene have ended.
        let poller = unsafe { Box::from_raw(self.poller.load(Ordering::Relaxed)) };
        expect_none(&poller);
        write_byte(&self.writer);
        expect_event(&poller, 1, Ready::READ);
        drain(&self.reader);
        expect_none(&poller);
        poller.timer_set(self.timer, Duration::ZERO, None).unwrap();
        assert_eq!(collect(&poller, 1), [(EventKind::Timer, 2, 1)]);
        poller.timer_cancel(self.wall_timer).unwrap();
        poller.timer_add_at(SystemTime::now(), 3).unwrap();
        assert_eq!(collect(&poller, 1), [(EventKind::Timer, 3, 1)]);
        poller.wake().unwrap();
        expect_wake(&poller, 1);
        self.watched.kill().unwrap();
        let ended = collect(&poller, 1);
        let killed = (EventKind::Child, 4, libc::SIGKILL.into());
        // The status of a child that other code has reaped is unknown.
        assert!(ended == [killed] || (self.reaper != Reaper::TheParent && ended[0].2 == -1), "{ended:?}");
        poller.remove(&self.reader).unwrap();
        expect_none(&poller);
    }
}

/// Forks, the first time. The child lives here, or where it returns to.
fn fork_here() {
    // SAFETY: set by `each_act`, which waits until the process has been forked.
    let scene = unsafe { &*SCENE.load(Ordering::Acquire) };
    if scene.child.load(Ordering::Acquire) != 0 {
        return;
    }
    match sys::fork_by(scene.call) {
        0 => {
            sys::end_after_seconds(30);
            if !scene.place.returns() {
                scene.live();
            }
            scene.child.store(-1, Ordering::Release);
        }
        child => scene.child.store(child, Ordering::Release),
    }
}

/// A descriptor is watched, reported and removed.
fn use_pipe(poller: &Poller) {
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ, 7).unwrap();
    write_byte(&writer);
    expect_event(poller, 7, Ready::READ);
    poller.remove(&reader).unwrap();
}
