//! `UndefinedArgInFrom`: FROM should use declared ARGs only.
//!
//! FROM sees the ARGs before the first FROM and the platform arguments. Any other variable is empty.
//!
//! <https://docs.docker.com/reference/build-checks/undefined-arg-in-from/>
//!
//! Bad:
//! ```dockerfile
//! FROM --platform=$BULIDPLATFORM alpine
//! ```
//! Good:
//! ```dockerfile
//! FROM --platform=$BUILDPLATFORM alpine
//! ```

use crate::diag::{Diagnostic, codes, nearest};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;
use crate::dockerfile::lint::variable_use::span_of_use;

pub(super) const RULE: Rule = Rule::new(codes::UNDEFINED_ARG_IN_FROM, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    for stage in &analysis.file.stages {
        let words = stage.from.platform.iter().chain([&stage.from.image]);
        for word in words {
            let undefined = analysis.globals.expansion(word).map(|expanded| expanded.undefined);
            for name in undefined.unwrap_or_default() {
                if analysis.globals.declares(&name) {
                    continue;
                }
                let span = span_of_use(analysis.source, word.span, &name);
                let message = format!("FROM argument `{name}` is not declared");
                let help = match nearest(&name, analysis.globals.names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("declare it before the first FROM: `ARG {name}=…`"),
                };
                found.push(
                    Diagnostic::warning(codes::UNDEFINED_ARG_IN_FROM, span, message)
                        .label(span, "is always empty here")
                        .help(help),
                );
            }
        }
    }
}
