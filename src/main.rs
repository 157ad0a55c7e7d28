//! metactl's binary: the command line over the library.

mod cli;

use std::process::ExitCode;

/// A walk takes millions of small pieces of memory on several threads (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
