//! `--chmod` of COPY and ADD.

use crate::diag::{Diagnostic, Span, codes};
use crate::tree::{self, Chmod};

/// Reads the value of `--chmod`, which stands at `span`.
///
/// # Errors
/// A diagnostic when it is not a mode.
pub fn parse(text: &str, span: Span) -> Result<Chmod, Box<Diagnostic>> {
    tree::parse_chmod(text).map_err(|error| {
        let message = format!("invalid chmod parameter: '{text}': {error}");
        let help = "write octal digits up to 7777, or clauses such as u=rwX,go=rX";
        Box::new(Diagnostic::error(codes::BAD_MODE, span, message).help(help))
    })
}
