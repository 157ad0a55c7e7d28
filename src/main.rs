//! metactl's binary: everything is in the library and in `cli`.
fn main() {}
