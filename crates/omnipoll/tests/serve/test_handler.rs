//! A handler made of closures, which logs each of its calls.

use std::io;

use omnipoll::{Conn, Handler, Timeout};

use super::log::{Callback, ConnLog, LogWriter};

type Open = dyn Fn(&mut Conn<'_>, &ConnLog) -> io::Result<()> + Send + Sync;
type Data = dyn Fn(&mut Conn<'_>, &ConnLog, &[u8]) + Send + Sync;
type Call = dyn Fn(&mut Conn<'_>, &ConnLog) + Send + Sync;
type OnTimeout = dyn Fn(&mut Conn<'_>, &ConnLog, Timeout) + Send + Sync;
type Post = dyn Fn(&mut Conn<'_>, &ConnLog, i64) + Send + Sync;

/// What a server does: by default it sends back what it is sent, and ends when its
/// client does.
pub(crate) struct TestHandler {
    open: Box<Open>,
    data: Box<Data>,
    end: Box<Call>,
    drain: Box<Call>,
    post: Box<Post>,
    timeout: Box<OnTimeout>,
    timer: Box<Call>,
    stop: Box<Call>,
    close: Box<Call>,
}

impl TestHandler {
    pub(crate) fn echo() -> Self {
        Self {
            open: Box::new(|_, _| Ok(())),
            data: Box::new(|conn, _, data| {
                let _ = conn.write(data);
            }),
            end: Box::new(|conn, _| conn.close()),
            drain: Box::new(|_, _| {}),
            post: Box::new(|_, _, _| {}),
            timeout: Box::new(|_, _, _| {}),
            timer: Box::new(|_, _| {}),
            stop: Box::new(|_, _| {}),
            close: Box::new(|_, _| {}),
        }
    }

    pub(crate) fn on_open(
        self,
        open: impl Fn(&mut Conn<'_>, &ConnLog) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { open: Box::new(open), ..self }
    }

    pub(crate) fn on_data(
        self,
        data: impl Fn(&mut Conn<'_>, &ConnLog, &[u8]) + Send + Sync + 'static,
    ) -> Self {
        Self { data: Box::new(data), ..self }
    }

    pub(crate) fn on_end(self, end: impl Fn(&mut Conn<'_>, &ConnLog) + Send + Sync + 'static) -> Self {
        Self { end: Box::new(end), ..self }
    }

    pub(crate) fn on_drain(self, drain: impl Fn(&mut Conn<'_>, &ConnLog) + Send + Sync + 'static) -> Self {
        Self { drain: Box::new(drain), ..self }
    }

    pub(crate) fn on_post(self, post: impl Fn(&mut Conn<'_>, &ConnLog, i64) + Send + Sync + 'static) -> Self {
        Self { post: Box::new(post), ..self }
    }

    pub(crate) fn on_timeout(
        self,
        timeout: impl Fn(&mut Conn<'_>, &ConnLog, Timeout) + Send + Sync + 'static,
    ) -> Self {
        Self { timeout: Box::new(timeout), ..self }
    }

    pub(crate) fn on_timer(self, timer: impl Fn(&mut Conn<'_>, &ConnLog) + Send + Sync + 'static) -> Self {
        Self { timer: Box::new(timer), ..self }
    }

    pub(crate) fn on_stop(self, stop: impl Fn(&mut Conn<'_>, &ConnLog) + Send + Sync + 'static) -> Self {
        Self { stop: Box::new(stop), ..self }
    }

    pub(crate) fn on_close(self, close: impl Fn(&mut Conn<'_>, &ConnLog) + Send + Sync + 'static) -> Self {
        Self { close: Box::new(close), ..self }
    }
}

/// A handler, and where its calls are logged.
pub(crate) struct LoggingHandler {
    pub(crate) handler: TestHandler,
    pub(crate) log_writer: LogWriter,
}

impl Handler for LoggingHandler {
    type State = ConnLog;

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<ConnLog> {
        let log = ConnLog::of(conn, &self.log_writer);
        log.record(Callback::Open, 0);
        (self.handler.open)(conn, &log)?;
        Ok(log)
    }

    fn on_data(&self, conn: &mut Conn<'_>, log: &mut ConnLog, data: &[u8]) {
        log.record(Callback::Data, data.len() as i64);
        (self.handler.data)(conn, log, data);
    }

    fn on_end(&self, conn: &mut Conn<'_>, log: &mut ConnLog) {
        log.record(Callback::End, 0);
        (self.handler.end)(conn, log);
    }

    fn on_drain(&self, conn: &mut Conn<'_>, log: &mut ConnLog) {
        log.record(Callback::Drain, conn.queued() as i64);
        (self.handler.drain)(conn, log);
    }

    fn on_post(&self, conn: &mut Conn<'_>, log: &mut ConnLog, value: i64) {
        log.record(Callback::Post, value);
        (self.handler.post)(conn, log, value);
    }

    fn on_timeout(&self, conn: &mut Conn<'_>, log: &mut ConnLog, which: Timeout) {
        log.record(Callback::Timeout, which as i64);
        (self.handler.timeout)(conn, log, which);
    }

    fn on_timer(&self, conn: &mut Conn<'_>, log: &mut ConnLog) {
        log.record(Callback::Timer, 0);
        (self.handler.timer)(conn, log);
    }

    fn on_stop(&self, conn: &mut Conn<'_>, log: &mut ConnLog) {
        log.record(Callback::Stop, 0);
        (self.handler.stop)(conn, log);
    }

    fn on_close(&self, conn: &mut Conn<'_>, log: ConnLog, error: Option<io::Error>) {
        let errno = error.map_or(0, |error| error.raw_os_error().unwrap_or(-1));
        log.record(Callback::Close, errno.into());
        (self.handler.close)(conn, &log);
    }
}
