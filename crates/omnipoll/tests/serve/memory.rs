//! Out of memory: what a caller chose the size of is an error, and everything else continues.

use std::io::{IoSlice, Write};

use crate::bytes::fill;
use crate::client::{end, exchange, expect_end, expect_reset, keep_small, read, small};
use crate::config::Config;
use crate::log::Callback;
use crate::running_server::serve;
use crate::suite::Suite;
use crate::support::sys;
use crate::test_handler::TestHandler;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_each_config(a_write_that_cannot_be_kept_without_memory);
}

/// More than the memory that is left, and less than the limits of the queue.
const LARGE: usize = 256 << 20;
const LEFT: u64 = 64 << 20;

/// So many bytes, besides which there is little memory from now on.
fn large() -> Vec<u8> {
    sys::limit_memory(2 * LARGE as u64);
    let large = vec![0; LARGE];
    sys::limit_memory(LEFT);
    large
}

fn a_write_that_cannot_be_kept_without_memory(config: Config) {
    let handler = TestHandler::echo().on_data(|conn, log, data| match data {
        b"whole" => {
            keep_small(conn);
            let filled = fill(conn);
            let large = large();
            let queued = conn.queued();
            let (half, rest) = large.split_at(LARGE / 2);
            let pieces = [IoSlice::new(half), IoSlice::new(rest)];
            let refused = [conn.write(&large), conn.write_vectored(&pieces), conn.id().write(&large)];
            for error in refused {
                assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::ENOMEM));
            }
            assert_eq!(conn.queued(), queued, "something of a refused write is queued");
            log.value(filled);
        }
        b"part" => {
            let large = large();
            assert_eq!(conn.write(&large).unwrap_err().raw_os_error(), Some(libc::ECONNABORTED));
        }
        _ => drop(conn.write(data).unwrap()),
    });
    let server = serve(config.options().queue_limit(4 * LARGE).total_queue_limit(4 * LARGE), handler);
    let (mut whole, mut part, other) = (small(server.address()), server.client(), server.client());
    exchange(&other, b"before");
    whole.write_all(b"whole").unwrap();
    let filled = server.values(&whole, 1)[0] as usize;
    exchange(&other, b"meanwhile");
    assert_eq!(read(&whole, filled), vec![0; filled]);
    exchange(&whole, b"it continues");
    // Of this one the kernel takes a part: what the client has is not the whole, and it gets an error.
    part.write_all(b"part").unwrap();
    expect_reset(&part);
    assert_eq!(server.expect(&part, Callback::Close).value, libc::ENOMEM.into());
    exchange(&other, b"after");
    for client in [&whole, &other] {
        end(client);
        expect_end(client);
    }
    server.stop_and_check();
}
