//! The `--chmod` flag of COPY and ADD (<https://docs.docker.com/reference/dockerfile/#copy---chown---chmod>).

use crate::diag::{Diagnostic, Span, codes};
use crate::tree::{self, Chmod};

/// Parses the value of `--chmod` at `span`.
///
/// # Errors
/// `E0308` if the value is not a mode.
pub fn parse(text: &str, span: Span) -> Result<Chmod, Box<Diagnostic>> {
    tree::parse_chmod(text).map_err(|error| {
        let message = format!("invalid chmod parameter: '{text}': {error}");
        let help = "write octal digits up to 7777, or clauses such as u=rwX,go=rX";
        Box::new(Diagnostic::error(codes::BAD_MODE, span, message).help(help))
    })
}
