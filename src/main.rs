//! Arguments → library → exit code; nothing else.

fn main() {}
