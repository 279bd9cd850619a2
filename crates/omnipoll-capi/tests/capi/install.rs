//! What `make install` leaves behind is all that a C program needs.

use crate::tools::{cargo, cc, here, run, scratch, workspace};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn make(arguments: &[String]) -> String {
    run(Command::new("make")
        .current_dir(workspace("."))
        // The outer make's and cargo's own affairs.
        .env_remove("MAKEFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .args(arguments))
}

/// A prefix with the library installed.
pub(crate) fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = scratch("prefix");
        // The machine's loader cache stays as it is.
        let ldconfig = "LDCONFIG=true".into();
        make(&["library".into(), "install".into(), format!("PREFIX={}", prefix.display()), ldconfig]);
        prefix
    })
}

/// What pkg-config says of the installed library. Without pkg-config this fails: install it.
fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let words = run(Command::new("pkg-config")
        .env("PKG_CONFIG_LIBDIR", installed().join("lib/pkgconfig"))
        .args(arguments)
        .arg("omnipoll"));
    words.split_whitespace().map(str::to_owned).collect()
}

/// Compiles and runs a program with `cc <arguments> program.c $(pkg-config <flags> omnipoll)`;
/// returns the libraries it needs at run time.
fn build_and_run(name: &str, arguments: &[&str], flags: &[&str]) -> String {
    let binary = scratch(name).join("program");
    let program = here("tests/c/installed.c");
    run(cc().args(arguments).arg(program).args(pkg_config(flags)).arg("-o").arg(&binary));
    let printed = run(Command::new(&binary).env("LD_LIBRARY_PATH", installed().join("lib")));
    assert_eq!(printed, format!("omnipoll {VERSION}: ready\n"));
    let dynamic = run(Command::new("readelf").arg("-d").arg(&binary));
    dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect()
}

#[test]
fn a_program_links_to_the_shared_library() {
    let needed = build_and_run("installed-shared", &[], &["--cflags", "--libs"]);
    assert!(needed.contains("[libomnipoll.so.0]"), "{needed}");
}

#[test]
fn a_program_links_to_the_static_library() {
    let needed = build_and_run("installed-static", &["-static"], &["--static", "--cflags", "--libs"]);
    assert_eq!(needed, "");
}

/// Without valgrind this fails: install it.
#[test]
fn valgrind_finds_nothing_with_the_installed_suppressions() {
    let binary = scratch("valgrind").join("program");
    let program = here("tests/c/checked.c");
    run(cc()
        .args(["-std=c11", "-g", "-pthread"])
        .arg(program)
        .args(pkg_config(&["--cflags", "--libs"]))
        .arg("-o")
        .arg(&binary));
    let suppressions = installed().join("share/omnipoll/omnipoll.supp");
    for tool in [&["--leak-check=full"][..], &["--tool=helgrind"], &["--tool=drd"]] {
        let printed = run(Command::new("valgrind")
            .args(tool)
            .arg(format!("--suppressions={}", suppressions.display()))
            .args(["--quiet", "--error-exitcode=1"])
            .arg(&binary)
            .env("LD_LIBRARY_PATH", installed().join("lib")));
        assert_eq!(printed, "checked\n", "{tool:?}");
    }
}

#[test]
fn the_private_libraries_are_those_that_rustc_names() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("native-static-libs");
    let mut rustc = cargo();
    rustc.args(["rustc", "-p", "omnipoll-capi", "--target-dir"]).arg(target);
    let output = rustc.args(["--", "--print", "native-static-libs"]).output().unwrap();
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    let (_, named) = notes.split_once("native-static-libs: ").unwrap_or_else(|| panic!("{notes}"));
    // These two the compiler adds by itself, as omnipoll.pc.in says.
    let wanted = named.lines().next().unwrap_or_default().split(' ');
    let wanted: Vec<_> = wanted.filter(|library| !["-lgcc_s", "-lc"].contains(library)).collect();

    let template = fs::read_to_string(here("package/omnipoll.pc.in")).unwrap();
    let stated = template.lines().find_map(|line| line.strip_prefix("Libs.private: ")).unwrap();
    assert_eq!(stated.split(' ').collect::<Vec<_>>(), wanted);
}

/// glibc's loader finds a library where its cache has it; what is staged is not there yet.
#[test]
fn the_loader_cache_is_updated_unless_the_installation_is_staged() {
    installed();
    let folder = scratch("loader");
    let called = |cached: &str, more: &[String]| {
        let ldconfig = folder.join("ldconfig");
        let script =
            format!("#!/bin/sh\necho called $* >> '{0}/called'\necho ' {cached}'\n", folder.display());
        fs::write(&ldconfig, script).unwrap();
        fs::set_permissions(&ldconfig, fs::Permissions::from_mode(0o755)).unwrap();
        let _ = fs::remove_file(folder.join("called"));
        let words = [
            "install".into(),
            format!("PREFIX={}", folder.display()),
            format!("LDCONFIG={}", ldconfig.display()),
        ];
        let printed = make(&[&words, more].concat());
        let called = fs::read_to_string(folder.join("called")).unwrap_or_default();
        (called, printed.lines().any(|line| line.contains("LD_LIBRARY_PATH=")))
    };
    let lib = folder.join("lib/libomnipoll.so.0").display().to_string();
    let run_and_looked_at = "called\ncalled -p\n".to_owned();
    assert_eq!(called(&lib, &[]), (run_and_looked_at.clone(), false));
    assert_eq!(called("elsewhere", &[]), (run_and_looked_at, true));
    assert_eq!(called("elsewhere", &[format!("DESTDIR={}", folder.display())]), (String::new(), false));
}

#[test]
fn a_staged_installation_has_these_files_and_its_removal_leaves_none() {
    installed();
    let stage = scratch("stage");
    let places =
        [format!("DESTDIR={}", stage.display()), "PREFIX=/opt/omni".into(), "LIBDIR=/opt/omni/lib64".into()];
    let target = |word: &str| make(&[&[word.into()], &places[..]].concat());
    target("install");
    let (manual, rest): (Vec<_>, Vec<_>) =
        files(&stage).into_iter().partition(|name| name.starts_with("opt/omni/share/man/man3/omni"));
    let expected = [
        "opt/omni/include/omnipoll.h".to_owned(),
        format!("opt/omni/lib64/.debug/libomnipoll.so.{VERSION}.debug"),
        "opt/omni/lib64/cmake/omnipoll/omnipoll-config-version.cmake".to_owned(),
        "opt/omni/lib64/cmake/omnipoll/omnipoll-config.cmake".to_owned(),
        "opt/omni/lib64/libomnipoll.a".to_owned(),
        "opt/omni/lib64/libomnipoll.so -> libomnipoll.so.0".to_owned(),
        format!("opt/omni/lib64/libomnipoll.so.0 -> libomnipoll.so.{VERSION}"),
        format!("opt/omni/lib64/libomnipoll.so.{VERSION}"),
        "opt/omni/lib64/pkgconfig/omnipoll.pc".to_owned(),
        "opt/omni/share/doc/omnipoll/LICENSE-APACHE".to_owned(),
        "opt/omni/share/doc/omnipoll/LICENSE-MIT".to_owned(),
        "opt/omni/share/omnipoll/installed".to_owned(),
        "opt/omni/share/omnipoll/omnipoll.supp".to_owned(),
    ];
    assert_eq!(rest, expected);
    for name in fs::read_to_string(here("abi/symbols.txt")).unwrap().lines().chain(["omnipoll", "omni_event"])
    {
        assert!(manual.contains(&format!("opt/omni/share/man/man3/{name}.3")), "{name} is not in the manual");
    }

    let pc = fs::read_to_string(stage.join("opt/omni/lib64/pkgconfig/omnipoll.pc")).unwrap();
    let version = format!("Version: {VERSION}");
    for line in ["prefix=/opt/omni", "libdir=/opt/omni/lib64", "includedir=/opt/omni/include", &version] {
        assert!(pc.lines().any(|found| found == line), "{line} is not in\n{pc}");
    }
    assert!(!pc.contains('@'), "{pc}");

    // Another package's files, beside ours.
    let others = ["opt/omni/lib64/other.so", "opt/omni/share/man/man3/omnivore.3"];
    others.iter().for_each(|name| fs::write(stage.join(name), "").unwrap());
    target("uninstall");
    assert_eq!(files(&stage), others);
    assert!(!stage.join("opt/omni/share/omnipoll").exists());
}

/// The files under `root`, in order, and where symbolic links lead.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    list(root, root, &mut found);
    found.sort();
    found
}

fn list(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        match fs::read_link(&path) {
            Ok(target) => found.push(format!("{name} -> {}", target.display())),
            Err(_) if path.is_dir() => list(root, &path, found),
            Err(_) => found.push(name),
        }
    }
}
