//! Writes what fuzzing starts from: `fuzz-seeds DIRECTORY` makes `DIRECTORY/TARGET/…`, and the words of
//! the grammar as `DIRECTORY/TARGET.dict`, in the form that libFuzzer reads.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a tool for developers stops where it fails"
)]

use std::fs;
use std::path::PathBuf;

use rbuild::oci::Digest;

#[path = "../support/ebnf.rs"]
mod ebnf;
#[path = "../support/generate.rs"]
mod generate;
#[path = "../support/seeds.rs"]
mod seeds;

fn main() {
    let directory =
        PathBuf::from(std::env::args_os().nth(1).expect("the first argument is a directory"));
    for (target, seeds) in seeds::by_target() {
        let inputs = directory.join(target);
        fs::create_dir_all(&inputs).unwrap();
        for input in seeds.inputs {
            fs::write(inputs.join(Digest::of(&input).hex()), input).unwrap();
        }
        if !seeds.dictionary.is_empty() {
            let words: String = seeds.dictionary.iter().map(|word| quoted(word)).collect();
            fs::write(directory.join(format!("{target}.dict")), words).unwrap();
        }
    }
}

fn quoted(word: &str) -> String {
    let bytes: String = word.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("\"{bytes}\"\n")
}
