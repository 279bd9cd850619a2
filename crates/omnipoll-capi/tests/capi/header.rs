//! `include/omnipoll.h` is what cbindgen makes of the sources, and compiles anywhere.

use crate::tools::{cc, cxx, here, run, scratch, workspace, STRICT};
use std::process::Command;

/// `make header` runs this test with `UPDATE_HEADER` set.
#[test]
fn the_committed_header_is_up_to_date() {
    let generated = generate();
    let header = workspace("include/omnipoll.h");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&header, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&header).unwrap_or_default();
    assert!(committed == generated, "include/omnipoll.h is stale: refresh it with `make header`");
}

/// The chapters of `omnipoll.h.in`, in which `@poller@` stands for what `src/poller.rs` declares.
fn generate() -> String {
    let template = std::fs::read_to_string(here("omnipoll.h.in")).unwrap();
    let template = template.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    let expand = |line: &str| match line.strip_prefix('@').and_then(|line| line.strip_suffix('@')) {
        Some(module) => declarations(module),
        None => line.to_owned(),
    };
    template.lines().map(|line| expand(line) + "\n").collect()
}

/// What a module declares: constants, types, functions.
fn declarations(module: &str) -> String {
    let source = here("src").join(module).with_extension("rs");
    let config = cbindgen::Config::from_file(here("cbindgen.toml")).unwrap();
    let mut written = Vec::new();
    cbindgen::Builder::new().with_config(config).with_src(&source).generate().unwrap().write(&mut written);
    let written = String::from_utf8(written).unwrap();
    let declarations = as_in_source(&with_tags(written.trim()), &std::fs::read_to_string(source).unwrap());
    declarations.lines().map(wrapped).collect::<Vec<_>>().join("\n")
}

/// Names each struct as its type, so that C++ can declare it: `typedef struct omni_event { ... }`.
fn with_tags(declarations: &str) -> String {
    const START: &str = "typedef struct {";
    let mut pieces = declarations.split(START);
    let mut tagged = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (_, after) = piece.split_once("\n} ").unwrap();
        let (name, _) = after.split_once(';').unwrap();
        tagged += &format!("typedef struct {name} {{{piece}");
    }
    tagged
}

/// Writes constants as the source does: cbindgen has them in decimal.
fn as_in_source(declarations: &str, source: &str) -> String {
    let literal = |name: &str| {
        let (_, after) = source.split_once(&format!("pub const {name}: u32 = "))?;
        Some(after.split_once(';')?.0.replace('_', ""))
    };
    let rewrite = |line: &str| {
        let name = line.strip_prefix("#define ").and_then(|line| line.split(' ').next());
        match name.and_then(|name| Some((name, literal(name)?))) {
            Some((name, literal)) => format!("#define {name} {literal}"),
            None => line.to_owned(),
        }
    };
    declarations.lines().map(rewrite).collect::<Vec<_>>().join("\n")
}

/// Breaks a prototype that is longer than a line.
fn wrapped(line: &str) -> String {
    const WIDTH: usize = 100;
    let (mut lines, mut rest) = (String::new(), line.to_owned());
    while rest.len() > WIDTH && line.starts_with("OMNI_API ") {
        let end = rest[..WIDTH].rfind(", ").map_or(rest.len(), |comma| comma + 1);
        lines += &format!("{}\n", &rest[..end]);
        rest = format!("    {}", rest[end..].trim_start());
    }
    lines + &rest
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
