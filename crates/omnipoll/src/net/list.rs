//! Lists in options: words between commas or spaces.

use std::io;

use crate::error::fail;

/// What each word stands for. `EINVAL` for one that `parse` does not know, which is no `expected`.
pub(super) fn parse_list<T>(
    list: &str,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> io::Result<Vec<T>> {
    let words = list.split([',', ' ']).filter(|word| !word.is_empty());
    let unknown = |word: &str| fail(libc::EINVAL, format!("{word:?} is no {expected}"));
    words.map(|word| parse(word).ok_or_else(|| unknown(word))).collect()
}
