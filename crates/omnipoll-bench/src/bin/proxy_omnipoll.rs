//! The proxy on omnipoll's event loop, by its relays: `proxy_omnipoll ENGINE ADDRESS:PORT`.

use std::io;

use omnipoll::{
    Conn, ConnId, ConnectOptions, EngineKind, EventLoop, FailedConnect, Handler, LoopOptions, LoopRef,
};
use omnipoll_bench::echo;

struct Proxy {
    backend: String,
    options: ConnectOptions,
}

impl Handler for Proxy {
    type State = ();

    fn on_open(&self, conn: &mut Conn<'_>) -> io::Result<()> {
        if !conn.is_outgoing() {
            conn.pause();
            let client = conn.id().number();
            conn.event_loop().connect(&self.backend, &self.options, client)?;
            return Ok(());
        }
        let (backend, client) = (conn.id(), ConnId::from_number(conn.token()));
        conn.relay_to(client)?;
        let mut client = conn.other(client)?;
        client.relay_to(backend)?;
        client.resume();
        Ok(())
    }

    fn on_data(&self, _: &mut Conn<'_>, (): &mut (), _: &[u8]) {}

    fn on_connect_error(&self, event_loop: &mut LoopRef<'_>, failed: &FailedConnect) {
        if let Ok(mut client) = event_loop.conn(ConnId::from_number(failed.token())) {
            client.abort();
        }
    }
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().expect("an engine's name");
    let engine = EngineKind::from_name(&name).expect("an engine");
    let backend = arguments.next().expect("ADDRESS:PORT");
    echo::prepare_process();
    let options = LoopOptions::new().engine(engine);
    let mut event_loop = EventLoop::with_options(Proxy { backend, options: ConnectOptions::new() }, options)?;
    let address = event_loop.listen("127.0.0.1:0", 0)?;
    echo::tell_port(address.rsplit(':').next().expect("a port"));
    event_loop.run()
}
