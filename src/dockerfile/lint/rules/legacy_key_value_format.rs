//! `LegacyKeyValueFormat`: ENV and LABEL should use `name=value`.
//!
//! The legacy form `ENV a b=c d` sets one variable but looks as if it set two. With `=`, values can be
//! quoted.
//!
//! <https://docs.docker.com/reference/build-checks/legacy-key-value-format/>
//!
//! Bad:
//! ```dockerfile
//! ENV DEPS curl git
//! ```
//! Good:
//! ```dockerfile
//! ENV DEPS="curl git"
//! ```

use crate::diag::{Diagnostic, Edit, Span, codes};
use crate::dockerfile::expand;
use crate::dockerfile::ir::{Kind, Pair};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;
use crate::dockerfile::lint::fix::{is_verbatim, quoted_for_pair};

pub(super) const RULE: Rule = Rule::new(codes::LEGACY_KEY_VALUE_FORMAT, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    for instruction in analysis.checked_instructions() {
        let (Kind::Env(pairs) | Kind::Label(pairs)) = &instruction.kind else { continue };
        let keyword = instruction.keyword.value.to_ascii_uppercase();
        for pair in pairs.iter().filter(|pair| pair.legacy) {
            let message = format!(
                "`{keyword} key=value` should be used instead of the legacy `{keyword} key value`"
            );
            let (name, value) = (&pair.name.value, pair.value.value.as_str());
            let plain = !value.contains([' ', '\t', '"', '\'', '\\', '$']);
            let help = if plain {
                format!("write `{keyword} {name}={value}`")
            } else {
                format!("write `{keyword} {name}=\"…\"`")
            };
            let span = instruction.span;
            found.push(
                Diagnostic::warning(codes::LEGACY_KEY_VALUE_FORMAT, span, message)
                    .label(pair.name.span, "expected `=` after this")
                    .help(help)
                    .maybe_fix([with_equals_sign(analysis, &keyword, pair)]),
            );
        }
    }
}

/// Replaces the blanks by `=`, and quotes the value where needed.
fn with_equals_sign(analysis: &Analysis<'_>, keyword: &str, pair: &Pair) -> Option<Edit> {
    let between = analysis.source.get(pair.name.span.end..pair.value.span.start)?;
    let in_one_piece = is_verbatim(analysis.source, &pair.name)
        && is_verbatim(analysis.source, &pair.value)
        && between.bytes().all(|byte| byte == b' ' || byte == b'\t');
    if !in_one_piece {
        return None;
    }
    let (escape, value) = (analysis.file.escape(), &pair.value.value);
    let reads = |env: &expand::Lookup<'_>| Some(expand::word(value, escape, env).ok()?.value);
    let text = quoted_for_pair(escape, keyword, &pair.name.value, value, &reads)?;
    let span = Span::new(pair.name.span.end, pair.value.span.end);
    Some(Edit::new(span, format!("={text}")))
}
