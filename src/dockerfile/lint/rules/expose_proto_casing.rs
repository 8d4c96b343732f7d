//! `ExposeProtoCasing`: protocols of EXPOSE should be lower case.
//!
//! The image config has protocols in lower case (image-spec, config.md, `ExposedPorts`).
//!
//! <https://docs.docker.com/reference/build-checks/expose-proto-casing/>
//!
//! Bad:
//! ```dockerfile
//! EXPOSE 80/TcP
//! ```
//! Good:
//! ```dockerfile
//! EXPOSE 80/tcp
//! ```

use crate::diag::{Diagnostic, Edit, codes};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;
use crate::dockerfile::lint::rules::expose_invalid_format::ports;

pub(super) const RULE: Rule = Rule::new(codes::EXPOSE_PROTO_CASING, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    for (port, span) in ports(analysis) {
        let Some((number, protocol)) = port.split_once('/') else { continue };
        let lower = protocol.to_ascii_lowercase();
        // A word with a variable differs from the source, and cannot be replaced.
        let written = analysis.source.get(span.start..span.end) == Some(port.as_str());
        if protocol != lower {
            let message = format!("protocol `{protocol}` in EXPOSE should be lower case");
            found.push(
                Diagnostic::warning(codes::EXPOSE_PROTO_CASING, span, message)
                    .label(span, format!("write `{lower}`"))
                    .maybe_fix([written.then(|| Edit::new(span, format!("{number}/{lower}")))]),
            );
        }
    }
}
