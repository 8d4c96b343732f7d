//! The program: hands everything to [`rbuild::cli`].

fn main() {}
