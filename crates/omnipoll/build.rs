//! Says where there is io_uring: on Linux, on the processors that the crate `io-uring` knows the
//! kernel's structures of. Cargo.toml names the same.

fn main() {
    let target = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let known = ["x86_64", "aarch64", "riscv64", "loongarch64", "powerpc64"];
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(io_uring)");
    if target("OS") == "linux" && known.contains(&target("ARCH").as_str()) {
        println!("cargo::rustc-cfg=io_uring");
    }
}
