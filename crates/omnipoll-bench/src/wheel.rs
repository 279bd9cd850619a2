//! A hierarchical timing wheel, to compare the library's heap with.
//!
//! Varghese and Lauck's scheme 7: eight levels of 64 slots, each slot a list of timers; a level's
//! slot is as long as the level below it. Arming and cancelling touch one list. A timer is as
//! fine as a tick (65,536 ns) and expires at the tick's end, never early; those of one tick are
//! sorted when it comes.

const TICK_BITS: u32 = 16;
const LEVELS: usize = 8;
const SLOTS: usize = 64;
const NONE: u32 = u32::MAX;

/// Armed timers, over nanoseconds that the caller counts.
pub struct Wheel {
    first: [[u32; SLOTS]; LEVELS],
    /// A bit for each slot that has a timer.
    occupied: [u64; LEVELS],
    /// The tick up to which everything has expired.
    now: u64,
    timers: Vec<Timer>,
    free: Vec<u32>,
    /// Expired and not yet taken, the last first.
    due: Vec<(u64, u64)>,
}

struct Timer {
    deadline: u64,
    token: u64,
    previous: u32,
    next: u32,
    level: u8,
    slot: u8,
    /// Odd while it is armed.
    generation: u32,
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            first: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            now: 0,
            timers: Vec::new(),
            free: Vec::new(),
            due: Vec::new(),
        }
    }
}

impl Wheel {
    /// Arms a timer and returns its id.
    pub fn add(&mut self, deadline: u64, token: u64) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            let unused =
                Timer { deadline: 0, token: 0, previous: NONE, next: NONE, level: 0, slot: 0, generation: 0 };
            self.timers.push(unused);
            self.timers.len() as u32 - 1
        });
        let timer = &mut self.timers[index as usize];
        (timer.deadline, timer.token) = (deadline, token);
        timer.generation = timer.generation.wrapping_add(1);
        let id = u64::from(timer.generation) << 32 | u64::from(index);
        self.link(index);
        id
    }

    /// Disarms a timer; `false` when there is none of that id.
    pub fn cancel(&mut self, id: u64) -> bool {
        let index = id as u32;
        let armed = |timer: &Timer| u64::from(timer.generation) == id >> 32 && timer.generation % 2 == 1;
        if !self.timers.get(index as usize).is_some_and(armed) {
            return false;
        }
        self.unlink(index);
        self.end(index);
        true
    }

    /// No timer expires before this.
    pub fn next(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, tick)| tick << TICK_BITS)
    }

    /// Takes one timer that is due: its token.
    pub fn expire(&mut self, now: u64) -> Option<u64> {
        if self.due.is_empty() {
            self.advance(now >> TICK_BITS);
        }
        self.due.pop().map(|(_, token)| token)
    }

    /// Advances to the next tick with timers, which become due, or to `until`.
    fn advance(&mut self, until: u64) {
        while let Some((level, slot, tick)) = self.next_slot().filter(|&(_, _, tick)| tick <= until) {
            self.now = tick;
            let mut index = std::mem::replace(&mut self.first[level][slot], NONE);
            self.occupied[level] &= !(1 << slot);
            while index != NONE {
                let Timer { deadline, token, next, .. } = self.timers[index as usize];
                match level {
                    0 => {
                        self.due.push((deadline, token));
                        self.end(index);
                    }
                    _ => self.link(index),
                }
                index = next;
            }
            if level == 0 {
                self.due.sort_unstable_by(|a, b| b.cmp(a));
                return;
            }
        }
        self.now = self.now.max(until);
    }

    /// The first slot with a timer, and the tick at which it begins.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = (0..LEVELS).find(|&level| self.occupied[level] != 0)?;
        let digit = (self.now >> (6 * level)) as u32 % SLOTS as u32;
        let ahead = self.occupied[level].rotate_right(digit).trailing_zeros();
        let start = (self.now >> (6 * level)) + u64::from(ahead);
        let slot = (digit + ahead) as usize % SLOTS;
        Some((level, slot, (start << (6 * level)).max(self.now)))
    }

    fn link(&mut self, index: u32) {
        let deadline = self.timers[index as usize].deadline;
        let tick = deadline.div_ceil(1 << TICK_BITS).max(self.now);
        let level = (((self.now ^ tick) | 63).ilog2() / 6) as usize;
        let slot = (tick >> (6 * level)) as usize % SLOTS;
        let next = std::mem::replace(&mut self.first[level][slot], index);
        self.occupied[level] |= 1 << slot;
        if next != NONE {
            self.timers[next as usize].previous = index;
        }
        let timer = &mut self.timers[index as usize];
        (timer.previous, timer.next) = (NONE, next);
        (timer.level, timer.slot) = (level as u8, slot as u8);
    }

    fn unlink(&mut self, index: u32) {
        let Timer { previous, next, level, slot, .. } = self.timers[index as usize];
        let (level, slot) = (usize::from(level), usize::from(slot));
        match previous {
            NONE => self.first[level][slot] = next,
            previous => self.timers[previous as usize].next = next,
        }
        if next != NONE {
            self.timers[next as usize].previous = previous;
        }
        if self.first[level][slot] == NONE {
            self.occupied[level] &= !(1 << slot);
        }
    }

    fn end(&mut self, index: u32) {
        let timer = &mut self.timers[index as usize];
        timer.generation = timer.generation.wrapping_add(1);
        self.free.push(index);
    }
}
