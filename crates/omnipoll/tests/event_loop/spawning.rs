//! Programs that a loop starts.

use std::process::Command;

use omnipoll::{ConnId, EngineKind, LoopEvent, LoopEventKind, LoopOptions, Pipes, PulledLoop};

use crate::suite::Suite;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.on_each_engine(streams_are_connections_and_the_end_is_an_event);
    suite.on_each_engine(a_filter_passes_much);
    suite.on_each_engine(a_program_that_is_not_there);
    suite.on_each_engine(a_program_that_is_killed);
    suite.on_each_engine(many_programs_leave_nothing_behind);
}

fn loop_of(engine: EngineKind) -> PulledLoop {
    PulledLoop::with_options(LoopOptions::new().engine(engine)).expect("a loop")
}

/// Runs until `count` children and all their streams have ended: what each stream has brought, and the
/// statuses.
fn run(event_loop: &mut PulledLoop, streams: &[ConnId], count: usize) -> (Vec<Vec<u8>>, Vec<i64>) {
    let mut output = vec![Vec::new(); streams.len()];
    let (mut open, mut statuses) = (streams.to_vec(), Vec::new());
    let mut events = [LoopEvent::default(); 64];
    while !open.is_empty() || statuses.len() < count {
        let arrived = event_loop.wait(&mut events, Some(crate::running::LONG)).expect("wait");
        assert!(arrived > 0, "{} streams are open, {} have ended", open.len(), statuses.len());
        for event in &events[..arrived] {
            match event.kind() {
                LoopEventKind::Data => {
                    let at = streams.iter().position(|&id| id == event.conn()).expect("a stream");
                    output[at].extend_from_slice(&event_loop.data(event));
                }
                LoopEventKind::Ended => event_loop.conn(event.conn()).unwrap().close(),
                LoopEventKind::Closed => open.retain(|&id| id != event.conn()),
                LoopEventKind::Child => {
                    assert_eq!(event.token(), 5);
                    statuses.push(event.value());
                }
                _ => {}
            }
        }
    }
    (output, statuses)
}

fn streams_are_connections_and_the_end_is_an_event(engine: EngineKind) {
    let mut event_loop = loop_of(engine);
    let mut command = Command::new("sh");
    command.args(["-c", "read word; echo \"got $word\"; echo oops >&2; exit 3"]);
    let pipes = Pipes::STDIN | Pipes::STDOUT | Pipes::STDERR;
    let shell = event_loop.spawn(&mut command, pipes, 5).expect("spawn");
    assert!(shell.pid > 0);
    let [stdin, stdout, stderr] = [shell.stdin, shell.stdout, shell.stderr].map(Option::unwrap);
    stdin.write(b"hello\n").unwrap();
    stdin.close().unwrap();
    let (output, statuses) = run(&mut event_loop, &[stdin, stdout, stderr], 1);
    assert_eq!(output, [&b""[..], b"got hello\n", b"oops\n"]);
    assert_eq!(statuses, [3 << 8]);
}

fn a_filter_passes_much(engine: EngineKind) {
    let mut event_loop = loop_of(engine);
    let cat = event_loop.spawn(&mut Command::new("cat"), Pipes::STDIN | Pipes::STDOUT, 5).expect("spawn");
    let (stdin, stdout) = (cat.stdin.unwrap(), cat.stdout.unwrap());
    assert_eq!(cat.stderr, None);
    let data = crate::client::pattern(1, 4 << 20);
    stdin.write(&data).unwrap();
    stdin.close().unwrap();
    let (output, statuses) = run(&mut event_loop, &[stdin, stdout], 1);
    assert!(output[1] == data, "the filter's output differs");
    assert_eq!(statuses, [0]);
}

fn a_program_that_is_not_there(engine: EngineKind) {
    let mut event_loop = loop_of(engine);
    let before = crate::support::sys::open_descriptors();
    let error = event_loop.spawn(&mut Command::new("/no/such/program"), Pipes::STDIN, 5).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    assert!(omnipoll::explain(&error).contains("/no/such/program"));
    assert_eq!(crate::support::sys::open_descriptors(), before);
}

fn a_program_that_is_killed(engine: EngineKind) {
    let mut event_loop = loop_of(engine);
    let cat = event_loop.spawn(&mut Command::new("cat"), Pipes::STDIN | Pipes::STDOUT, 5).expect("spawn");
    // SAFETY: takes no pointer; the process has not been reaped.
    assert_eq!(unsafe { libc::kill(cat.pid, libc::SIGKILL) }, 0);
    let (_, statuses) = run(&mut event_loop, &[cat.stdin.unwrap(), cat.stdout.unwrap()], 1);
    assert_eq!(statuses, [i64::from(libc::SIGKILL)]);
}

fn many_programs_leave_nothing_behind(engine: EngineKind) {
    let mut event_loop = loop_of(engine);
    // What the process opens once for all.
    let first = event_loop.spawn(&mut Command::new("true"), Pipes::NONE, 5).unwrap();
    assert_eq!((first.stdin, first.stdout), (None, None));
    run(&mut event_loop, &[], 1);
    let before = crate::support::sys::open_descriptors().len();
    let mut streams = Vec::new();
    for number in 0..30 {
        let mut command = Command::new("echo");
        let echo = event_loop.spawn(command.arg(number.to_string()), Pipes::STDOUT, 5).expect("spawn");
        streams.extend(echo.stdout);
    }
    let (output, statuses) = run(&mut event_loop, &streams, 30);
    assert!(output.iter().enumerate().all(|(number, words)| *words == format!("{number}\n").into_bytes()));
    assert!(statuses.iter().all(|&status| status == 0));
    event_loop.wait(&mut [LoopEvent::default()], Some(std::time::Duration::ZERO)).unwrap();
    assert_eq!(crate::support::sys::open_descriptors().len(), before);
}
