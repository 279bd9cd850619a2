//! A server that starts, and stops when it has served one client, while its calls fail.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use omnipoll::{explain, EngineKind, Model, Server};

use crate::client::PATIENCE;
use crate::isolated::walk;
use crate::plan::Plan;
use crate::selection::{Asked, Tally};
use crate::server::{addresses, options, Echo};

pub(crate) fn faults(model: Model, engine: EngineKind, asked: &Asked, tally: &mut Tally) {
    walk(asked, tally, |plan| {
        let mut client = None;
        let served = serve(plan, model, engine, &mut client);
        match served {
            Err(error) if explain(&error).is_empty() => Err(String::from("an error without words")),
            Err(error) if plan.injected() == 0 => Err(explain(&error)),
            Err(_) => Ok(()),
            Ok(()) => answer(plan, client.expect("it has connected")),
        }
    });
}

fn serve(plan: &Plan, model: Model, engine: EngineKind, client: &mut Option<TcpStream>) -> io::Result<()> {
    let echo = plan.without_faults(Echo::new);
    let server = Server::with_options(echo, options(model, engine))?;
    let mut bound = Vec::new();
    for address in addresses(model) {
        bound.push(server.listen(address)?);
    }
    *client = Some(plan.without_faults(|| {
        let mut client = TcpStream::connect(&bound[0]).expect("connect");
        client.write_all(b"hello").expect("write");
        client.shutdown(Shutdown::Write).expect("shutdown");
        client
    }));
    // Who has come already is served.
    server.handle().stop(None)?;
    server.run()
}

/// The client was served, or a fault has been its end.
fn answer(plan: &Plan, mut client: TcpStream) -> Result<(), String> {
    let mut answer = Vec::new();
    // A closed ring releases its files a little later.
    let read = plan.without_faults(|| {
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        client.read_to_end(&mut answer)
    });
    match read {
        Ok(_) if answer == b"hello" => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(String::from("`run` has returned, and its client's connection is open"))
        }
        _ if plan.injected() == 0 => Err(format!("the client got {answer:?}")),
        _ => Ok(()),
    }
}
