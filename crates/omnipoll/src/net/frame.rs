//! [`Frame`]: how what arrives is divided.

use std::io::{self, BufRead};

use crate::error::fail;

/// How what arrives is divided before [`on_data`](crate::Handler::on_data) gets it: see
/// [`Conn::set_frame`](crate::Conn::set_frame).
///
/// # Portability
///
/// The same on every system and engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame<'a> {
    /// Not at all: as many bytes as one read returns.
    #[default]
    Any,
    /// After each delimiter of one to four bytes, which a frame ends with.
    Until {
        /// What frames end with.
        delimiter: &'a [u8],
        /// The most bytes of a frame, its delimiter included. A longer one ends the connection with
        /// `EMSGSIZE`.
        max: usize,
    },
    /// So many bytes at a time.
    Exactly(usize),
    /// All that has arrived, once it is so many bytes.
    AtLeast(usize),
}

/// The longest delimiter.
const MAX_DELIMITER: usize = 4;

/// A [`Frame`] that has been checked, with what it refers to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    Until { delimiter: [u8; MAX_DELIMITER], length: u8, max: usize },
    Exactly(usize),
    AtLeast(usize),
}

/// What has arrived of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It ends after so many bytes.
    Complete(usize),
    Incomplete,
    TooLong,
}

impl Default for Rule {
    /// [`Frame::Any`].
    fn default() -> Self {
        Self::AtLeast(1)
    }
}

impl Rule {
    /// `EINVAL` for what is no frame, and for one of more than `most` bytes.
    pub(crate) fn new(frame: Frame<'_>, most: usize) -> io::Result<Self> {
        let (rule, max) = match frame {
            Frame::Any => return Ok(Self::default()),
            Frame::Exactly(count) => (Self::Exactly(count), count),
            Frame::AtLeast(count) => (Self::AtLeast(count), count),
            Frame::Until { delimiter, max } => {
                if delimiter.is_empty() || delimiter.len() > MAX_DELIMITER || max < delimiter.len() {
                    return Err(fail(
                        libc::EINVAL,
                        "a delimiter has one to four bytes, and fits into a frame",
                    ));
                }
                let mut bytes = [0; MAX_DELIMITER];
                bytes[..delimiter.len()].copy_from_slice(delimiter);
                (Self::Until { delimiter: bytes, length: delimiter.len() as u8, max }, max)
            }
        };
        match max {
            0 => Err(fail(libc::EINVAL, "a frame has a byte at least")),
            _ if max > most => Err(fail(libc::EINVAL, "the loop's buffer has no room for such a frame")),
            _ => Ok(rule),
        }
    }

    /// Whether nothing is waited for.
    pub(crate) fn is_any(&self) -> bool {
        matches!(self, Self::AtLeast(1))
    }

    /// Whether the first so many bytes of a longer frame are one, too.
    pub(crate) fn can_end_after(&self, count: usize) -> bool {
        matches!(self, Self::AtLeast(least) if *least <= count)
    }

    /// Where in `bytes` a frame ends that has begun with `before`.
    pub(crate) fn find(&self, before: &[u8], bytes: &[u8]) -> Found {
        match self {
            Self::AtLeast(count) => match before.len() + bytes.len() {
                length if length >= *count => Found::Complete(bytes.len()),
                _ => Found::Incomplete,
            },
            Self::Exactly(count) => match count.saturating_sub(before.len()) {
                missing if missing <= bytes.len() => Found::Complete(missing),
                _ => Found::Incomplete,
            },
            Self::Until { delimiter, length, max } => {
                find_delimiter(&delimiter[..usize::from(*length)], *max, before, bytes)
            }
        }
    }
}

/// Where the first delimiter ends in `bytes`, which follow `before`.
fn find_delimiter(delimiter: &[u8], max: usize, before: &[u8], bytes: &[u8]) -> Found {
    let within = &bytes[..bytes.len().min(max.saturating_sub(before.len()))];
    let mut end = 0;
    while let Some(count) = end_of(delimiter[delimiter.len() - 1], &within[end..]) {
        end += count;
        // The delimiter's first bytes may be the last before.
        let (earlier, later) = delimiter.split_at(delimiter.len().saturating_sub(end));
        if within[..end].ends_with(later) && before.ends_with(earlier) {
            return Found::Complete(end);
        }
    }
    if before.len() + bytes.len() < max {
        Found::Incomplete
    } else {
        Found::TooLong
    }
}

/// The position after the first such byte. By the standard library's memchr(3), which it offers in no
/// other way.
fn end_of(byte: u8, mut bytes: &[u8]) -> Option<usize> {
    let all = bytes;
    let count = bytes.skip_until(byte).unwrap_or(0);
    (count > 0 && all[count - 1] == byte).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(delimiter: &[u8], max: usize) -> Rule {
        Rule::new(Frame::Until { delimiter, max }, usize::MAX).expect("a frame")
    }

    #[test]
    fn a_delimiter_is_found_wherever_the_bytes_are_split() {
        for (delimiter, text) in [("\n", "one\ntwo"), ("\r\n", "o\rn\ne\r\r\ntwo"), ("abab", "aababab")] {
            let rule = until(delimiter.as_bytes(), 100);
            let end = text.find(delimiter).expect("it is there") + delimiter.len();
            for split in 0..end {
                let (before, bytes) = text.as_bytes().split_at(split);
                assert_eq!(rule.find(before, bytes), Found::Complete(end - split), "{text:?} at {split}");
                assert_eq!(rule.find(&before[..split], &bytes[..end - split - 1]), Found::Incomplete);
            }
        }
    }

    #[test]
    fn a_frame_is_no_longer_than_its_maximum_wherever_it_is_split() {
        for (text, max) in [("12345\n", 6), ("1234567\n", 8)] {
            for split in 0..text.len() {
                let (before, bytes) = text.as_bytes().split_at(split);
                assert_eq!(until(b"\n", max).find(before, bytes), Found::Complete(max - split));
                assert_eq!(until(b"\n", max - 1).find(before, bytes), Found::TooLong);
            }
        }
    }

    #[test]
    fn at_least_so_many_bytes_are_waited_for_wherever_they_are_split() {
        let rule = Rule::new(Frame::AtLeast(5), 5).expect("a frame");
        for split in 0..5 {
            let (before, bytes) = b"12345678".split_at(split);
            assert_eq!(rule.find(before, &bytes[..4 - split]), Found::Incomplete);
            assert_eq!(rule.find(before, &bytes[..5 - split]), Found::Complete(5 - split));
            assert_eq!(rule.find(before, bytes), Found::Complete(8 - split));
        }
        assert!(rule.can_end_after(5) && !rule.can_end_after(4));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let refused = |frame| Rule::new(frame, 1000).unwrap_err().raw_os_error() == Some(libc::EINVAL);
        for delimiter in [&b""[..], b"12345"] {
            assert!(refused(Frame::Until { delimiter, max: 100 }));
        }
        assert!(refused(Frame::Until { delimiter: b"\r\n", max: 1 }));
        assert!(refused(Frame::Until { delimiter: b"\n", max: 1001 }));
        for frame in [Frame::Exactly, Frame::AtLeast] {
            assert!(refused(frame(0)));
            assert!(refused(frame(1001)));
            assert!(Rule::new(frame(1000), 1000).is_ok());
        }
    }
}
