//! The inner data structures, each driven by a string of bytes against a plain model of it.
//!
//! The fuzz targets of `omnipoll-fuzz` choose the bytes by what they reach; the tests below take
//! random ones, so that every toolchain, and Miri, runs the same comparison.

#[cfg(feature = "serve")]
mod address;
mod input;
mod registry;
mod timers;
#[cfg(feature = "serve")]
mod write_queue;

#[cfg(feature = "serve")]
pub use address::address;
pub use registry::registry;
pub use timers::timers;
#[cfg(feature = "serve")]
pub use write_queue::write_queue;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    const CASES: u32 = if cfg!(miri) { 4 } else { 256 };
    const LENGTH: usize = if cfg!(miri) { 100 } else { 1000 };

    fn check(target: fn(&[u8])) {
        let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(data in prop::collection::vec(any::<u8>(), 0..LENGTH))| target(&data));
    }

    #[test]
    #[cfg(feature = "serve")]
    fn addresses_are_read_as_they_are_shown() {
        check(super::address);
        for text in ["unix:@a\\\n", "[fe80::1%1]:0", "*:1", "localhost:65535", "fd:3", "systemd"] {
            super::address(text.as_bytes());
        }
    }

    #[test]
    fn the_registry_holds_what_was_registered() {
        check(super::registry);
    }

    #[test]
    fn timers_expire_in_order() {
        check(super::timers);
    }

    #[test]
    #[cfg(feature = "serve")]
    #[cfg_attr(miri, ignore = "sockets")]
    fn a_write_queue_sends_every_byte_once_and_in_order() {
        check(super::write_queue);
    }
}
