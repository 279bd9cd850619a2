//! Says where there is io_uring: with the feature `io-uring`, on Linux, on the processors whose
//! structures of the kernel the crate `io-uring` knows. Cargo.toml names the same.

fn main() {
    let target = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let known = ["x86_64", "aarch64", "riscv64", "loongarch64", "powerpc64"];
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(io_uring)");
    let is_wanted = std::env::var_os("CARGO_FEATURE_IO_URING").is_some();
    if is_wanted && target("OS") == "linux" && known.contains(&target("ARCH").as_str()) {
        println!("cargo::rustc-cfg=io_uring");
    }
}
