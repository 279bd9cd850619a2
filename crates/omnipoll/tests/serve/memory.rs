//! Out of memory: what a caller chose the size of is an error, and everything else goes on.

use std::io::{IoSlice, Write};

use crate::acts::Acts;
use crate::bytes::fill;
use crate::client::{end, exchange, expect_end, expect_reset, keep_small, read, small};
use crate::log::What;
use crate::served::serve;
use crate::suite::Suite;
use crate::support::sys;
use crate::way::Way;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.in_each_way(a_write_that_cannot_be_kept_without_memory);
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

fn a_write_that_cannot_be_kept_without_memory(way: Way) {
    let acts = Acts::echo().on_data(|conn, note, data| match data {
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
            note.say(filled);
        }
        b"part" => {
            let large = large();
            assert_eq!(conn.write(&large).unwrap_err().raw_os_error(), Some(libc::ECONNABORTED));
        }
        _ => drop(conn.write(data).unwrap()),
    });
    let served = serve(way.options().queue_limit(4 * LARGE).total_queue_limit(4 * LARGE), acts);
    let (mut whole, mut part, other) = (small(served.address()), served.client(), served.client());
    exchange(&other, b"before");
    whole.write_all(b"whole").unwrap();
    let filled = served.said(&whole, 1)[0] as usize;
    exchange(&other, b"meanwhile");
    assert_eq!(read(&whole, filled), vec![0; filled]);
    exchange(&whole, b"it goes on");
    // Of this one the kernel takes a part: what the client has is not the whole, and it is told so.
    part.write_all(b"part").unwrap();
    expect_reset(&part);
    assert_eq!(served.expect(&part, What::Close).value, libc::ENOMEM.into());
    exchange(&other, b"after");
    for client in [&whole, &other] {
        end(client);
        expect_end(client);
    }
    served.ends_well();
}
