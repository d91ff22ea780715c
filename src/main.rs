//! Arguments → library → exit code; nothing else.

fn main() -> std::process::ExitCode {
    abicus::cli::main()
}
