//! The ways to serve many clients, a file each.

pub(super) mod cores;
pub(super) mod fork;
pub(super) mod prefork;
pub(super) mod reactor;
pub(super) mod thread;
