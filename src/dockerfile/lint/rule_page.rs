//! Addresses of the pages that document build checks.

use crate::diag::{Code, codes};

use super::rules;

/// Prefix of the pages that document BuildKit's rules; see
/// <https://docs.docker.com/reference/build-checks/>.
const RULE_PAGE: &str = "https://docs.docker.com/go/dockerfile/rule";

/// Returns the address of the page that documents a rule; `None` for other codes.
#[must_use]
pub fn rule_page(code: Code) -> Option<String> {
    if code == codes::COPY_DESTINATION_SLASH {
        // This rule is not one of BuildKit's: the reference of COPY states it.
        return Some("https://docs.docker.com/reference/dockerfile/#copy".to_owned());
    }
    let is_rule = rules().iter().any(|rule| rule.code == code);
    is_rule.then(|| format!("{RULE_PAGE}/{}/", kebab(code.as_str())))
}

/// Converts a rule name to the form of its page: `StageNameCasing` to `stage-name-casing`.
fn kebab(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut text = String::new();
    for (at, char) in chars.iter().enumerate() {
        let lower = |at: usize| chars.get(at).is_some_and(char::is_ascii_lowercase);
        let starts = char.is_ascii_uppercase() && at > 0;
        if starts && (lower(at.saturating_sub(1)) || lower(at + 1)) {
            text.push('-');
        }
        text.push(char.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::kebab;

    #[test]
    fn rule_names_become_page_names() {
        for (name, want) in [
            ("StageNameCasing", "stage-name-casing"),
            ("JSONArgsRecommended", "json-args-recommended"),
            ("UndefinedVar", "undefined-var"),
            ("FromAsCasing", "from-as-casing"),
        ] {
            assert_eq!(kebab(name), want);
        }
    }
}
