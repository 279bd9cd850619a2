//! What is io_uring's alone: being refused, system calls that are not made, room for completions,
//! and files that it holds. Each test runs in a process of its own.

#[allow(dead_code)]
#[path = "conformance/suite.rs"]
mod suite;
#[path = "support/mod.rs"]
mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use omnipoll::{explain, Conn, EngineKind, Handler, Interest, Poller, Ready, Server, ServerOptions, Trigger};
use suite::{read, Suite};
use support::expect::*;
use support::{fds::*, sys};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::default();
    suite.once(refused_with_eperm);
    suite.once(refused_with_enosys);
    suite.once(half_refused_it_is_not_available_either);
    suite.once(a_temporary_error_is_no_refusal);
    suite.once(features_are_tried_out);
    suite.once(features_of_a_ring_that_is_refused);
    suite.once(edges_that_have_completed_cost_no_system_call);
    suite.once(changes_make_no_system_call_on_the_ring);
    suite.once(more_completions_than_there_is_room_for);
    suite.once(the_file_of_a_removed_descriptor_is_released_though_it_has_become_ready);
    suite.once(a_closed_file_is_held_until_something_happens_to_it);
    suite.once(a_closed_file_is_held_until_its_number_is_added_again);
    suite.once(a_closed_file_is_held_until_the_poller_is_dropped);
    suite.once(what_a_thread_has_submitted_outlives_it);
    suite.once(a_second_thread_that_waits_misses_nothing);
    suite.once(an_eventfd_added_twice_is_eexist_and_stays_watched);
    suite.once(a_oneshot_for_room_sleeps_through_a_half_close);
    suite.once(a_wait_that_submits_lasts_its_time);
    suite.once(a_server_s_clients_are_accepted_without_a_call_of_their_own);
    suite.once(a_server_s_buffers_run_out);
    suite.once(a_server_s_completions_do_not_fit);
    suite.main()
}

/// A poller on io_uring. Where that is refused, it ends the case, which is a process, and says so.
fn uring() -> Poller {
    match Poller::with_engine(EngineKind::IoUring) {
        Ok(poller) => poller,
        Err(error) => {
            expect_error::<()>(Err(error), libc::ENOSYS);
            println!("not on this machine, which refuses io_uring");
            std::process::exit(0)
        }
    }
}

/// Neither the ring's system calls nor any other that asks what is ready.
fn forbid_asking() {
    sys::forbid(libc::SYS_io_uring_enter, libc::EPERM);
    sys::forbid(libc::SYS_io_uring_register, libc::EPERM);
    sys::forbid(libc::SYS_ppoll, libc::EPERM);
    #[cfg(target_arch = "x86_64")]
    sys::forbid(libc::SYS_poll, libc::EPERM);
}

/// As a container does, and the sysctl.
fn refused_with_eperm() {
    refused(libc::EPERM, "seccomp");
}

/// As a kernel without it, or a filter that hides it.
fn refused_with_enosys() {
    refused(libc::ENOSYS, "missing");
}

fn refused(errno: i32, word: &str) {
    sys::forbid(libc::SYS_io_uring_setup, errno);
    assert!(!EngineKind::IoUring.is_available());
    assert_eq!(EngineKind::IoUring.capabilities().bits(), 0);
    for _ in 0..2 {
        let error = Poller::with_engine(EngineKind::IoUring).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSYS));
        assert!(explain(&error).contains(word), "{}", explain(&error));
    }
    std::env::set_var("OMNIPOLL_ENGINE", "io_uring");
    expect_error(Poller::new(), libc::ENOSYS);
    std::env::remove_var("OMNIPOLL_ENGINE");
    assert_eq!(Poller::new().unwrap().engine(), EngineKind::Epoll);
}

/// A filter that lets the ring be made, and not be used.
fn half_refused_it_is_not_available_either() {
    sys::forbid(libc::SYS_io_uring_enter, libc::EPERM);
    expect_error(Poller::with_engine(EngineKind::IoUring), libc::ENOSYS);
    assert!(!EngineKind::IoUring.is_available());
}

/// The first that asks gets an error of the moment; the next gets the true answer, and clients a ring.
fn a_temporary_error_is_no_refusal() {
    // SAFETY: the kernel looks at the address, finds nothing there and returns EFAULT.
    let made = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<u8>()) };
    let is_refused = made >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EFAULT);
    for errno in [libc::EINTR, libc::EAGAIN, libc::ENOMEM, libc::ENOBUFS, libc::EMFILE, libc::ENFILE] {
        for call in [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter] {
            // A filter is a thread's, and holds for those that it makes.
            let ask = move || {
                sys::forbid(call, errno);
                let _ = EngineKind::IoUring.is_available();
                let (waits, gate) = (channel().0, channel().1.into());
                let options = ServerOptions::new().engine(EngineKind::IoUring);
                drop(Server::with_options(Sums { waits, gate }, options));
            };
            std::thread::spawn(ask).join().unwrap();
        }
    }
    assert!(is_refused || EngineKind::IoUring.is_available());
    a_server_s_clients_are_accepted_without_a_call_of_their_own();
}

fn edges_that_have_completed_cost_no_system_call() {
    let poller = uring();
    let pipes: Vec<_> = (0..100).map(|_| pipe()).collect();
    for ((reader, _), token) in pipes.iter().zip(0..) {
        poller.add(reader, read(Trigger::EDGE), token).unwrap();
    }
    expect_none(&poller);
    pipes.iter().for_each(|(_, writer)| write_byte(writer));
    forbid_asking();
    let mut found = Vec::new();
    for room in [10, 50, 100] {
        found.extend(tokens(&wait(&poller, room, None)));
    }
    found.sort_unstable();
    assert!(found.into_iter().eq(0..100));
    expect_error(poller.wait(&mut omnipoll::Events::with_capacity(1), None), libc::EPERM);
}

fn changes_make_no_system_call_on_the_ring() {
    let poller = uring();
    let pipes: Vec<_> = (0..1000).map(|_| pipe()).collect();
    forbid_asking();
    for _ in 0..3 {
        for (reader, _) in &pipes {
            poller.add(reader, Interest::READ, 1).unwrap();
            poller.modify(reader, read(Trigger::EDGE), 2).unwrap();
        }
        pipes.iter().rev().for_each(|(reader, _)| poller.remove(reader).unwrap());
    }
}

/// Three times as many as there is room for, under each trigger: none is lost, and none of the
/// polls that ended by it.
fn more_completions_than_there_is_room_for() {
    let count = (sys::allow_descriptors(13_000) - 100).min(12_500);
    let eventfds: Vec<_> = (0..count).map(|_| std::fs::File::from(sys::eventfd(0))).collect();
    for trigger in [Trigger::LEVEL, Trigger::EDGE, Trigger::ONESHOT] {
        let poller = uring();
        for (eventfd, token) in eventfds.iter().zip(0..) {
            poller.add(eventfd, read(trigger), token).unwrap();
        }
        expect_none(&poller);
        for _ in 0..2 {
            for mut eventfd in &eventfds {
                std::io::Write::write_all(&mut eventfd, &1u64.to_ne_bytes()).unwrap();
            }
            if trigger == Trigger::LEVEL {
                assert_eq!(wait(&poller, eventfds.len(), LONG).len(), eventfds.len());
            }
            let mut found = vec![false; eventfds.len()];
            while found.contains(&false) {
                for token in tokens(&wait(&poller, 1000, LONG)) {
                    let mut eventfd = &eventfds[token as usize];
                    match eventfd.read(&mut [0; 8]) {
                        Ok(_) => assert!(!std::mem::replace(&mut found[token as usize], true)),
                        // A poll that is submitted again may report an edge once more.
                        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    }
                    acknowledge(&poller, eventfd, read(trigger), token);
                }
            }
            // What is left may be edges that are none.
            while trigger == Trigger::EDGE && !wait(&poller, 1000, Duration::ZERO).is_empty() {}
            expect_none(&poller);
        }
    }
}

/// The poll has woken, and the thread that submitted it has not run since, when it is cancelled.
fn the_file_of_a_removed_descriptor_is_released_though_it_has_become_ready() {
    let poller = uring();
    let (ours, theirs) = pair();
    let (held, release) = pipe();
    expect_none(&poller);
    poller.add(&ours, Interest::READ, 1).unwrap();
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let poller = &poller;
        scope.spawn(move || {
            expect_none(poller);
            sender.send(sys::thread_id()).unwrap();
            sys::block_until_readable(&held);
        });
        sys::wait_until_blocked(receiver.recv().unwrap());
        write_byte(&theirs);
        poller.remove(&ours).unwrap();
        close(ours);
        expect_none(poller);
        write_byte(release);
    });
    // What was written to it was not read.
    assert_eq!(end_of(theirs), Err(ErrorKind::ConnectionReset));
}

/// What the peer reads in the end, 0 or an error. A kernel that takes a ring down interrupts the
/// thread that had it: a read with a timeout is never restarted (`signal(7)`).
fn end_of(mut theirs: UnixStream) -> Result<usize, ErrorKind> {
    theirs.set_nonblocking(false).unwrap();
    theirs.set_read_timeout(Some(LONG)).unwrap();
    loop {
        match theirs.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.map_err(|error| error.kind()),
        }
    }
}

/// A poller that holds the file of a descriptor that was closed, and not removed: it has no way to
/// notice. The number, and the peer, which waits for the end in vain.
fn holding() -> (Poller, i32, UnixStream) {
    let poller = uring();
    let (ours, mut theirs) = pair();
    poller.add(&ours, Interest::READ, 1).unwrap();
    expect_none(&poller);
    let number = close(ours);
    expect_quiet(&poller);
    assert_eq!(theirs.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    (poller, number, theirs)
}

fn a_closed_file_is_held_until_something_happens_to_it() {
    let (poller, number, theirs) = holding();
    write_byte(&theirs);
    expect_quiet(&poller);
    // What was written to it was not read.
    assert_eq!(end_of(theirs), Err(ErrorKind::ConnectionReset));
    poller.remove_raw(number).unwrap();
}

fn a_closed_file_is_held_until_its_number_is_added_again() {
    let count = sys::eventfd(1);
    let (poller, number, theirs) = holding();
    let count = sys::dup_to(&count, number);
    poller.add(&count, Interest::WRITE, 2).unwrap();
    expect_event(&poller, 2, Ready::WRITE);
    assert_eq!(end_of(theirs), Ok(0));
}

/// The kernel takes a ring down in its own time.
fn a_closed_file_is_held_until_the_poller_is_dropped() {
    let (poller, _, theirs) = holding();
    drop(poller);
    assert_eq!(end_of(theirs), Ok(0));
}

/// The kernel ends the polls of a thread that is no more, when they next wake.
fn what_a_thread_has_submitted_outlives_it() {
    for trigger in [Trigger::LEVEL, Trigger::EDGE, Trigger::ONESHOT] {
        let poller = uring();
        let (reader, writer) = pipe();
        poller.add(&reader, read(trigger), 1).unwrap();
        for _ in 0..5 {
            std::thread::scope(|scope| scope.spawn(|| expect_none(&poller)).join().unwrap());
            write_byte(&writer);
            expect_event(&poller, 1, Ready::READ);
            drain(&reader);
            acknowledge(&poller, &reader, read(trigger), 1);
        }
    }
}

/// Whatever the first does when the second comes, every event is delivered.
fn a_second_thread_that_waits_misses_nothing() {
    for round in 0..300 {
        let poller = uring();
        let pipes = [pipe(), pipe(), pipe()];
        let triggers = [Trigger::LEVEL, Trigger::EDGE, Trigger::ONESHOT];
        for (((reader, _), trigger), token) in pipes.iter().zip(triggers).zip(0..) {
            poller.add(reader, read(trigger), token).unwrap();
        }
        let delivered = [const { AtomicBool::new(false) }; 3];
        let until_all_are_delivered = || {
            while !delivered.iter().all(|delivered| delivered.load(Ordering::SeqCst)) {
                for token in tokens(&wait(&poller, 1, LONG)) {
                    delivered[token as usize].store(true, Ordering::SeqCst);
                    // It leaves the others their turns.
                    drain(&pipes[token as usize].0);
                }
            }
            poller.wake().unwrap();
        };
        std::thread::scope(|scope| {
            scope.spawn(until_all_are_delivered);
            (0..round * 30).for_each(|_| std::hint::spin_loop());
            scope.spawn(until_all_are_delivered);
            pipes.iter().for_each(|(_, writer)| write_byte(writer));
        });
    }
}

fn an_eventfd_added_twice_is_eexist_and_stays_watched() {
    for trigger in [Trigger::LEVEL, Trigger::ONESHOT, Trigger::EDGE] {
        let poller = uring();
        let count = sys::eventfd(0);
        poller.add(&count, read(trigger), 1).unwrap();
        for _ in 0..3 {
            expect_error(poller.add(&count, read(trigger), 2), libc::EEXIST);
            expect_none(&poller);
        }
        std::io::Write::write_all(&mut std::fs::File::from(dup(&count)), &1u64.to_ne_bytes()).unwrap();
        expect_error(poller.add(&count, read(trigger), 2), libc::EEXIST);
        expect_event(&poller, 1, Ready::READ);
    }
}

/// A single poll ends by the peer's half-close whether it was asked for or not, and would again.
fn a_oneshot_for_room_sleeps_through_a_half_close() {
    let poller = uring();
    let (ours, theirs) = pair();
    fill(&ours);
    poller.add(&ours, Interest::WRITE | Trigger::ONESHOT, 1).unwrap();
    expect_none(&poller);
    theirs.shutdown(Shutdown::Write).unwrap();
    expect_quiet(&poller);
    drain(&theirs);
    expect_event(&poller, 1, Ready::WRITE);
    expect_quiet(&poller);
    poller.modify(&ours, Interest::WRITE | Trigger::ONESHOT, 2).unwrap();
    expect_event(&poller, 2, Ready::WRITE);
    expect_quiet(&poller);
}

/// The kernel returns to a wait that submits how much it took, not how the wait ended.
fn a_wait_that_submits_lasts_its_time() {
    let poller = uring();
    for _ in 0..3 {
        let (reader, _writer) = pipe();
        poller.add(&reader, Interest::READ, 1).unwrap();
        let (begun, timeout) = (Instant::now(), Duration::from_millis(100));
        expect_sleep(|| assert!(wait(&poller, 1, timeout).is_empty()));
        assert!(begun.elapsed() >= timeout);
        poller.remove(&reader).unwrap();
    }
}

/// Sums up what each client sends, and answers at its end. A client that sends "wait" blocks the
/// loop for all the others.
struct Sums {
    waits: Sender<()>,
    gate: Mutex<Receiver<()>>,
}

impl Handler for Sums {
    type State = (u64, u64);

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<(u64, u64)> {
        Ok((0, 0))
    }

    fn on_data(&self, _: &mut Conn<'_>, (length, sum): &mut (u64, u64), data: &[u8]) {
        if data == b"wait" {
            self.waits.send(()).unwrap();
            self.gate.lock().unwrap().recv().unwrap();
        }
        *length += data.len() as u64;
        *sum += data.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    }

    fn on_end(&self, conn: &mut Conn<'_>, (length, sum): &mut (u64, u64)) {
        conn.write(format!("{length} {sum}").as_bytes()).unwrap();
        conn.close();
    }
}

/// A server whose connections are on a ring.
struct Summing {
    server: Arc<Server<Sums>>,
    addresses: Vec<String>,
    waits: Receiver<()>,
    open: Sender<()>,
}

impl Summing {
    /// Where there is no such ring, it ends the case, and says so.
    fn on(addresses: &[&str]) -> Self {
        drop(uring());
        if sys::kernel() < (6, 1) {
            println!("not on this machine, whose Linux is too old for connections on a ring");
            std::process::exit(0);
        }
        let ((open, gate), (waiting, waits)) = (channel(), channel());
        let sums = Sums { waits: waiting, gate: Mutex::new(gate) };
        let options = ServerOptions::new().engine(EngineKind::IoUring);
        let server = Arc::new(Server::with_options(sums, options).unwrap());
        let addresses = addresses.iter().map(|address| server.listen(address).unwrap()).collect();
        Self { server, addresses, waits, open }
    }

    /// Clients of its addresses in turn.
    fn clients(&self, count: usize) -> Vec<TcpStream> {
        let addresses = self.addresses.iter().cycle().take(count);
        addresses.map(|address| TcpStream::connect(address).unwrap()).collect()
    }

    /// Serves, in a thread that begins with `prepare`, until `test` has ended.
    fn run(self, prepare: impl FnOnce() + Send + 'static, test: impl FnOnce(&Self)) {
        let server = self.server.clone();
        let running = std::thread::spawn(move || {
            prepare();
            server.run()
        });
        test(&self);
        self.server.handle().stop(None).unwrap();
        running.join().unwrap().unwrap();
        assert_eq!(self.server.handle().stats().total.active, 0);
    }
}

fn send(mut client: &TcpStream, data: &[u8]) {
    client.write_all(data).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
}

fn expect_the_sum_of(mut client: TcpStream, data: &[u8]) {
    client.set_read_timeout(Some(LONG)).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let sum = data.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    assert_eq!(answer, format!("{} {sum}", data.len()));
}

/// The call that waits accepts them and receives from them.
fn a_server_s_clients_are_accepted_without_a_call_of_their_own() {
    let prepare = || {
        sys::forbid(libc::SYS_accept4, libc::ENOSYS);
        sys::forbid(libc::SYS_recvfrom, libc::ENOSYS);
    };
    Summing::on(&["127.0.0.1:0"]).run(prepare, |served| {
        let clients = served.clients(200);
        clients.iter().for_each(|client| send(client, b"hello"));
        clients.into_iter().for_each(|client| expect_the_sum_of(client, b"hello"));
    });
}

/// Clients have sent more than all the buffers hold that the receives share, before the first
/// is read: four times as much, in as large portions as the system queues on a socket.
fn a_server_s_buffers_run_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    sys::maximize_receive_buffer(&listener);
    let served = Summing::on(&[&format!("fd:{}", listener.as_raw_fd())]);
    let data: Vec<u8> = (0..160 * 1024).map(|byte| (byte % 251) as u8).collect();
    served.run(
        || (),
        |served| {
            let (clients, first) = (served.clients(50), served.clients(1));
            (&first[0]).write_all(b"wait").unwrap();
            served.waits.recv().unwrap();
            clients.iter().for_each(|client| send(client, &data));
            served.open.send(()).unwrap();
            clients.into_iter().for_each(|client| expect_the_sum_of(client, &data));
        },
    );
}

/// More clients have come than its ring has room for, before it runs.
fn a_server_s_completions_do_not_fit() {
    let served = Summing::on(&["127.0.0.1:0", "127.0.0.1:0"]);
    let clients = served.clients((sys::allow_descriptors(12_300) as usize - 300).min(12_000) / 2);
    served.run(
        || (),
        |_| {
            clients.iter().for_each(|client| send(client, b"x"));
            clients.into_iter().for_each(|client| expect_the_sum_of(client, b"x"));
        },
    );
}

/// What the kernel has is not asked of its version.
fn features_are_tried_out() {
    drop(uring());
    let of_this_kernel = EngineKind::IoUring.features();
    assert!(of_this_kernel.iter().any(|feature| feature.name() == "IORING_SETUP_COOP_TASKRUN"));
    for feature in &of_this_kernel {
        assert_eq!(feature.is_used(), feature.error().is_none(), "{feature:?}");
        let since: Vec<u32> = feature.linux().split('.').map(|part| part.parse().unwrap()).collect();
        // A filter or a setting may forbid what the kernel has.
        assert!(!feature.is_used() || sys::kernel() >= (since[0], since[1]), "{feature:?}");
    }
    sys::forbid(libc::SYS_ioctl, libc::EACCES);
    let epoll = EngineKind::Epoll.features();
    let params = epoll.iter().find(|feature| feature.name() == "EPIOCSPARAMS").unwrap();
    assert_eq!(params.error().unwrap().raw_os_error(), Some(libc::EACCES));
    assert!(epoll.iter().any(|feature| feature.name() == "EPOLLEXCLUSIVE" && feature.is_used()));
    assert!(EngineKind::Select.features().is_empty() && EngineKind::Poll.features().is_empty());
}

fn features_of_a_ring_that_is_refused() {
    sys::forbid(libc::SYS_io_uring_setup, libc::EPERM);
    let features = EngineKind::IoUring.features();
    assert!(features.len() > 3);
    for feature in features {
        assert_eq!(feature.error().unwrap().raw_os_error(), Some(libc::EPERM), "{feature:?}");
    }
}
