//! [`Poller::dump`]: everything a poller watches, for people to read.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::Poller;
use crate::event::Ready;
use crate::interest::Interest;
use crate::registry::Registration;
use crate::sys::probe;

/// One registration, as it was when asked. Its [`Display`](fmt::Display) is one line.
///
/// See the example of [`Poller::dump`].
///
/// # Portability
///
/// As for [`Poller::dump`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registered {
    /// The descriptor.
    pub fd: RawFd,
    /// Its token.
    pub token: u64,
    /// What the number stands for now: `socket:[1234]`, a path, as /proc/self/fd has it, or
    /// the type of file where there is no such folder; `closed` when it is not open.
    pub what: String,
    /// What was asked for, with its trigger.
    pub interest: Interest,
    /// The directions that the engine will report without another call; `None` for a ONESHOT
    /// that has fired, and for an EDGE without one that was not reported. On an engine with
    /// [edges of its own](crate::Capabilities::NATIVE_EDGE), EDGE keeps all of them.
    pub armed: Option<Interest>,
    /// How long it has been registered. Kept in [strict mode](crate::Options::strict) only: a
    /// registration is 24 bytes, and has no room for it.
    pub age: Option<Duration>,
    /// What was last reported, and how long ago; `None` when nothing was. Kept in strict mode
    /// only.
    pub last_event: Option<(Ready, Duration)>,
}

impl fmt::Display for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fd, token, what, interest, armed, age, last_event } = self;
        write!(f, "{fd} {what} token {token} {interest:?}")?;
        match armed {
            Some(armed) => write!(f, " armed {armed:?}")?,
            None => f.write_str(" disarmed")?,
        }
        if let Some(age) = age {
            write!(f, " age {age:.3?}")?;
        }
        match last_event {
            Some((ready, ago)) => write!(f, " last {ready:?} {ago:.3?} ago"),
            None => Ok(()),
        }
    }
}

/// The directions that the engine will report; an EDGE may still be armed for failures alone.
fn armed(registration: &Registration) -> Option<Interest> {
    let has_any = registration.directions() != 0 || registration.interest.is_empty();
    let is_armed = registration.armed != 0 && has_any;
    Interest::from_bits(registration.directions().into()).filter(|_| is_armed)
}

impl Poller {
    /// Every registration of the caller's, lowest descriptor first. One `readlink(2)` for each,
    /// made without any lock: a number may stand for another file by then.
    ///
    /// `EOWNERDEAD` in a forked child before [`Poller::after_fork`].
    ///
    /// # Portability
    ///
    /// Where there is no /proc/self/fd, the type of the file stands for its name.
    ///
    /// ```
    /// use omnipoll::{Interest, Poller};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (ours, _theirs) = UnixStream::pair()?;
    /// let poller = Poller::new()?;
    /// poller.add(&ours, Interest::READ, 7)?;
    /// for registered in poller.dump()? {
    ///     eprintln!("{registered}");
    /// }
    /// # poller.remove(&ours)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn dump(&self) -> io::Result<Vec<Registered>> {
        self.check_owner()?;
        let mut all = self.registered();
        for one in &mut all {
            one.what = probe::what(one.fd);
        }
        Ok(all)
    }

    fn registered(&self) -> Vec<Registered> {
        let registry = self.registry();
        let as_kept = registry.registrations().map(|(fd, registration)| {
            let (age, last_event) = match &self.strict {
                Some(strict) => strict.history(fd),
                None => (None, None),
            };
            let armed = armed(registration);
            let (token, interest) = (registration.token, registration.interest);
            Registered { fd, token, what: String::new(), interest, armed, age, last_event }
        });
        as_kept.collect()
    }
}
