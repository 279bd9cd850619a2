//! `include/omnipoll.h` is what cbindgen makes of the sources, and compiles anywhere.

use crate::tools::{cc, cxx, here, run, scratch, workspace, STRICT};
use std::process::Command;

/// In the order of the header.
const SOURCES: [&str; 14] = [
    "constants",
    "event",
    "library",
    "poller",
    "sources",
    "strict",
    "inspect",
    "options",
    "handler",
    "server",
    "statistics",
    "conn",
    "datagram",
    "error",
];

/// `make header` runs this test with `UPDATE_HEADER` set.
#[test]
fn the_committed_header_is_up_to_date() {
    let config = cbindgen::Config::from_file(here("cbindgen.toml")).unwrap();
    let builder = SOURCES.iter().fold(cbindgen::Builder::new().with_config(config), |builder, source| {
        builder.with_src(here("src").join(source).with_extension("rs"))
    });
    let mut generated = Vec::new();
    builder.generate().unwrap().write(&mut generated);

    let header = workspace("include/omnipoll.h");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&header, &generated).unwrap();
    }
    let committed = std::fs::read(&header).unwrap_or_default();
    assert!(committed == generated, "include/omnipoll.h is stale: refresh it with `make header`");
}

#[test]
fn the_header_compiles_alone_as_c99_c11_and_cxx17() {
    let folder = scratch("header");
    let compile = |compiler: &mut Command, source: &str, standard: &str| {
        let source = folder.join(source);
        std::fs::write(&source, "#include <omnipoll.h>\n").unwrap();
        run(compiler
            .args(STRICT)
            .args([standard, "-fsyntax-only", "-I"])
            .arg(workspace("include"))
            .arg(source));
    };
    compile(&mut cc(), "alone.c", "-std=c99");
    compile(&mut cc(), "alone.c", "-std=c11");
    compile(&mut cxx(), "alone.cc", "-std=c++17");
}
