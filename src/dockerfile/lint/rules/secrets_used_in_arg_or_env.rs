//! `SecretsUsedInArgOrEnv`: secrets should not be in ARG or ENV.
//!
//! ARG and ENV stay in the config and history of the image, where anyone who has the image can read them.
//! A name is suspicious if one of its parts between `_` is a word such as `password`, unless another part
//! is `public`, `file` or `version`.
//!
//! <https://docs.docker.com/reference/build-checks/secrets-used-in-arg-or-env/>
//!
//! Bad:
//! ```dockerfile
//! ARG AWS_SECRET_ACCESS_KEY
//! ```
//! Good:
//! ```dockerfile
//! RUN --mount=type=secret,id=aws,env=AWS_SECRET_ACCESS_KEY ./deploy
//! ```

use crate::diag::{Diagnostic, codes};
use crate::dockerfile::ir::{Kind, Word};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;

pub(super) const RULE: Rule = Rule::new(codes::SECRETS_USED_IN_ARG_OR_ENV, check);

const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];
const HARMLESS: [&str; 3] = ["public", "file", "version"];

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    for instruction in analysis.checked_instructions() {
        let names: Vec<&Word> = if let Kind::Arg(args) = &instruction.kind {
            args.iter().map(|arg| &arg.name).collect()
        } else if let Kind::Env(pairs) = &instruction.kind {
            pairs.iter().map(|pair| &pair.name).collect()
        } else {
            continue;
        };
        let keyword = instruction.keyword.value.to_ascii_uppercase();
        for name in names.into_iter().filter(|name| is_secret(&name.value)) {
            let message =
                format!("do not use ARG or ENV for sensitive data ({keyword} \"{}\")", name.value);
            let help = "mount the secret where it is needed: `RUN --mount=type=secret,id=…`";
            found.push(
                Diagnostic::warning(codes::SECRETS_USED_IN_ARG_OR_ENV, name.span, message)
                    .label(name.span, "anyone who has the image can read this")
                    .help(help),
            );
        }
    }
}

/// Returns whether a variable with this name is likely to be a secret.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    let has = |words: &[&str]| {
        name.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
    };
    has(&SECRET) && !has(&HARMLESS)
}
