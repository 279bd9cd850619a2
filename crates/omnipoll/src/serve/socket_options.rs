//! The options of a server that are set on its sockets.

use std::time::Duration;

use super::options::ServerOptions;

/// What its sockets have.
impl ServerOptions {
    /// Has the system ask the peer of each TCP connection that has been silent for `idle` whether it is still there,
    /// again each `interval`, and end the connection with `ETIMEDOUT` after `count` questions without an answer:
    /// `SO_KEEPALIVE`, in seconds.
    ///
    /// These options of sockets hold for each worker's. Sockets that are inherited keep those that they have.
    ///
    /// ```
    /// use omnipoll::ServerOptions;
    /// use std::time::Duration;
    ///
    /// let options = ServerOptions::new()
    ///     .keep_alive(Duration::from_secs(60), Duration::from_secs(10), 5)
    ///     .receive_buffer(1 << 20)
    ///     .send_buffer(1 << 20)
    ///     .multicast("239.1.2.3")
    ///     .unix_mode(0o660);
    /// ```
    #[doc(alias = "SO_KEEPALIVE")]
    pub fn keep_alive(mut self, idle: Duration, interval: Duration, count: u32) -> Self {
        self.each_loop = self.each_loop.keep_alive(idle, interval, count);
        self
    }

    /// Whether small writes on TCP are sent at once, and not gathered for as long as others are under way; they are
    /// by default.
    ///
    /// See the example of [`keep_alive`](Self::keep_alive).
    #[doc(alias = "TCP_NODELAY")]
    pub fn no_delay(mut self, yes: bool) -> Self {
        self.each_loop = self.each_loop.no_delay(yes);
        self
    }

    /// How many bytes the system keeps for each socket that the program has not read; it may take more or less. By
    /// default what suits the connection.
    ///
    /// See the example of [`keep_alive`](Self::keep_alive).
    #[doc(alias = "SO_RCVBUF")]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.each_loop = self.each_loop.receive_buffer(bytes);
        self
    }

    /// How many bytes the system keeps for each socket that the peer has not got; as
    /// [`receive_buffer`](Self::receive_buffer).
    ///
    /// See the example of [`keep_alive`](Self::keep_alive).
    #[doc(alias = "SO_SNDBUF")]
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.each_loop = self.each_loop.send_buffer(bytes);
        self
    }

    /// Has the system report a TCP client only when it has sent something, or when so many seconds have passed.
    /// Linux's: `ENOTSUP` elsewhere, from `listen`.
    ///
    /// See the example of [`keep_alive`](Self::keep_alive).
    #[doc(alias = "TCP_DEFER_ACCEPT")]
    pub fn defer_accept(mut self, time: Duration) -> Self {
        self.each_loop = self.each_loop.defer_accept(time);
        self
    }

    /// Takes what TCP clients send in their first packet, from up to so many whose connections are not established
    /// yet. The system has to allow it (net.ipv4.tcp_fastopen). Linux's, as
    /// [`defer_accept`](Self::defer_accept).
    ///
    /// See the example of [`keep_alive`](Self::keep_alive).
    #[doc(alias = "TCP_FASTOPEN")]
    pub fn fast_open(mut self, clients: u32) -> Self {
        self.each_loop = self.each_loop.fast_open(clients);
        self
    }

    /// Whether an address may be listened on that this machine does not have yet. Linux's.
    ///
    /// See the example of [`keep_alive`](Self::keep_alive).
    #[doc(alias = "IP_FREEBIND")]
    pub fn free_bind(mut self, yes: bool) -> Self {
        self.each_loop = self.each_loop.free_bind(yes);
        self
    }

    /// Whether clients of any address that is routed here are accepted. `EPERM` from `listen` without
    /// CAP_NET_ADMIN. Linux's.
    ///
    /// See the example of [`keep_alive`](Self::keep_alive).
    #[doc(alias = "IP_TRANSPARENT")]
    pub fn transparent(mut self, yes: bool) -> Self {
        self.each_loop = self.each_loop.transparent(yes);
        self
    }

    /// Groups whose datagrams the `udp:` addresses of the same family receive too: `"239.1.2.3, ff02::fb%eth0"`,
    /// with an interface's name or number, or the one that the system chooses.
    ///
    /// See the example of [`keep_alive`](Self::keep_alive).
    #[doc(alias = "IP_ADD_MEMBERSHIP")]
    pub fn multicast(mut self, groups: &str) -> Self {
        self.each_loop = self.each_loop.multicast(groups);
        self
    }

    /// The permissions of the file of a unix socket, as `chmod(2)` takes them; set before it accepts anybody. By
    /// default what the process' umask leaves of 0777.
    ///
    /// See the example of [`keep_alive`](Self::keep_alive).
    #[doc(alias = "chmod")]
    pub fn unix_mode(mut self, mode: u32) -> Self {
        self.each_loop = self.each_loop.unix_mode(mode);
        self
    }

    /// The owner and the group of the file of a unix socket; `None` leaves one as it is. `EPERM` from `listen` where
    /// `chown(2)` does not allow it.
    ///
    /// See the example of [`keep_alive`](Self::keep_alive).
    #[doc(alias = "chown")]
    pub fn unix_owner(mut self, user: Option<u32>, group: Option<u32>) -> Self {
        self.each_loop = self.each_loop.unix_owner(user, group);
        self
    }
}
