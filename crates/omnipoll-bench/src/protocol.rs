//! The two protocols that are served: of HTTP/1.1 a static answer, of Redis's PING, SET and GET.

use std::collections::HashMap;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!";

/// A protocol, with what it remembers.
pub enum Protocol {
    /// A static answer.
    Http,
    /// A store of keys and values.
    Redis(HashMap<Vec<u8>, Vec<u8>>),
}

impl Protocol {
    /// `http` or `redis`.
    pub fn named(name: &str) -> Self {
        match name {
            "redis" => Self::Redis(HashMap::new()),
            _ => Self::Http,
        }
    }

    /// Appends the answers to all whole requests to `output`, and returns how much of the data
    /// these were.
    pub fn answer(&mut self, data: &[u8], output: &mut Vec<u8>) -> usize {
        let mut done = 0;
        loop {
            let request = match self {
                Self::Http => http(&data[done..], output),
                Self::Redis(store) => redis(&data[done..], store, output),
            };
            match request {
                Some(length) => done += length,
                None => return done,
            }
        }
    }

    /// Answers what is whole of what has come so far and comes now, and keeps the rest in `begun`.
    pub fn feed(&mut self, begun: &mut Vec<u8>, data: &[u8], output: &mut Vec<u8>) {
        if begun.is_empty() {
            let done = self.answer(data, output);
            begun.extend_from_slice(&data[done..]);
        } else {
            begun.extend_from_slice(data);
            let done = self.answer(begun, output);
            begun.drain(..done);
        }
    }
}

/// The length of a request that was answered; `None` when it is not whole yet.
fn http(data: &[u8], output: &mut Vec<u8>) -> Option<usize> {
    let end = data.windows(4).position(|four| four == b"\r\n\r\n")?;
    output.extend_from_slice(ANSWER);
    Some(end + 4)
}

fn redis(data: &[u8], store: &mut HashMap<Vec<u8>, Vec<u8>>, output: &mut Vec<u8>) -> Option<usize> {
    let (count, mut place) = number(data, 0)?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, begin) = number(data, place)?;
        words.push(data.get(begin..begin + length)?);
        place = begin + length + 2;
    }
    if place > data.len() {
        return None;
    }
    match words.as_slice() {
        [ping] if ping.eq_ignore_ascii_case(b"PING") => output.extend_from_slice(b"+PONG\r\n"),
        [set, key, value] if set.eq_ignore_ascii_case(b"SET") => {
            match store.get_mut(*key) {
                Some(place) => (**value).clone_into(place),
                None => _ = store.insert(key.to_vec(), value.to_vec()),
            }
            output.extend_from_slice(b"+OK\r\n");
        }
        [get, key] if get.eq_ignore_ascii_case(b"GET") => match store.get(*key) {
            Some(value) => {
                output.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
                output.extend_from_slice(value);
                output.extend_from_slice(b"\r\n");
            }
            None => output.extend_from_slice(b"$-1\r\n"),
        },
        _ => output.extend_from_slice(b"-ERR no such command here\r\n"),
    }
    Some(place)
}

/// The number after the mark at `place`, and where its line ends.
fn number(data: &[u8], place: usize) -> Option<(usize, usize)> {
    let line = data.get(place..)?;
    let end = line.iter().position(|&byte| byte == b'\n')?;
    let digits = line.get(1..end)?.iter().filter(|byte| byte.is_ascii_digit());
    let number = digits.fold(0, |number, digit| 10 * number + usize::from(digit - b'0'));
    Some((number, place + end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever way the requests are cut in two, the answers are the same.
    fn check(name: &str, requests: &[u8], answers: &[u8]) {
        for cut in 0..=requests.len() {
            let (mut protocol, mut begun, mut output) = (Protocol::named(name), Vec::new(), Vec::new());
            protocol.feed(&mut begun, &requests[..cut], &mut output);
            protocol.feed(&mut begun, &requests[cut..], &mut output);
            assert_eq!(String::from_utf8_lossy(&output), String::from_utf8_lossy(answers), "cut at {cut}");
            assert!(begun.is_empty());
        }
    }

    #[test]
    fn http_answers_pipelined_requests() {
        check(
            "http",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
            &[ANSWER, ANSWER].concat(),
        );
    }

    #[test]
    fn redis_remembers() {
        let requests = b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n\
            *3\r\n$3\r\nset\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$1\r\nX\r\n";
        let answers = b"+PONG\r\n$-1\r\n+OK\r\n$4\r\na\r\nb\r\n-ERR no such command here\r\n";
        check("redis", requests, answers);
    }
}
