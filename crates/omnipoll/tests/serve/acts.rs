//! A handler made of closures, which tells the log of each of its calls.

use std::io;

use omnipoll::{Conn, Handler};

use super::log::{Note, Pen, What};

type Open = dyn Fn(&mut Conn<'_>, &Note) -> io::Result<()> + Send + Sync;
type Data = dyn Fn(&mut Conn<'_>, &Note, &[u8]) + Send + Sync;
type Call = dyn Fn(&mut Conn<'_>, &Note) + Send + Sync;
type Post = dyn Fn(&mut Conn<'_>, &Note, i64) + Send + Sync;

/// What a server does: unless told otherwise, it sends back what it is sent, and ends when its
/// client does.
pub(crate) struct Acts {
    open: Box<Open>,
    data: Box<Data>,
    end: Box<Call>,
    drain: Box<Call>,
    post: Box<Post>,
    stop: Box<Call>,
    close: Box<Call>,
}

impl Acts {
    pub(crate) fn echo() -> Self {
        Self {
            open: Box::new(|_, _| Ok(())),
            data: Box::new(|conn, _, data| {
                let _ = conn.write(data);
            }),
            end: Box::new(|conn, _| conn.close()),
            drain: Box::new(|_, _| {}),
            post: Box::new(|_, _, _| {}),
            stop: Box::new(|_, _| {}),
            close: Box::new(|_, _| {}),
        }
    }

    pub(crate) fn on_open(
        self,
        open: impl Fn(&mut Conn<'_>, &Note) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { open: Box::new(open), ..self }
    }

    pub(crate) fn on_data(self, data: impl Fn(&mut Conn<'_>, &Note, &[u8]) + Send + Sync + 'static) -> Self {
        Self { data: Box::new(data), ..self }
    }

    pub(crate) fn on_end(self, end: impl Fn(&mut Conn<'_>, &Note) + Send + Sync + 'static) -> Self {
        Self { end: Box::new(end), ..self }
    }

    pub(crate) fn on_drain(self, drain: impl Fn(&mut Conn<'_>, &Note) + Send + Sync + 'static) -> Self {
        Self { drain: Box::new(drain), ..self }
    }

    pub(crate) fn on_post(self, post: impl Fn(&mut Conn<'_>, &Note, i64) + Send + Sync + 'static) -> Self {
        Self { post: Box::new(post), ..self }
    }

    pub(crate) fn on_stop(self, stop: impl Fn(&mut Conn<'_>, &Note) + Send + Sync + 'static) -> Self {
        Self { stop: Box::new(stop), ..self }
    }

    pub(crate) fn on_close(self, close: impl Fn(&mut Conn<'_>, &Note) + Send + Sync + 'static) -> Self {
        Self { close: Box::new(close), ..self }
    }
}

/// The acts, and where they are told.
pub(crate) struct Told {
    pub(crate) acts: Acts,
    pub(crate) pen: Pen,
}

impl Handler for Told {
    type State = Note;

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<Note> {
        let note = Note::of(conn, &self.pen);
        note.tell(What::Open, 0);
        (self.acts.open)(conn, &note)?;
        Ok(note)
    }

    fn on_data(&self, conn: &mut Conn<'_>, note: &mut Note, data: &[u8]) {
        note.tell(What::Data, data.len() as i64);
        (self.acts.data)(conn, note, data);
    }

    fn on_end(&self, conn: &mut Conn<'_>, note: &mut Note) {
        note.tell(What::End, 0);
        (self.acts.end)(conn, note);
    }

    fn on_drain(&self, conn: &mut Conn<'_>, note: &mut Note) {
        note.tell(What::Drain, conn.queued() as i64);
        (self.acts.drain)(conn, note);
    }

    fn on_post(&self, conn: &mut Conn<'_>, note: &mut Note, value: i64) {
        note.tell(What::Post, value);
        (self.acts.post)(conn, note, value);
    }

    fn on_stop(&self, conn: &mut Conn<'_>, note: &mut Note) {
        note.tell(What::Stop, 0);
        (self.acts.stop)(conn, note);
    }

    fn on_close(&self, conn: &mut Conn<'_>, note: Note, error: Option<io::Error>) {
        let errno = error.map_or(0, |error| error.raw_os_error().unwrap_or(-1));
        note.tell(What::Close, errno.into());
        (self.acts.close)(conn, &note);
    }
}
