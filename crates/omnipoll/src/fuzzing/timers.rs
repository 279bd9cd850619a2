//! Timers beside an ordered map: each expires once it is due, the soonest first, ties by age; one
//! without a period keeps its id, under which it can be set again, until it is cancelled.

use std::collections::BTreeMap;

use super::input::Input;
use crate::source::timer::Timers;

#[derive(Clone, Copy)]
struct Expected {
    is_armed: bool,
    deadline: u64,
    period: u64,
    token: u64,
    age: u64,
}

/// Adds, moves, cancels and expires timers.
pub fn timers(data: &[u8]) {
    let mut input = Input::new(data);
    let mut timers = Timers::default();
    let mut expected = BTreeMap::<u64, Expected>::new();
    let mut ids = vec![0];
    let (mut now, mut age) = (0_u64, 0);
    while !input.is_empty() {
        let id = ids[input.below(ids.len())];
        let deadline = now.saturating_add(u64::from(input.byte()));
        let period = u64::from(input.byte() % 4);
        age += 1;
        match input.byte() % 4 {
            0 => {
                let Ok(id) = timers.add(deadline, period, age) else { return };
                assert!(!ids.contains(&id), "the id {id:#x} was used before");
                ids.push(id);
                expected.insert(id, Expected { is_armed: true, deadline, period, token: age, age });
            }
            1 => {
                assert_eq!(timers.set(id, deadline, period), expected.contains_key(&id));
                if let Some(it) = expected.get_mut(&id) {
                    it.age = if it.is_armed { it.age } else { age };
                    (it.is_armed, it.deadline, it.period) = (true, deadline, period);
                }
            }
            2 => assert_eq!(timers.cancel(id), expected.remove(&id).is_some_and(|it| it.is_armed)),
            _ => {
                now += u64::from(input.byte());
                expire(&mut timers, &mut expected, now);
            }
        }
        let armed = expected.values().filter(|it| it.is_armed);
        assert_eq!(timers.len(), armed.clone().count());
        assert_eq!(timers.next(), armed.map(|it| it.deadline).min());
    }
}

fn expire(timers: &mut Timers, expected: &mut BTreeMap<u64, Expected>, now: u64) {
    loop {
        let due = expected.values_mut().filter(|it| it.is_armed && it.deadline <= now);
        let first = due.min_by_key(|it| (it.deadline, it.age));
        let expired = timers.expire(now);
        let Some(it) = first else { break assert_eq!(expired, None) };
        let expired = expired.expect("a timer is due");
        assert_eq!(expired.token, it.token);
        match it.period {
            0 => it.is_armed = false,
            period => {
                let times = (now - it.deadline) / period + 1;
                assert_eq!(expired.times, times);
                it.deadline += times * period;
            }
        }
    }
}
