//! The echo server on omnipoll's own servers, one loop: `echo_omnipoll ENGINE`.

use std::io;

use omnipoll::{Conn, EngineKind, Handler, Model, Server, ServerOptions};
use omnipoll_bench::echo;

struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<()> {
        Ok(())
    }

    fn on_data(&self, conn: &mut Conn<'_>, (): &mut (), data: &[u8]) {
        if conn.write(data).is_err() {
            conn.close();
        }
    }
}

fn main() -> io::Result<()> {
    let name = std::env::args().nth(1).expect("an engine's name");
    let engine = EngineKind::from_name(&name).expect("an engine");
    echo::prepare_process();
    let server = Server::with_options(Echo, ServerOptions::new().model(Model::Reactor).engine(engine))?;
    let address = server.listen("127.0.0.1:0")?;
    echo::tell_port(address.rsplit(':').next().expect("a port"));
    server.run()
}
