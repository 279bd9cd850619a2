//! The contract from C, on every engine, shared and static, and under sanitizers.

use omnipoll::EngineKind;

use crate::tools::{cc, here, library, run, scratch, workspace, STRICT};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `tests/c/<program>.c` against the library.
fn compile(program: &str, folder: &Path, arguments: &[&str]) -> PathBuf {
    let binary = folder.join(program);
    run(cc()
        .args(STRICT)
        .args(["-std=c11", "-g", "-pthread", "-I"])
        .arg(workspace("include"))
        .arg(here("tests/c").join(program).with_extension("c"))
        .arg("-o")
        .arg(&binary)
        .args(arguments)
        .current_dir(library()));
    binary
}

/// What links the shared library, and finds it when the program is run where it was built.
const SHARED: [&str; 3] = ["-L.", "-Wl,-rpath,$ORIGIN/../lib", "-lomnipoll"];
const STATIC: [&str; 3] = ["libomnipoll.a", "-lm", "-ldl"];

const PROGRAMS: [&str; 24] = [
    "conformance",
    "wait",
    "handles",
    "timers",
    "sources",
    "strict",
    "inspect",
    "server",
    "addresses",
    "operate",
    "stop",
    "workers",
    "datagram",
    "conn",
    "transfer",
    "loop",
    "loop_listen",
    "loop_broadcast",
    "connect",
    "spawn",
    "pulled",
    "pulled_wait",
    "embedded",
    "misuse",
];

fn check_conformance(name: &str, arguments: &[&str]) {
    let folder = scratch(name);
    for program in PROGRAMS {
        let printed = run(&mut Command::new(compile(program, &folder, arguments)));
        for engine in EngineKind::ALL.into_iter().filter(|kind| kind.is_available()).map(EngineKind::name) {
            let checked = printed.lines().any(|line| line.starts_with(&format!("ok  {engine} ")));
            assert!(checked, "{program} checked nothing on {engine}:\n{printed}");
        }
        println!("{printed}");
    }
}

#[test]
fn the_contract_holds_through_the_shared_library() {
    check_conformance("shared", &SHARED);
}

#[test]
fn the_contract_holds_through_the_static_library() {
    check_conformance("static", &STATIC);
}

#[test]
fn the_contract_holds_under_the_sanitizers() {
    let sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    check_conformance("sanitized", &[&sanitizers[..], &SHARED].concat());
}
