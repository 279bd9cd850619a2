//! What is in the installed library, and the build systems that find it.

use crate::install::installed;
use crate::tools::{here, run, scratch};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn shared() -> PathBuf {
    installed().join("lib/libomnipoll.so.0")
}

/// The largest that the library may be. `docs/install.md` says what was done about it, and what is left.
const SIZE: u64 = 1_850_000;

/// What every program that loads it pays for: it was 4.3 MB of memory once.
#[test]
fn the_library_is_small_and_takes_little_memory_before_it_is_used() {
    let sections = run(Command::new("size").arg("-A").arg(shared()));
    let of = |name| {
        let line = sections.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    };
    assert!(of(".bss") <= 64 << 10, "{sections}");
    assert!(!sections.contains(".debug_"), "it is not stripped:\n{sections}");
    let size = fs::metadata(shared()).unwrap().len();
    assert!(size <= SIZE, "{size} bytes:\n{sections}");
}

/// A debugger finds it there: in `.debug` beside the library, by this name.
#[test]
fn debugging_information_lies_in_a_file_beside_the_library() {
    let link = run(Command::new("readelf").arg("--string-dump=.gnu_debuglink").arg(shared()));
    let name = format!("libomnipoll.so.{}.debug", env!("CARGO_PKG_VERSION"));
    assert!(link.contains(&name), "{link}");
    let lines = run(Command::new("readelf").arg("-SW").arg(installed().join("lib/.debug").join(name)));
    assert!(lines.contains(".debug_line"), "{lines}");
}

#[test]
fn each_symbol_has_a_version() {
    let symbols =
        run(Command::new("nm").args(["-D", "--defined-only", "--with-symbol-versions"]).arg(shared()));
    let mut exported: Vec<_> = symbols
        .lines()
        .filter(|line| !line.contains(" A "))
        .filter_map(|line| line.split(' ').next_back())
        .collect();
    exported.sort_unstable();
    let committed = fs::read_to_string(here("abi/symbols.txt")).unwrap();
    let expected: Vec<_> = committed.lines().map(|name| format!("{name}@@OMNIPOLL_0.1")).collect();
    assert_eq!(exported, expected);
}

/// Without mandoc this fails: install it.
#[test]
fn the_manual_is_correct_mdoc() {
    let folder = installed().join("share/man/man3");
    let pages = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    run(Command::new("mandoc").args(["-Tlint", "-Wwarning"]).args(pages));
}

/// Without cmake this fails: install it.
#[test]
fn cmake_finds_both_libraries() {
    let folder = scratch("cmake");
    let project = "cmake_minimum_required(VERSION 3.13)\n\
        project(installed C)\n\
        find_package(omnipoll 0.1 REQUIRED CONFIG)\n\
        foreach(kind omnipoll static)\n\
        add_executable(with_${kind} installed.c)\n\
        target_link_libraries(with_${kind} omnipoll::${kind})\n\
        endforeach()\n";
    fs::write(folder.join("CMakeLists.txt"), project).unwrap();
    fs::copy(here("tests/c/installed.c"), folder.join("installed.c")).unwrap();
    let build = folder.join("build");
    let prefix = format!("-DCMAKE_PREFIX_PATH={}", installed().display());
    run(Command::new("cmake").arg("-S").arg(&folder).arg("-B").arg(&build).arg(prefix));
    run(Command::new("cmake").arg("--build").arg(&build));
    for program in ["with_omnipoll", "with_static"] {
        let printed = run(&mut Command::new(build.join(program)));
        assert_eq!(printed, format!("omnipoll {}: ready\n", env!("CARGO_PKG_VERSION")));
    }
}
