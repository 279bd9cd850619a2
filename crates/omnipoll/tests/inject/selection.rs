//! Which faults are asked for, and what has come of them.

use crate::calls::name_of;
use crate::plan::Fault;

/// The faults that the command line names: all of them, those of a call, of an error, or one.
pub(crate) struct Asked(pub(crate) Vec<String>);

impl Asked {
    pub(crate) fn wants(&self, fault: &Fault) -> bool {
        let nth = format!("{}{}", fault.nth, if fault.lasting { "+" } else { "" });
        let words = [fault.call.name, name_of(fault.errno), nth.as_str()];
        self.0.iter().zip(&words).all(|(asked, word)| asked == word)
    }
}

/// Which calls are made to fail, one more each time but for the gaps: of a hundred alike, ten will do.
pub(crate) const SOME: [u32; 7] = [1, 2, 3, 5, 8, 13, 40];

/// How many faults there were in a case.
pub(crate) struct Tally {
    case: String,
    injected: usize,
    survived: usize,
}

impl Tally {
    pub(crate) fn new(case: &str) -> Self {
        Self { case: case.to_owned(), injected: 0, survived: 0 }
    }

    pub(crate) fn add(&mut self, fault: &Fault, outcome: Result<(), String>) {
        self.injected += 1;
        match outcome {
            Ok(()) => self.survived += 1,
            Err(words) => self.say(fault, &words),
        }
    }

    /// How to repeat a fault that was not survived, and what happened.
    pub(crate) fn say(&self, fault: &Fault, words: &str) {
        println!("FAILED: {} {fault}: {words}", self.case);
    }

    pub(crate) fn count(&mut self, injected: u32, survived: u32) {
        self.injected += injected as usize;
        self.survived += survived as usize;
    }

    /// Something is wrong that is no single fault's.
    pub(crate) fn report_failure(&mut self, words: &str) {
        self.injected += 1;
        println!("FAILED: {}: {words}", self.case);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        println!("{} {}", self.injected, self.survived);
    }
}
