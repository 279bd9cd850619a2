//! [`Feature`]: what an engine uses of the kernel where there is it, and why it does not.

use std::io;

use crate::error::bare;
use crate::EngineKind;

/// A feature of the kernel that an engine uses where it can, and for which it has another way where it can't:
/// what it reports is the same.
///
/// See the example of [`EngineKind::features`].
///
/// # Portability
///
/// Those there are are Linux's. Each is tried out, whatever the kernel's version says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    name: &'static str,
    linux: &'static str,
    /// 0 when it is in use.
    errno: i32,
}

impl Feature {
    /// One that was tried out.
    pub(crate) fn new(name: &'static str, linux: &'static str, tried: io::Result<()>) -> Self {
        let errno = tried.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EINVAL), |()| 0);
        Self { name, linux, errno }
    }

    /// Its name: of the system call, the flag or the request, as the man pages and the kernel's headers have it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The version of Linux that it came with: "6.12".
    pub fn linux(&self) -> &'static str {
        self.linux
    }

    /// Whether the engine uses it.
    pub fn is_used(&self) -> bool {
        self.errno == 0
    }

    /// Why the engine does not use it: what the kernel has answered. `EINVAL`, `ENOTTY` and `ENOSYS` are those
    /// of a kernel that is older, `EPERM` is that of a filter that forbids it.
    pub fn error(&self) -> Option<io::Error> {
        (!self.is_used()).then(|| bare(self.errno))
    }
}

impl EngineKind {
    /// The features of the kernel that pollers and loops on this engine use, and those that they would use if
    /// the kernel had or permitted them. None on select and poll.
    ///
    /// # Portability
    ///
    /// Tries each of them out by system calls on descriptors of its own, in a thread of its own on io_uring:
    /// for reports, not for each connection. Where descriptors or memory are short, [`Feature::error`] says so.
    ///
    /// ```
    /// use omnipoll::EngineKind;
    ///
    /// for feature in EngineKind::Epoll.features() {
    ///     match feature.error() {
    ///         None => println!("{} is in use", feature.name()),
    ///         Some(error) => println!("{} (Linux {}): {error}", feature.name(), feature.linux()),
    ///     }
    /// }
    /// assert!(EngineKind::Poll.features().is_empty());
    /// ```
    pub fn features(self) -> Vec<Feature> {
        crate::engine::features(self)
    }
}
