//! The command `embudo`.

fn main() {}
