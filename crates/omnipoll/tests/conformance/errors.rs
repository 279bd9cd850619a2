//! Mistakes are reported, and change nothing.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use omnipoll::{EngineKind, Events, Interest, Options, Poller, Ready, Trigger};

use crate::suite::{Suite, TRIGGERS};
use crate::support::expect::*;
use crate::support::{engines, fds::*, sys};

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_trigger(adding_twice_is_eexist_and_leaves_the_first);
    suite.on_each_engine(an_unregistered_descriptor_is_enoent);
    suite.on_each_engine(a_removed_descriptor_is_enoent);
    suite.on_each_trigger(a_closed_descriptor_is_ebadf);
    suite.on_each_engine(a_failed_modify_leaves_the_registration);
    suite.on_each_trigger(a_file_that_is_always_ready_is_eperm);
    suite.on_each_trigger(an_o_path_descriptor_is_ebadf);
    suite.on_each_engine(what_has_no_readiness_is_refused_without_free_descriptors);
    suite.on_each_engine(what_has_readiness_is_accepted);
    suite.on_each_trigger(an_always_ready_file_is_ready_where_enabled);
    suite.on_each_engine(an_always_ready_file_beside_a_busy_pipe);
    suite.on_each_trigger(a_closed_always_ready_file_is_reported);
    suite.on_each_trigger(a_reused_fd_of_an_always_ready_file_gets_no_old_event);
    suite.on_each_engine(the_poller_s_own_descriptors_are_einval);
    suite.on_each_engine(a_wait_without_room_is_einval);
    suite.on_each_engine(no_more_descriptors_is_emfile_and_leaks_none);
    suite.on_each_engine(the_environment_selects_the_engine);
    suite.once(an_unavailable_engine_is_enosys);
    suite.once(an_unknown_name_in_the_environment_is_einval);
    suite.once(the_bits_of_an_interest_are_checked);
}

fn adding_twice_is_eexist_and_leaves_the_first(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    poller.add(&ours, Interest::READ | trigger, 1).unwrap();
    expect_error(poller.add(&ours, Interest::WRITE | trigger, 2), libc::EEXIST);
    expect_none(&poller);
    write_byte(&theirs);
    expect_event(&poller, 1, Ready::READ);
}

fn an_unregistered_descriptor_is_enoent(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, _writer) = pipe();
    for unknown in [reader.as_raw_fd(), 100_000, i32::MAX] {
        expect_error(poller.modify_raw(unknown, Interest::READ, 1), libc::ENOENT);
        expect_error(poller.rearm_raw(unknown, Interest::READ), libc::ENOENT);
        expect_error(poller.remove_raw(unknown), libc::ENOENT);
    }
    for negative in [-1, i32::MIN] {
        expect_error(poller.modify_raw(negative, Interest::READ, 1), libc::EBADF);
        expect_error(poller.rearm_raw(negative, Interest::READ), libc::EBADF);
        expect_error(poller.remove_raw(negative), libc::EBADF);
    }
    expect_none(&poller);
}

fn a_removed_descriptor_is_enoent(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    write_byte(&writer);
    for token in 0..3 {
        poller.add(&reader, Interest::READ, token).unwrap();
        expect_event(&poller, token, Ready::READ);
        poller.remove(&reader).unwrap();
        expect_error(poller.remove(&reader), libc::ENOENT);
        expect_error(poller.modify(&reader, Interest::READ, 1), libc::ENOENT);
        expect_error(poller.rearm(&reader, Interest::READ), libc::ENOENT);
    }
}

fn a_closed_descriptor_is_ebadf(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    let (reader, _writer) = pipe();
    let closed = close(reader);
    for number in [closed, 100_000, i32::MAX, -1, i32::MIN] {
        expect_error(poller.add_raw(number, Interest::READ | trigger, 1), libc::EBADF);
    }
    expect_error(poller.remove_raw(closed), libc::ENOENT);
    expect_none(&poller);
}

/// In a peer a modify that failed had changed the registration all the same.
fn a_failed_modify_leaves_the_registration(kind: EngineKind) {
    let poller = poller(kind);
    let (ours, theirs) = pair();
    poller.add(&ours, Interest::READ, 1).unwrap();
    let refused = Interest::WRITE | Trigger::EXCLUSIVE;
    expect_error(poller.modify(&ours, refused, 2), libc::EINVAL);
    expect_none(&poller);
    write_byte(&theirs);
    expect_event(&poller, 1, Ready::READ);
    expect_event(&poller, 1, Ready::READ);
}

/// A regular file, a directory, a device without readiness, and where the system has them
/// anonymous files that have none.
fn always_ready_files() -> Vec<File> {
    let program = std::env::current_exe().unwrap();
    let folder = program.parent().unwrap();
    let paths = [program.as_path(), folder, "/dev/null".as_ref(), "/dev/zero".as_ref()];
    let named = paths.map(|path| File::open(path).unwrap());
    named.into_iter().chain(sys::anonymous_files_without_readiness().map(File::from)).collect()
}

fn an_o_path_descriptor_is_ebadf(kind: EngineKind, trigger: Trigger) {
    let folder = std::env::temp_dir().join(format!("omnipoll-path-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let (fifo, socket) = (folder.join("fifo"), folder.join("socket"));
    sys::make_fifo(&fifo);
    let _listener = UnixListener::bind(&socket).unwrap();
    let paths = [fifo, socket, folder.clone(), "/dev/null".into(), std::env::current_exe().unwrap()];
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_PATH);
    let opened = paths.map(|path| options.open(path).unwrap());
    std::fs::remove_dir_all(folder).unwrap();
    for poller in [poller(kind), poller_with_files_always_ready(kind)] {
        for file in &opened {
            expect_error(poller.add(file, Interest::READ | trigger, 1), libc::EBADF);
            expect_error(poller.remove(file), libc::ENOENT);
        }
        expect_none(&poller);
    }
}

/// Where only an epoll could find out, and none can be made, that is the error.
fn what_has_no_readiness_is_refused_without_free_descriptors(kind: EngineKind) {
    let poller = poller(kind);
    let files = always_ready_files();
    let (reader, writer) = pipe();
    let count = sys::eventfd(0);
    sys::forbid_more_descriptors();
    for file in &files {
        let error = poller.add(file, Interest::READ, 1).unwrap_err();
        assert!([Some(libc::EPERM), Some(libc::EMFILE)].contains(&error.raw_os_error()), "{error}");
        expect_error(poller.remove(file), libc::ENOENT);
    }
    poller.add(&reader, Interest::READ | Trigger::EDGE, 2).unwrap();
    sys::limit_descriptors(1000);
    poller.add(&count, Interest::READ, 3).unwrap();
    write_byte(&writer);
    expect_event(&poller, 2, Ready::READ);
    expect_quiet(&poller);
}

fn what_has_readiness_is_accepted(kind: EngineKind) {
    let poller = poller(kind);
    for file in sys::files_with_readiness() {
        poller.add(&file, Interest::READ | Interest::WRITE, 1).unwrap();
        poller.remove(&file).unwrap();
    }
}

fn a_file_that_is_always_ready_is_eperm(kind: EngineKind, trigger: Trigger) {
    let poller = poller(kind);
    for file in always_ready_files() {
        expect_error(poller.add(&file, Interest::READ | trigger, 1), libc::EPERM);
        expect_error(poller.remove(&file), libc::ENOENT);
    }
    expect_none(&poller);
}

fn poller_with_files_always_ready(kind: EngineKind) -> Poller {
    Options::new().engine(kind).files_always_ready(true).build().unwrap()
}

fn an_always_ready_file_is_ready_where_enabled(kind: EngineKind, trigger: Trigger) {
    let poller = poller_with_files_always_ready(kind);
    for (file, token) in always_ready_files().iter().zip(1..) {
        let both = Interest::READ | Interest::WRITE | trigger;
        poller.add(file, both, token).unwrap();
        expect_error(poller.add(file, both, 0), libc::EEXIST);
        for token in [token, token + 10] {
            expect_event(&poller, token, Ready::READ | Ready::WRITE);
            match trigger {
                Trigger::LEVEL => expect_event(&poller, token, Ready::READ | Ready::WRITE),
                _ => expect_quiet(&poller),
            }
            poller.modify(file, both, token + 10).unwrap();
        }
        poller.remove(file).unwrap();
        expect_none(&poller);
    }
}

fn an_always_ready_file_beside_a_busy_pipe(kind: EngineKind) {
    let poller = poller_with_files_always_ready(kind);
    let file = always_ready_files().remove(0);
    let (reader, writer) = pipe();
    poller.add(&file, Interest::READ, 1).unwrap();
    poller.add(&reader, Interest::READ, 2).unwrap();
    expect_event(&poller, 1, Ready::READ);
    write_byte(&writer);
    expect_events(&poller, &[(1, Ready::READ), (2, Ready::READ)]);
}

fn a_closed_always_ready_file_is_reported(kind: EngineKind, trigger: Trigger) {
    for file in always_ready_files() {
        let poller = poller_with_files_always_ready(kind);
        poller.add(&file, Interest::READ | trigger, 1).unwrap();
        let number = close(file);
        expect_event(&poller, 1, Ready::INVALID);
        expect_quiet(&poller);
        expect_error(poller.remove_raw(number), libc::ENOENT);
    }
}

fn a_reused_fd_of_an_always_ready_file_gets_no_old_event(kind: EngineKind, trigger: Trigger) {
    for removes in [true, false] {
        let poller = poller_with_files_always_ready(kind);
        let file = always_ready_files().remove(0);
        let (reader, writer) = pipe();
        poller.add(&file, Interest::READ | trigger, 1).unwrap();
        let number = close(file);
        if removes {
            poller.remove_raw(number).unwrap();
        }
        let number = sys::dup_to(&reader, number);
        poller.add(&number, Interest::READ | trigger, 2).unwrap();
        expect_quiet(&poller);
        write_byte(&writer);
        expect_event(&poller, 2, Ready::READ);
    }
}

fn the_poller_s_own_descriptors_are_einval(kind: EngineKind) {
    let before = sys::open_descriptors();
    let poller = poller(kind);
    let own: Vec<_> = sys::open_descriptors().difference(&before).copied().collect();
    assert!(!own.is_empty());
    for descriptor in own {
        expect_error(poller.add_raw(descriptor, Interest::READ, 1), libc::EINVAL);
        expect_error(poller.remove_raw(descriptor), libc::ENOENT);
    }
    expect_none(&poller);
}

fn a_wait_without_room_is_einval(kind: EngineKind) {
    let poller = poller(kind);
    let (reader, writer) = pipe();
    poller.add(&reader, Interest::READ | Trigger::ONESHOT, 1).unwrap();
    write_byte(&writer);
    expect_error(poller.wait(&mut Events::with_capacity(0), None), libc::EINVAL);
    expect_event(&poller, 1, Ready::READ);
}

fn no_more_descriptors_is_emfile_and_leaks_none(kind: EngineKind) {
    drop(poller(kind));
    let before = sys::open_descriptors();
    sys::forbid_more_descriptors();
    for _ in 0..10 {
        expect_error(Poller::with_engine(kind), libc::EMFILE);
    }
    sys::allow_descriptors(1000);
    assert_eq!(sys::open_descriptors(), before);
}

fn the_environment_selects_the_engine(kind: EngineKind) {
    std::env::set_var("OMNIPOLL_ENGINE", kind.name());
    assert_eq!(Poller::new().unwrap().engine(), kind);
    assert_eq!(EngineKind::from_name(kind.name()), Some(kind));
    // Who asks for an engine gets it, whatever the environment says.
    for asked in engines() {
        assert_eq!(Poller::with_engine(asked).unwrap().engine(), asked);
    }
}

fn an_unavailable_engine_is_enosys() {
    for kind in EngineKind::ALL.into_iter().filter(|kind| !kind.is_available()) {
        expect_error(Poller::with_engine(kind), libc::ENOSYS);
        std::env::set_var("OMNIPOLL_ENGINE", kind.name());
        expect_error(Poller::new(), libc::ENOSYS);
    }
}

fn an_unknown_name_in_the_environment_is_einval() {
    for name in ["Epoll", "epoll ", "windows", "3"] {
        std::env::set_var("OMNIPOLL_ENGINE", name);
        expect_error(Poller::new(), libc::EINVAL);
    }
    // An empty variable is as good as none.
    std::env::set_var("OMNIPOLL_ENGINE", "");
    let poller = Poller::new().unwrap();
    poller.wake().unwrap();
    expect_wake(&poller, 1);
    assert_eq!(wait(&poller, 1, Duration::ZERO), []);
}

fn the_bits_of_an_interest_are_checked() {
    for directions in 0..8u32 {
        for trigger in TRIGGERS.map(|trigger| Interest::READ | trigger) {
            let bits = directions | trigger.bits() & !1;
            let made = Interest::from_bits(bits);
            assert_eq!(made.map(Interest::bits), Some(bits));
        }
    }
    for unknown in [8, 16, 0x40, 0x80, 0x800, 0x8000, 1 << 16, 1 << 31] {
        assert_eq!(Interest::from_bits(Interest::READ.bits() | unknown), None, "{unknown:#x}");
    }
    // epoll_ctl(2) takes EXCLUSIVE with neither of these.
    for other in [Interest::PRIORITY | Trigger::LEVEL, Interest::READ | Trigger::ONESHOT] {
        assert_eq!(Interest::from_bits((other | Trigger::EXCLUSIVE).bits()), None);
    }
}
