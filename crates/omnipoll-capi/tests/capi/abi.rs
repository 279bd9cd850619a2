//! What a program compiled against an earlier library relies on.

use crate::tools::{cc, here, library, run, workspace, STRICT};
use std::process::Command;

#[test]
fn the_soname_is_libomnipoll_so_0() {
    let dynamic = run(Command::new("readelf").arg("-d").arg(library().join("libomnipoll.so")));
    let soname = dynamic.lines().find(|line| line.contains("(SONAME)")).unwrap();
    assert!(soname.ends_with("[libomnipoll.so.0]"), "{soname}");
}

/// A symbol that is gone breaks programs; one that is new must be meant, and declared.
#[test]
fn the_exported_symbols_are_the_committed_ones_and_those_of_the_header() {
    let symbols =
        run(Command::new("nm").args(["-D", "--defined-only"]).arg(library().join("libomnipoll.so")));
    let mut exported: Vec<_> = symbols.lines().filter_map(|line| line.split(' ').next_back()).collect();
    exported.sort_unstable();

    let committed = std::fs::read_to_string(here("abi/symbols.txt")).unwrap();
    assert_eq!(exported, committed.lines().collect::<Vec<_>>(), "abi/symbols.txt");

    let header = std::fs::read_to_string(workspace("include/omnipoll.h")).unwrap();
    let mut declared: Vec<_> = header.lines().filter_map(declared_function).collect();
    declared.sort_unstable();
    assert_eq!(exported, declared, "include/omnipoll.h");
}

#[test]
fn every_exported_function_is_called_with_what_is_wrong() {
    let symbols = std::fs::read_to_string(here("abi/symbols.txt")).unwrap();
    let [calls, rest] = ["misuse_calls.h", "misuse.c"]
        .map(|name| std::fs::read_to_string(here("tests/c").join(name)).unwrap());
    let misuse = calls + &rest;
    let missing: Vec<_> = symbols.lines().filter(|name| !misuse.contains(&format!("{name}("))).collect();
    assert!(missing.is_empty(), "tests/c/misuse.c has no {missing:?}");
}

/// `OMNI_API int omni_poller_add(omni_poller *poller, ...` declares `omni_poller_add`.
fn declared_function(line: &str) -> Option<&str> {
    let (before, _) = line.strip_prefix("OMNI_API ")?.split_once('(')?;
    before.rsplit([' ', '*']).next()
}

#[test]
fn every_function_says_since_when_it_exists() {
    let header = std::fs::read_to_string(workspace("include/omnipoll.h")).unwrap();
    // Comments end where declarations begin.
    for (comment, declaration) in header.split("/**").filter_map(|piece| piece.split_once("*/")) {
        if let Some(name) = declaration.lines().find_map(declared_function) {
            let words: Vec<_> = comment.split_whitespace().filter(|&word| word != "*").collect();
            assert!(matches!(words[..], [.., "Since", version] if version.starts_with("0.")), "{name}");
        }
    }
}

#[test]
fn sizes_offsets_and_constants_are_the_committed_ones() {
    run(cc()
        .args(STRICT)
        .args(["-std=c11", "-fsyntax-only", "-I"])
        .arg(workspace("include"))
        .arg(here("abi/layout.c")));
}
