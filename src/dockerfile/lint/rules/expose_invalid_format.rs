//! `ExposeInvalidFormat`: EXPOSE should not name an IP address or a host port.
//!
//! EXPOSE documents the ports that a container listens on. Addresses and ports of the host are given to
//! `docker run`, and EXPOSE drops them.
//!
//! <https://docs.docker.com/reference/build-checks/expose-invalid-format/>
//!
//! Bad:
//! ```dockerfile
//! EXPOSE 127.0.0.1:8080:80
//! ```
//! Good:
//! ```dockerfile
//! EXPOSE 80
//! ```

use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::ir::Kind;
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;

pub(super) const RULE: Rule = Rule::new(codes::EXPOSE_INVALID_FORMAT, check);

/// Returns all ports of EXPOSE after expansion, with the spans of their words.
pub(super) fn ports(analysis: &Analysis<'_>) -> Vec<(String, Span)> {
    let mut ports = Vec::new();
    analysis.for_each_instruction(|instruction, scope| {
        let Kind::Expose(expose) = &instruction.kind else { return };
        for word in &expose.ports {
            let text = scope.expand(word).ok().unwrap_or_default();
            ports.extend(text.split_whitespace().map(|port| (port.to_owned(), word.span)));
        }
    });
    ports
}

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    for (port, span) in ports(analysis) {
        let number = port.split('/').next().unwrap_or("");
        let Some((_, container)) = number.rsplit_once(':') else { continue };
        let protocol = port.get(number.len()..).unwrap_or("");
        let message =
            format!("EXPOSE should not define an IP address or a host port, found `{port}`");
        found.push(
            Diagnostic::warning(codes::EXPOSE_INVALID_FORMAT, span, message)
                .label(span, format!("only `{container}{protocol}` has an effect"))
                .help("publish host ports when the container is run: `-p HOST:CONTAINER`"),
        );
    }
}
