//! `JSONArgsRecommended`: CMD and ENTRYPOINT should be in JSON form.
//!
//! In shell form, a shell runs the program and receives signals such as the SIGTERM of `docker stop`. An
//! explicit SHELL shows that a shell is intended.
//!
//! <https://docs.docker.com/reference/build-checks/json-args-recommended/>
//!
//! Bad:
//! ```dockerfile
//! FROM alpine
//! CMD my-server --port 80
//! ```
//! Good:
//! ```dockerfile
//! FROM alpine
//! CMD ["my-server", "--port", "80"]
//! ```

use crate::diag::{Diagnostic, Span, codes};
use crate::dockerfile::ir::{Kind, ShellOrExec, Word};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::lint::analysis::Analysis;

pub(super) const RULE: Rule = Rule::new(codes::JSON_ARGS_RECOMMENDED, check);

fn check(analysis: &Analysis<'_>, found: &mut Vec<Diagnostic>) {
    let inherited = analysis.inherits(|kind| matches!(kind, Kind::Shell(_)));
    for (view, inherited) in analysis.stages.iter().zip(inherited) {
        if !view.is_checked {
            continue;
        }
        let mut shell_set = inherited;
        for instruction in &view.instructions {
            shell_set |= matches!(instruction.kind, Kind::Shell(_));
            let (Kind::Cmd(ShellOrExec::Shell(text)) | Kind::Entrypoint(ShellOrExec::Shell(text))) =
                &instruction.kind
            else {
                continue;
            };
            if !shell_set {
                let keyword = instruction.keyword.value.to_ascii_uppercase();
                found.push(warning(&keyword, text, instruction.span));
            }
        }
    }
}

fn warning(keyword: &str, text: &Word, span: Span) -> Diagnostic {
    let message = format!(
        "JSON arguments are recommended for {keyword} to prevent unintended behaviour related to OS signals"
    );
    let warning = Diagnostic::warning(codes::JSON_ARGS_RECOMMENDED, span, message)
        .label(text.span, "a shell runs this, and only the shell receives signals");
    warning.help(match json(&text.value) {
        Some(json) => format!("write `{keyword} {json}`"),
        None => format!(
            "write `{keyword} [\"program\", \"argument\"]`, or `exec program` in a script; \
             an explicit SHELL shows that a shell is intended"
        ),
    })
}

/// Returns the command as a JSON array, unless it has characters that a shell interprets.
fn json(command: &str) -> Option<String> {
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-=:,+@% ".contains(char);
    let words: Vec<&str> = command.split_whitespace().collect();
    let assignment = words.first().is_some_and(|first| first.contains('='));
    if !command.chars().all(plain) || assignment {
        return None;
    }
    let quoted: Vec<String> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
    Some(format!("[{}]", quoted.join(", ")))
}
