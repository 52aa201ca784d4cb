//! Links the program at a fixed address: it also plays the services that are killed and started
//! again by the thousand, and at each start of a position-independent program of its size the
//! loader would rewrite some 75,000 addresses, which takes longer than everything that is measured.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |name| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
