//! What the trials of io_uring, which measure in turns within one process, have in common.

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use crate::machine;

/// The middle one of some values, of which there is one at least.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of the ratios, turn by turn.
pub fn median_ratio(own: &[f64], base: &[f64]) -> f64 {
    median(own.iter().zip(base).map(|(own, base)| own / base).collect())
}

/// A connection over loopback from whose other end a thread, on another core, reads and throws away; it
/// returns how many bytes there were once the connection is closed.
pub fn connect_to_reader() -> io::Result<(TcpStream, JoinHandle<usize>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut reader, _) = listener.accept()?;
    let cores = machine::cores();
    let reading = thread::spawn(move || {
        cores.first().into_iter().for_each(|core| machine::stay_on(*core));
        let (mut buffer, mut all) = (vec![0; 1 << 20], 0);
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            all += length;
        }
        all
    });
    Ok((stream, reading))
}
