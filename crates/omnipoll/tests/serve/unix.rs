//! Sockets of the unix domain, and sockets that were handed on.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use crate::acts::Acts;
use crate::client::exchange;
use crate::log::What;
use crate::served::{serve_on, Served};
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::support::sys;
use crate::way::Way;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.in_each_way(a_path_is_served);
    suite.in_each_way(a_unix_abort_is_an_end);
    suite.in_each_way(an_inherited_socket_is_served);
}

fn connect(path: &str) -> UnixStream {
    let client = UnixStream::connect(path).expect("connect");
    client.set_read_timeout(Some(LONG)).expect("a timeout");
    client
}

/// A path that nobody else uses.
fn path(way: Way) -> String {
    let folder = std::env::temp_dir();
    format!("{}/omnipoll-{}-{}", folder.display(), std::process::id(), way.model.name())
}

/// Waits for that many entries of this kind, whoever they are of: unix clients have no port.
fn wait_for(served: &Served, what: What, count: usize) -> i64 {
    served.log.wait_for(&format!("{count} times {what:?}"), |entries| {
        entries.iter().filter(|entry| entry.what == what).nth(count - 1).map(|entry| entry.value)
    })
}

fn a_path_is_served(way: Way) {
    let path = path(way);
    let served = serve_on(&[&format!("unix:{path}"), "127.0.0.1:0"], way.options(), Acts::echo(), |_| {});
    assert_eq!(served.addresses()[0], format!("unix:{path}"));
    for turn in 1..=5 {
        let mut client = connect(&path);
        client.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut answer).unwrap(), 0);
        assert_eq!(wait_for(&served, What::Close, turn), 0);
    }
    served.ends_well();
    // Nobody finds the way to one who has gone.
    assert!(UnixStream::connect(&path).is_err());
    let _ = std::fs::remove_file(&path);
}

fn a_unix_abort_is_an_end(way: Way) {
    let path = path(way);
    let acts = Acts::echo().on_data(|conn, _, _| conn.abort());
    let served = serve_on(&[&format!("unix:{path}")], way.options(), acts, |_| {});
    let mut client = connect(&path);
    client.write_all(b"go").unwrap();
    // There is no reset between unix sockets, but for bytes that were not read.
    let _ = client.read(&mut [0]);
    assert_eq!(wait_for(&served, What::Close, 1), libc::ECONNABORTED.into());
    served.ends_well();
    let _ = std::fs::remove_file(&path);
}

fn an_inherited_socket_is_served(way: Way) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let number = listener.as_raw_fd();
    let served = serve_on(&[&format!("fd:{number}")], way.options(), Acts::echo(), |_| {});
    assert_eq!(served.addresses()[0], address.to_string());
    assert!(sys::is_open(number));
    drop(listener);
    exchange(&served.client(), b"hello");
    served.ends_well();
}
