//! The compiler, the built library, and commands whose failure shows what they said.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The warnings that the header and the C programs compile without.
pub(crate) const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// A path in this crate.
pub(crate) fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A path in the workspace.
pub(crate) fn workspace(path: &str) -> PathBuf {
    here("../..").join(path)
}

/// An empty folder for one test's files.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A folder with libomnipoll.so and libomnipoll.a, built from what is tested.
///
/// Cargo builds neither for a test, which can link neither.
pub(crate) fn library() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        run(cargo().args(["build", "--quiet", "-p", "omnipoll-capi", "--target-dir"]).arg(target));
        let folder = scratch("lib");
        for (built, name) in [("so", "so.0"), ("so", "so"), ("a", "a")] {
            let built = target.join("debug/libomnipoll_capi").with_extension(built);
            std::os::unix::fs::symlink(built, folder.join("libomnipoll").with_extension(name)).unwrap();
        }
        folder
    })
}

pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(workspace("."));
    cargo
}

/// The C compiler: `CC`, or `cc`.
pub(crate) fn cc() -> Command {
    Command::new(std::env::var_os("CC").unwrap_or("cc".into()))
}

/// The C++ compiler: `CXX`, or `c++`.
pub(crate) fn cxx() -> Command {
    Command::new(std::env::var_os("CXX").unwrap_or("c++".into()))
}

/// Runs a command to its end, which must be a success, and returns what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (printed, complaints) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{printed}\n{complaints}", output.status);
    printed
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
