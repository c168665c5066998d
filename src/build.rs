//! Compiles `proto/` into the messages and client stubs of `src/wire`, with a compiler written in Rust: no
//! `protoc`. And has the linker put `src/env/os/uring_wrap.rs` in the way of rings that
//! `kvserver` makes and waits for.

use std::path::PathBuf;

use prost::Message as _;

const PROTOS: [&str; 4] = [
    "distribkv/v1/kv.proto",
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rustc-link-arg-bin=kvserver=-Wl,--wrap=syscall");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(true)
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
