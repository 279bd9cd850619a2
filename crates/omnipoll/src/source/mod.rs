//! What a wait tells besides descriptors, and what a poller must notice by itself.

pub(crate) mod fork;
pub(crate) mod wake;
