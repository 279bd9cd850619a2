//! How clients are shared out among workers.

use std::net::TcpStream;

use omnipoll::Model;

use crate::client::exchange;
use crate::config::Config;
use crate::echo::serve;
use crate::suite::Suite;

pub(crate) fn behaviours(suite: &mut Suite) {
    suite.for_models(&[Model::Cores, Model::Prefork], clients_are_distributed);
}

fn clients_are_distributed(config: Config) {
    const CLIENTS: usize = 400;
    for reuse_port in [false, true] {
        let mut server = serve(config.options().workers(4).reuse_port(reuse_port));
        // Who comes before the others have their sockets is the first one's.
        exchange(&server.client(), b"hello");
        let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| server.client()).collect();
        clients.iter().for_each(|client| exchange(client, b"hello"));
        let stats = server.stats();
        let shares: Vec<u64> = stats.workers.iter().map(|worker| worker.accepted).collect();
        assert_eq!(shares.iter().sum::<u64>(), CLIENTS as u64 + 1);
        println!(
            "{CLIENTS} clients among 4 workers: {shares:?} with {} ({}, {})",
            if reuse_port { "a socket each" } else { "one socket" },
            config.model.name(),
            config.engine.name()
        );
        if reuse_port {
            // By a hash of the addresses: a share of 100, of which none comes near to nothing.
            assert!(shares.iter().all(|&share| share > 20), "{shares:?}");
        }
        drop(clients);
        server.stop_and_check();
    }
}
