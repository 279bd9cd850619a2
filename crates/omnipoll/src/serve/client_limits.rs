//! The options of a server that say which clients it takes.

use std::time::Duration;

use super::options::ServerOptions;

/// Which clients are taken.
impl ServerOptions {
    /// Requires of each client a header of the PROXY protocol, version 1 or 2, within this time of being
    /// accepted; `None`, the default, expects none. The handler learns of the connection when the header is
    /// complete: [`Conn::peer`](crate::Conn::peer) and [`Conn::local`](crate::Conn::local) are the
    /// addresses that it has. They remain the socket's own where it has none (`UNKNOWN`, `LOCAL`, unix
    /// sockets). What follows the header is data.
    ///
    /// A connection that begins otherwise, whose header is malformed or longer than 4,096 bytes, or is not
    /// complete in time, is reset and counted in
    /// [`refused_header`](crate::WorkerStats::refused_header). Let only proxies connect to such a server: it
    /// believes what they say.
    ///
    /// ```
    /// use omnipoll::ServerOptions;
    /// use std::time::Duration;
    ///
    /// let options = ServerOptions::new().proxy_header(Duration::from_secs(5));
    /// ```
    #[doc(alias = "haproxy")]
    pub fn proxy_header(mut self, within: impl Into<Option<Duration>>) -> Self {
        self.each_loop = self.each_loop.proxy_header(within);
        self
    }

    /// From which networks clients are accepted, separated by commas or spaces: `"10.0.0.0/8, 2001:db8::/32,
    /// 192.0.2.1"`. From all by default. The client's address is that of its [PROXY
    /// header](Self::proxy_header) where one is required. Clients of unix sockets are always accepted.
    ///
    /// One that is refused is reset before the handler learns of it, and counted in
    /// [`refused_filter`](crate::WorkerStats::refused_filter). `EINVAL` from
    /// [`Server::with_options`](crate::Server::with_options) for what is no network.
    ///
    /// ```
    /// use omnipoll::ServerOptions;
    ///
    /// let options = ServerOptions::new()
    ///     .allow("10.0.0.0/8, 2001:db8::/32")
    ///     .deny("10.1.0.0/16")
    ///     .max_address_clients(20)
    ///     .max_address_rate(10)
    ///     .max_receive_rate(1 << 20);
    /// ```
    pub fn allow(mut self, networks: &str) -> Self {
        self.each_loop = self.each_loop.allow(networks);
        self
    }

    /// From which networks none are accepted, even if they are [allowed](Self::allow).
    ///
    /// See the example of [`allow`](Self::allow).
    pub fn deny(mut self, networks: &str) -> Self {
        self.each_loop = self.each_loop.deny(networks);
        self
    }

    /// How many connections each address may have at once; without limit by default. It is exact over all
    /// workers, processes too. An IPv6 address counts by its first 64 bits, the network of one customer. One
    /// beyond is reset before the handler learns of it, and counted in
    /// [`refused_address`](crate::WorkerStats::refused_address).
    ///
    /// The table has a fixed size: 16 bytes and 8 for each worker, for each of 65,536 addresses that have
    /// connections or have made one in the last second. A new address for which there is no room is refused,
    /// too.
    ///
    /// See the example of [`allow`](Self::allow).
    pub fn max_address_clients(mut self, clients: u32) -> Self {
        self.each_loop = self.each_loop.max_address_clients(clients);
        self
    }

    /// How many new connections a second each address may make: so many at once, and then one more each time
    /// that a second divided by their number has passed. What counts as an address, how exactly it is
    /// counted, and what becomes of others is as for [`max_address_clients`](Self::max_address_clients); they
    /// are counted in [`refused_rate`](crate::WorkerStats::refused_rate).
    ///
    /// See the example of [`allow`](Self::allow).
    pub fn max_address_rate(mut self, clients: u32) -> Self {
        self.each_loop = self.each_loop.max_address_rate(clients);
        self
    }

    /// How many bytes a second are read from each client, on average: so many may come at once. Then reading
    /// pauses, and the client's writes wait. Without limit by default, as is 0.
    ///
    /// # Portability
    ///
    /// On io_uring the kernel may have received more by then, as for [`water_marks`](Self::water_marks).
    ///
    /// See the example of [`allow`](Self::allow).
    #[doc(alias = "bandwidth")]
    pub fn max_receive_rate(mut self, bytes: u64) -> Self {
        self.each_loop = self.each_loop.max_receive_rate(bytes);
        self
    }
}
