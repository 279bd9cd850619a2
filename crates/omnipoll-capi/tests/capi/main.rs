//! The library as a C program meets it: its header, its binary interface, its behaviour, and
//! what `make install` leaves behind. The C programs are in `tests/c`.

mod abi;
mod conformance;
mod header;
mod install;
mod package;
mod tools;
