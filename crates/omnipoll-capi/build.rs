//! Gives the shared library its soname: `libomnipoll.so.` and the number that changes when a
//! program built against the library before can't run with it any more.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libomnipoll.so.0");
    }
}
