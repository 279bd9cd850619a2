//! The timeouts of a [`Conn`], and its timer.

use std::io;
use std::time::Duration;

use super::conn::Conn;
use super::timeouts::Timeout;

/// Timeouts.
impl Conn<'_> {
    /// Ends the connection with `ETIMEDOUT` when nothing was read or written for so long, instead of
    /// [`ServerOptions::idle_timeout`](crate::ServerOptions::idle_timeout), unless
    /// [`on_timeout`](crate::Handler::on_timeout) prevents it. The time of every timeout begins again.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// struct Patient;
    ///
    /// impl Handler for Patient {
    ///     type State = ();
    ///
    ///     fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
    ///         conn.set_idle_timeout(Some(Duration::from_secs(3600)));
    ///         conn.set_read_timeout(Some(Duration::from_secs(600)));
    ///         conn.set_write_timeout(None);
    ///         Ok(())
    ///     }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    ///
    /// ask(Patient, "")?;
    /// # Ok::<(), io::Error>(())
    /// ```
    pub fn set_idle_timeout(&mut self, timeout: Option<Duration>) {
        self.table[self.slot].timeouts.set_idle(timeout, &self.context.clock);
    }

    /// Ends it with `ETIMEDOUT` when nothing was read for so long while it was being read.
    ///
    /// See the example of [`set_idle_timeout`](Conn::set_idle_timeout).
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.table[self.slot].timeouts.set_read(timeout, &self.context.clock);
    }

    /// Ends it with `ETIMEDOUT` when bytes were queued for so long and none could be sent.
    ///
    /// See the example of [`set_idle_timeout`](Conn::set_idle_timeout).
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.table[self.slot].timeouts.set_write(timeout, &self.context.clock);
    }

    /// Begins the time of every timeout again, as if something had just been read and written.
    ///
    /// See the example of [`Handler::on_timeout`](crate::Handler::on_timeout).
    pub fn restart_timeouts(&mut self) {
        self.table[self.slot].timeouts.restart(&self.context.clock);
    }

    /// The one of these limits that `which` names.
    pub(crate) fn set_timeout(&mut self, which: Timeout, time: Option<Duration>) {
        match which {
            Timeout::Idle => self.set_idle_timeout(time),
            Timeout::Read => self.set_read_timeout(time),
            Timeout::Write => self.set_write_timeout(time),
        }
    }

    /// Has [`on_timer`](crate::Handler::on_timer) called once when so much time has passed; `None`
    /// cancels that. A connection has one timer: setting it again replaces what was set, and it ends with
    /// the connection. Setting it again and again to a later time costs no more than reading the clock.
    ///
    /// `ENOMEM` when there is no memory for it.
    ///
    /// See the example of [`Handler::on_timer`](crate::Handler::on_timer).
    #[doc(alias = "heartbeat")]
    pub fn set_timer(&mut self, delay: Option<Duration>) -> io::Result<()> {
        let connection = &mut self.table[self.slot];
        match connection.timeouts.set_alarm(delay, &self.context.clock) {
            Some(due) if !connection.is_ended() => connection.arm(due, self.slot, self.context),
            _ => Ok(()),
        }
    }
}
