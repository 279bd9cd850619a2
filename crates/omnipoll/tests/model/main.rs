//! Random programs, run on every engine and on a plain model of the contract: all must agree.
//!
//! A program opens pipes and sockets, registers and changes them, writes, reads, hangs up,
//! closes, wakes and waits. The model knows from the program alone what each wait must and may
//! report. It allows an edge too many where the contract does, and nothing else.

#[path = "../support/mod.rs"]
mod support;

mod channel;
mod contract;
mod program;

use std::time::Duration;

use omnipoll::EngineKind;
use proptest::prelude::*;

use channel::Channel;
use contract::Contract;
use program::{Operation, SLOTS};
use support::expect::{poller, wait};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_engine_agrees_with_the_contract(program in program::programs()) {
        for kind in support::engines() {
            run(kind, &program);
        }
    }
}

fn run(kind: EngineKind, program: &[Operation]) {
    let poller = poller(kind);
    let mut channels: [Option<Channel>; SLOTS] = Default::default();
    let mut contract = Contract::new(&poller);
    // A token is never used twice, so that an event of the past can't pass for one of the present.
    for (operation, token) in program.iter().zip(1..) {
        let what = format!("{} at operation {token}, {operation:?}", kind.name());
        let slot = operation.slot();
        match (*operation, &mut channels[slot]) {
            (Operation::Wake, _) => {
                poller.wake().unwrap();
                contract.woken();
            }
            (Operation::Wait { capacity }, _) => {
                let events = wait(&poller, capacity, Duration::ZERO);
                contract.check(&what, capacity, &events, &channels);
            }
            (Operation::Open { kind, .. }, place @ None) => *place = Some(Channel::new(kind)),
            (Operation::Open { .. }, Some(_)) | (_, None) => {}
            (Operation::Add { interest, .. }, Some(channel)) => {
                let result = poller.add(&channel.ours, interest, token);
                assert_eq!(errno(result), contract.add(slot, interest, token), "{what}");
            }
            (Operation::Modify { interest, .. }, Some(channel)) => {
                let result = poller.modify(&channel.ours, interest, token);
                assert_eq!(errno(result), contract.modify(slot, interest, token), "{what}");
            }
            (Operation::Remove { .. }, Some(channel)) => {
                assert_eq!(errno(poller.remove(&channel.ours)), contract.remove(slot), "{what}");
            }
            (Operation::Rearm { interest, .. }, Some(channel)) => {
                assert_eq!(
                    errno(poller.rearm(&channel.ours, interest)),
                    contract.rearm(slot, interest),
                    "{what}"
                );
            }
            (Operation::Close { looks, .. }, place @ Some(_)) => {
                let number = place.take().map(|channel| support::fds::close(channel.ours)).unwrap();
                if let Some(capacity) = looks {
                    let events = wait(&poller, capacity, Duration::ZERO);
                    contract.check(&what, capacity, &events, &channels);
                }
                assert_eq!(errno(poller.remove_raw(number)), contract.remove(slot), "{what}");
            }
            (Operation::Do { action, .. }, Some(channel)) => {
                channel.act(action);
                contract.happened(slot, channel);
            }
        }
    }
}

fn errno(result: std::io::Result<()>) -> Result<(), i32> {
    result.map_err(|error| error.raw_os_error().unwrap_or(0))
}
