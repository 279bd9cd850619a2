//! A server on omnipoll's own servers, one loop: `serve_omnipoll http|redis ENGINE`.

use std::io;
use std::sync::{Mutex, PoisonError};

use omnipoll::{Conn, EngineKind, Handler, Model, Server, ServerOptions};
use omnipoll_bench::{echo, protocol::Protocol};

struct Answers(Mutex<(Protocol, Vec<u8>)>);

impl Handler for Answers {
    /// What a client has sent of a request that is not whole yet.
    type State = Vec<u8>;

    fn on_open(&self, _: &mut Conn<'_>) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn on_data(&self, conn: &mut Conn<'_>, begun: &mut Vec<u8>, data: &[u8]) {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (protocol, output) = &mut *own;
        output.clear();
        protocol.feed(begun, data, output);
        if conn.write(output).is_err() {
            conn.close();
        }
    }
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let protocol = Protocol::named(&arguments.next().expect("a protocol"));
    let engine = EngineKind::from_name(&arguments.next().expect("an engine's name")).expect("an engine");
    echo::prepare_process();
    let options = ServerOptions::new().model(Model::Reactor).engine(engine);
    let server = Server::with_options(Answers(Mutex::new((protocol, Vec::new()))), options)?;
    let address = server.listen("127.0.0.1:0")?;
    echo::tell_port(address.rsplit(':').next().expect("a port"));
    server.run()
}
