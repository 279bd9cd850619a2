//! What a service manager is notified of, read from a socket of the test's own.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use omnipoll::Model;

use crate::client::{end, exchange};
use crate::config::Config;
use crate::running_server::serve_on;
use crate::suite::Suite;
use crate::support::expect::LONG;
use crate::test_handler::TestHandler;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_model(a_manager_is_told_of_the_beginning_and_the_end);
    suite.for_models(&[Model::Cores, Model::Prefork], a_manager_is_told_that_the_server_is_alive);
}

/// What a service manager reads from.
struct Manager(UnixDatagram);

impl Manager {
    fn at(address: &SocketAddr, variable: &str) -> Self {
        std::env::set_var("NOTIFY_SOCKET", variable);
        let socket = UnixDatagram::bind_addr(address).expect("bind");
        socket.set_read_timeout(Some(LONG)).expect("a timeout");
        Self(socket)
    }

    fn abstract_name() -> Self {
        let name = format!("omnipoll-notify-{}", std::process::id());
        Self::at(&SocketAddr::from_abstract_name(&name).expect("a name"), &format!("@{name}"))
    }

    #[track_caller]
    fn message(&self) -> String {
        let mut text = [0; 1024];
        let length = self.0.recv(&mut text).expect("a message in time");
        String::from_utf8(text[..length].to_vec()).expect("a text")
    }
}

fn a_manager_is_told_of_the_beginning_and_the_end(config: Config) {
    let path = std::env::temp_dir().join(format!("omnipoll-notify-{}", std::process::id()));
    let manager = Manager::at(&SocketAddr::from_pathname(&path).unwrap(), path.to_str().unwrap());
    let server = serve_on(&["127.0.0.1:0"], config.options().notify(true), TestHandler::echo(), |handle| {
        assert!(handle.notify("STATUS=listening\nEXTEND_TIMEOUT_USEC=1000000").unwrap());
    });
    assert_eq!(manager.message(), "STATUS=listening\nEXTEND_TIMEOUT_USEC=1000000");
    assert_eq!(manager.message(), "READY=1");
    let client = server.client();
    exchange(&client, b"hello");
    server.stop(LONG);
    assert_eq!(manager.message(), "STOPPING=1");
    end(&client);
    assert_eq!(server.wait_for_end().errno, 0);
    manager.0.set_nonblocking(true).unwrap();
    assert!(manager.0.recv(&mut [0]).is_err(), "once each, and by no child");
    std::fs::remove_file(path).unwrap();
}

fn a_manager_is_told_that_the_server_is_alive(config: Config) {
    let manager = Manager::abstract_name();
    std::env::set_var("WATCHDOG_USEC", "20000");
    let server = serve_on(&["127.0.0.1:0"], config.options().notify(true), TestHandler::echo(), |_| {});
    assert_eq!(manager.message(), "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.message(), "WATCHDOG=1");
    }
    server.stop(Duration::ZERO);
    while manager.message() != "STOPPING=1" {}
    assert_eq!(server.wait_for_end().errno, 0);
}
