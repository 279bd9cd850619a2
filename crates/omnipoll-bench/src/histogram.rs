//! How often which value came: 64 steps from each power of two to the next, so within 2 percent.

const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.ilog2();

/// Counts of values, of any size up to 2^64.
pub struct Histogram {
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; 64 * STEPS as usize] }
    }
}

impl Histogram {
    /// Counts one value.
    pub fn add(&mut self, value: u64) {
        self.counts[Self::slot(value)] += 1;
    }

    /// The value that this part of all the values does not exceed; 0 when there are none.
    pub fn quantile(&self, part: f64) -> u64 {
        let all: u64 = self.counts.iter().sum();
        let rank = (all as f64 * part).ceil() as u64;
        let mut below = 0;
        let slot = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        Self::highest(slot.unwrap_or(0))
    }

    fn slot(value: u64) -> usize {
        let shift = value.max(STEPS).ilog2() - STEP_BITS;
        (u64::from(shift) * STEPS + (value >> shift)) as usize
    }

    /// The highest value of a slot.
    fn highest(slot: usize) -> u64 {
        let shift = (slot as u64 / STEPS).saturating_sub(1);
        let step = slot as u64 - shift * STEPS;
        ((step + 1) << shift) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_within_two_percent() {
        let mut histogram = Histogram::default();
        (1..=100_000).for_each(|value| histogram.add(value));
        for (part, exact) in [(0.0001, 10.0), (0.5, 50_000.0), (0.99, 99_000.0), (1.0, 100_000.0)] {
            let found = histogram.quantile(part) as f64;
            assert!((exact..=exact * 1.02).contains(&found), "{part}: {found}");
        }
    }
}
