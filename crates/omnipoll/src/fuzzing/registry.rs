//! The registry beside a map: the same registrations, and generations that never repeat.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use super::input::Input;
use crate::interest::Interest;
use crate::registry::{began_after, Registry, Role, Tag};

/// Far apart, so that pages are missing between them.
const DESCRIPTORS: [RawFd; 8] = [0, 1, 255, 256, 257, 1023, 5_000, 70_000];

struct Expected {
    token: u64,
    interest: Interest,
    generation: u32,
}

/// Begins, changes and ends registrations.
pub fn registry(data: &[u8]) {
    let mut input = Input::new(data);
    let mut registry = Registry::default();
    let mut expected = BTreeMap::<RawFd, Expected>::new();
    while !input.is_empty() {
        let fd = DESCRIPTORS[input.below(DESCRIPTORS.len())];
        let interest = if input.byte() % 2 == 0 { Interest::READ } else { Interest::READ | Interest::WRITE };
        let token = input.long();
        let before = registry.clock();
        match input.byte() % 4 {
            0 => {
                let tag = Tag { token, role: Role::User };
                registry.reserve(fd).expect("memory");
                let generation = registry.begin(fd, interest, tag).generation;
                expected.insert(fd, Expected { token, interest, generation });
            }
            1 => {
                let updated = registry.update_new_generation(fd, interest, token).map(|it| it.generation);
                assert_eq!(updated.is_some(), expected.contains_key(&fd));
                if let Some(generation) = updated {
                    expected.insert(fd, Expected { token, interest, generation });
                }
            }
            2 => {
                let kept = registry.update(fd, interest, token).map(|it| it.generation);
                assert_eq!(kept, expected.get(&fd).map(|it| it.generation));
                if let Some(it) = expected.get_mut(&fd) {
                    (it.token, it.interest) = (token, interest);
                }
            }
            _ => {
                if expected.remove(&fd).is_some() {
                    registry.end(fd);
                }
            }
        }
        assert!(!began_after(before, registry.clock()), "the clock has gone back");
        compare(&registry, &expected);
    }
}

fn compare(registry: &Registry, expected: &BTreeMap<RawFd, Expected>) {
    assert!(registry.registrations().map(|(fd, _)| fd).eq(expected.keys().copied()));
    assert_eq!(registry.descriptors(), expected.keys().copied().collect::<Vec<_>>());
    let mut generations = Vec::new();
    for (&fd, it) in expected {
        let found = registry.get(fd).expect("it was registered");
        assert_eq!((found.token, found.interest), (it.token, it.interest));
        assert_eq!((found.generation, found.armed), (it.generation, it.interest.armed()));
        generations.push(found.generation);
    }
    generations.sort_unstable();
    generations.dedup();
    assert_eq!(generations.len(), expected.len(), "two registrations have one generation");
    for fd in DESCRIPTORS.into_iter().chain([2, 258, 1 << 20, i32::MAX]) {
        assert_eq!(registry.get(fd).is_some(), expected.contains_key(&fd));
    }
}
