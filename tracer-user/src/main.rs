//! Stand-in: replaced by the command line.

fn main() {}
