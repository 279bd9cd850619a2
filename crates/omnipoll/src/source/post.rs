//! Values that other threads hand to the one that waits.

use std::collections::VecDeque;
use std::io;

use crate::error::{fail, no_memory};
use crate::event::{Event, EventKind};

/// How many posts may wait to be taken: a megabyte and a half of them.
pub(crate) const MAX_POSTS: usize = 65_536;

/// Posts in the order they came.
#[derive(Default)]
pub(crate) struct Posts {
    queue: VecDeque<Event>,
}

impl Posts {
    /// `EAGAIN` when the queue is full, `ENOMEM` without memory: nothing was posted.
    pub(crate) fn push(&mut self, token: u64, value: i64) -> io::Result<()> {
        if self.queue.len() == MAX_POSTS {
            return Err(fail(libc::EAGAIN, "65,536 posts wait to be taken: post again when some are"));
        }
        self.queue.try_reserve(1).map_err(no_memory)?;
        self.queue.push_back(Event::new(EventKind::Post, token, value));
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
    }
}
