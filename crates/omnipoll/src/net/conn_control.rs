//! What a handler can do with a [`Conn`] besides writing: relay it, end it, pause reading, divide what arrives.

use std::io;

use super::conn::Conn;
use super::conn_id::ConnId;
use super::frame::{Frame, Rule};
use super::loop_ref::LoopRef;
use super::mailbox::stale;
use crate::error::fail;

/// The loop.
impl Conn<'_> {
    /// The loop that makes this callback.
    ///
    /// See the example of [`EventLoop`](crate::EventLoop).
    pub fn event_loop(&mut self) -> LoopRef<'_> {
        LoopRef { table: self.table, context: self.context }
    }

    /// Another connection of the same loop: what is done to it is done at once. `ESTALE` when it has
    /// ended, or is of another loop, which its [`ConnId`] reaches.
    pub fn other(&mut self, id: ConnId) -> io::Result<Conn<'_>> {
        LoopRef { table: self.table, context: self.context }.into_conn(id)
    }

    /// What [`EventLoop::listen`](crate::EventLoop::listen) or
    /// [`connect`](crate::EventLoop::connect) was given, or [`set_token`](Self::set_token) since; 0 on a
    /// server.
    pub fn token(&self) -> u64 {
        self.table[self.slot].token
    }

    /// Changes the [`token`](Self::token).
    pub fn set_token(&mut self, token: u64) {
        self.table[self.slot].token = token;
    }

    /// For the bindings: a word that they keep with the connection, 0 at first.
    #[doc(hidden)]
    #[inline]
    pub fn context(&self) -> usize {
        self.table[self.slot].context
    }

    /// Changes the [`context`](Self::context).
    #[doc(hidden)]
    pub fn set_context(&mut self, context: usize) {
        self.table[self.slot].context = context;
    }

    /// Whether this program has connected to the peer, and not the peer to it.
    pub fn is_outgoing(&self) -> bool {
        self.table[self.slot].is_outgoing
    }
}

/// Relaying.
impl Conn<'_> {
    /// Has another connection of the same loop send on all that this one receives from now on, instead of
    /// the handler: a proxy is made of two relays. While more than the high mark waits to be sent on the other,
    /// nothing is read from this one. The peer's end ends the other's direction when all is sent, as
    /// [`shutdown`](Self::shutdown) does. When one of the two connections fails or is aborted, the other
    /// is reset; when one has ended cleanly, the other is closed. Each one's `on_close` is called.
    ///
    /// `ESTALE` when the other has ended or is of another loop, `EBUSY` when it is relayed to already.
    ///
    /// See the example of [`EventLoop::connect`](crate::EventLoop::connect).
    #[doc(alias = "splice")]
    pub fn relay_to(&mut self, other: ConnId) -> io::Result<()> {
        let slot = self.context.mailbox.slot(other).ok_or_else(stale)?;
        let target = self.table.get_mut(slot).filter(|target| target.id == other && !target.is_ended());
        let target = target.ok_or_else(stale)?;
        if target.relay_from.slot().is_some_and(|from| from != self.slot) {
            return Err(fail(libc::EBUSY, "another connection is relayed to that one"));
        }
        target.relay_from.set(self.slot);
        let is_held = target.above_high_water;
        self.set_frame(Frame::Any)?;
        if let Some(before) = self.table[self.slot].relay_to.set(slot).filter(|&before| before != slot) {
            self.table[before].relay_from.take();
        }
        let connection = &mut self.table[self.slot];
        connection.is_held = is_held;
        if connection.peer_ended {
            self.other(other)?.shutdown();
        }
        Ok(())
    }
}

/// Ending.
impl Conn<'_> {
    /// Ends the connection cleanly: the handler gets no more data, what is queued is sent, our
    /// direction is shut down, and the peer has the server's
    /// [linger](crate::ServerOptions::linger) time to read it all. Then `on_close` is called.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// struct Refuse;
    ///
    /// impl Handler for Refuse {
    ///     type State = ();
    ///
    ///     fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
    ///         conn.write(b"try again later\n")?;
    ///         conn.close();
    ///         assert_eq!(conn.write(b"more").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    ///         Ok(())
    ///     }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    ///
    /// assert_eq!(ask(Refuse, "")?, "try again later\n");
    /// # Ok::<(), io::Error>(())
    /// ```
    pub fn close(&mut self) {
        self.table[self.slot].close(self.context);
    }

    /// Ends the connection at once: what is queued is discarded and the peer sees a reset.
    /// `on_close` is called with `ECONNABORTED` when the current callback has returned.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// struct Reset;
    ///
    /// impl Handler for Reset {
    ///     type State = ();
    ///
    ///     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), _: &[u8]) {
    ///         conn.abort();
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
    /// }
    ///
    /// assert!(ask(Reset, "request").is_err());
    /// # Ok::<(), io::Error>(())
    /// ```
    #[doc(alias = "SO_LINGER")]
    pub fn abort(&mut self) {
        if !self.table[self.slot].is_ended() {
            self.table[self.slot].end_by_reset(libc::ECONNABORTED);
        }
    }

    /// Ends our direction once what is queued has been sent, by `shutdown(2)`: the peer sees
    /// the end of our data, and its own data still arrives. When both have ended, the
    /// connection has.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// struct Answer;
    ///
    /// impl Handler for Answer {
    ///     type State = ();
    ///
    ///     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), _: &[u8]) {
    ///         let _ = conn.write(b"that is all\n");
    ///         conn.shutdown();
    ///         // What the client sends still arrives here.
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
    /// }
    ///
    /// assert_eq!(ask(Answer, "request")?, "that is all\n");
    /// # Ok::<(), io::Error>(())
    /// ```
    pub fn shutdown(&mut self) {
        self.table[self.slot].shut_down(self.context);
    }
}

/// Reading.
impl Conn<'_> {
    /// Reads no more from the peer, which eventually can't send either. That it ends or resets the
    /// connection is noticed after [`resume`](Conn::resume), or by a failing write.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// struct Later;
    ///
    /// impl Handler for Later {
    ///     type State = ();
    ///
    ///     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), _: &[u8]) {
    ///         // Reads the next request when this one has been answered.
    ///         conn.pause();
    ///         assert!(conn.is_paused());
    ///         let id = conn.id();
    ///         std::thread::spawn(move || id.post(42));
    ///     }
    ///
    ///     fn on_post(&self, conn: &mut Conn<'_>, _: &mut (), value: i64) {
    ///         let _ = conn.write(value.to_string().as_bytes());
    ///         conn.resume();
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
    /// }
    ///
    /// assert_eq!(ask(Later, "request")?, "42");
    /// # Ok::<(), io::Error>(())
    /// ```
    pub fn pause(&mut self) {
        self.table[self.slot].paused = true;
    }

    /// Reads again.
    ///
    /// See the example of [`pause`](Conn::pause).
    pub fn resume(&mut self) {
        if self.table[self.slot].paused {
            self.table[self.slot].paused = false;
            self.table[self.slot].timeouts.note_read(&self.context.clock);
        }
    }

    /// How what arrives is divided, from the next byte on that `on_data` has not got: it gets one frame in
    /// each call. What is incomplete is kept for the connection; frames that arrive together are not copied.
    /// A handler may set another frame in `on_data`, and pause between two frames of a batch.
    ///
    /// When the peer has ended its direction, what is left incomplete comes in a last `on_data`, in which
    /// [`has_ended`](Self::has_ended) is true, before `on_end`.
    ///
    /// `EINVAL` for a frame of no bytes, for a delimiter that has not one to four bytes, and for a frame
    /// for which a [`PulledLoop`](crate::PulledLoop)'s buffer of 256 KiB has no room.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// use omnipoll::Frame;
    ///
    /// /// Messages that begin with their length in four bytes.
    /// struct Messages;
    ///
    /// impl Handler for Messages {
    ///     type State = bool;
    ///
    ///     fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<bool> {
    ///         conn.set_frame(Frame::Exactly(4))?;
    ///         Ok(false)
    ///     }
    ///
    ///     fn on_data(&self, conn: &mut Conn<'_>, has_length: &mut bool, data: &[u8]) {
    ///         let next = match (*has_length, data.try_into().map(u32::from_be_bytes)) {
    ///             (false, Ok(length @ 1..=1000)) => length as usize,
    ///             (false, _) => return conn.abort(),
    ///             (true, _) => {
    ///                 let _ = conn.write(data);
    ///                 4
    ///             }
    ///         };
    ///         *has_length = !*has_length;
    ///         if conn.set_frame(Frame::Exactly(next)).is_err() {
    ///             conn.abort();
    ///         }
    ///     }
    /// }
    ///
    /// assert_eq!(ask(Messages, "\0\0\0\x05hello\0\0\0\x01!")?, "hello!");
    /// # Ok::<(), io::Error>(())
    /// ```
    pub fn set_frame(&mut self, frame: Frame<'_>) -> io::Result<()> {
        let rule = Rule::new(frame, self.context.max_frame)?;
        let connection = &mut self.table[self.slot];
        connection.input.set_rule(rule);
        if connection.input.is_deliverable() {
            connection.touch(self.slot, self.context);
        }
        Ok(())
    }

    /// Whether [`pause`](Conn::pause) is in force.
    ///
    /// See the example of [`pause`](Conn::pause).
    pub fn is_paused(&self) -> bool {
        self.table[self.slot].paused
    }

    /// Whether the peer has ended its direction.
    ///
    /// ```
    #[doc = include_str!("../../doc/ask.md")]
    /// struct Last;
    ///
    /// impl Handler for Last {
    ///     type State = ();
    ///
    ///     fn on_end(&self, conn: &mut Conn<'_>, _: &mut ()) {
    ///         assert!(conn.has_ended());
    ///         let _ = conn.write(b"goodbye\n");
    ///         conn.close();
    ///     }
    /// #   fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> { Ok(()) }
    /// #   fn on_data(&self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {}
    /// }
    ///
    /// assert_eq!(ask(Last, "")?, "goodbye\n");
    /// # Ok::<(), io::Error>(())
    /// ```
    pub fn has_ended(&self) -> bool {
        self.table[self.slot].peer_ended
    }
}
