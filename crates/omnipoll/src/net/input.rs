//! [`Input`]: what a connection has received and its handler has not got yet.

use std::collections::TryReserveError;

use super::frame::{Found, Rule};

/// What is kept until it is wanted, or until its rest has arrived.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// `None` for most.
    kept: Option<Vec<u8>>,
    /// More has arrived that belongs to what is kept, and is delivered with it.
    is_partial: bool,
    /// `None` for most: everything is delivered as it arrives.
    framing: Option<Box<Framing>>,
}

#[derive(Debug, Default)]
struct Framing {
    rule: Rule,
    /// How many of the kept bytes have been delivered.
    start: usize,
    /// No frame ends in what is kept.
    is_incomplete: bool,
}

/// Kept bytes while they are delivered.
pub(crate) struct Taken {
    bytes: Vec<u8>,
    start: usize,
}

impl Taken {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl Input {
    /// Whether what arrives is divided into frames, or some of it is left that was.
    #[inline]
    pub(crate) fn is_framed(&self) -> bool {
        self.framing.is_some()
    }

    pub(crate) fn rule(&self) -> Rule {
        self.framing.as_ref().map_or_else(Rule::default, |framing| framing.rule)
    }

    /// How the next bytes are divided, those that are kept included.
    pub(crate) fn set_rule(&mut self, rule: Rule) {
        self.is_partial = false;
        if self.framing.is_none() && rule.is_any() {
            return;
        }
        let framing = self.framing.get_or_insert_default();
        framing.rule = rule;
        framing.is_incomplete = false;
        self.drop_framing();
    }

    #[inline]
    fn kept(&self) -> &[u8] {
        self.kept.as_deref().unwrap_or_default()
    }

    /// How many bytes are kept.
    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.kept().len() - self.framing.as_ref().map_or(0, |framing| framing.start)
    }

    /// Whether what is kept lacks its rest.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.framing.as_ref().is_some_and(|framing| framing.is_incomplete)
    }

    /// Whether something is kept that can be delivered.
    #[inline]
    pub(crate) fn is_deliverable(&self) -> bool {
        !self.kept().is_empty() && !self.is_partial && !self.is_incomplete()
    }

    /// Keeps what is not wanted yet; `is_partial` when more of it has arrived and will follow.
    pub(crate) fn keep(&mut self, bytes: &[u8], is_partial: bool) -> Result<(), TryReserveError> {
        self.append(bytes)?;
        self.is_partial = is_partial;
        if let Some(framing) = &mut self.framing {
            framing.is_incomplete = false;
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), TryReserveError> {
        let kept = self.kept.get_or_insert_default();
        if let Some(framing) = &mut self.framing {
            kept.drain(..std::mem::take(&mut framing.start));
        }
        kept.try_reserve(bytes.len())?;
        kept.extend_from_slice(bytes);
        Ok(())
    }

    /// What is kept is delivered as it is.
    pub(crate) fn end_partial(&mut self) {
        self.is_partial = false;
    }

    /// Keeps of `bytes`, which have just arrived, what belongs to the frame that has begun, and returns
    /// how many that are.
    pub(crate) fn complete(&mut self, bytes: &[u8]) -> Result<usize, TryReserveError> {
        if !self.is_incomplete() {
            self.keep(bytes, false)?;
            return Ok(bytes.len());
        }
        let start = self.framing.as_ref().map_or(0, |framing| framing.start);
        match self.rule().find(&self.kept()[start..], bytes) {
            Found::Complete(count) => self.keep(&bytes[..count], false).map(|()| count),
            Found::Incomplete => self.append(bytes).map(|()| bytes.len()),
            Found::TooLong => self.keep(bytes, false).map(|()| bytes.len()),
        }
    }

    /// Takes all that is kept.
    #[inline]
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let Taken { mut bytes, start } = self.take_kept();
        bytes.drain(..start);
        bytes
    }

    /// Takes what is kept in order to deliver frames of it.
    pub(crate) fn take_kept(&mut self) -> Taken {
        let start = self.framing.as_mut().map_or(0, |framing| std::mem::take(&mut framing.start));
        let taken = Taken { bytes: self.kept.take().unwrap_or_default(), start };
        self.drop_framing();
        taken
    }

    /// Keeps what is left of it, of which `count` more bytes have been delivered; `is_incomplete` when no
    /// frame ends in it.
    pub(crate) fn keep_rest(&mut self, taken: Taken, count: usize, is_incomplete: bool) {
        let start = taken.start + count;
        if start < taken.bytes.len() {
            self.kept = Some(taken.bytes);
            let framing = self.framing.get_or_insert_default();
            (framing.start, framing.is_incomplete) = (start, is_incomplete);
        }
    }

    /// Keeps the rest of what has just arrived: nothing is kept before it.
    pub(crate) fn keep_new(&mut self, bytes: &[u8], is_incomplete: bool) -> Result<(), TryReserveError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.keep(bytes, false)?;
        self.framing.get_or_insert_default().is_incomplete = is_incomplete;
        Ok(())
    }

    /// Most connections have no frames, and need no memory for any.
    fn drop_framing(&mut self) {
        if self.kept().is_empty() && self.rule().is_any() {
            self.framing = None;
        }
    }
}
