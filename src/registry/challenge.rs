//! Parser of `WWW-Authenticate` (RFC 9110, section 11.6.1): the authentication schemes that a
//! registry offers.

/// An authentication scheme that rbuild supports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password in each request (RFC 7617).
    Basic,
    /// A token from a token server
    /// (<https://distribution.github.io/distribution/spec/auth/token/>).
    Bearer(Bearer),
}

/// The parameters of a bearer challenge (RFC 6750, section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) realm: String,
    pub(super) service: Option<String>,
    /// The scopes that the refused request needs, separated by spaces.
    pub(super) scope: Option<String>,
}

/// Chooses a challenge from the header's `values`. Bearer tokens are preferred to Basic.
pub(super) fn choose(values: &[&str]) -> Option<Challenge> {
    let all: Vec<Challenge> = values.iter().flat_map(|value| parse(value)).collect();
    let bearer = all.iter().find(|challenge| matches!(challenge, Challenge::Bearer(_)));
    bearer.or_else(|| all.first()).cloned()
}

/// Parses the supported challenges of one header value, in order. Unreadable parts are skipped.
fn parse(value: &str) -> Vec<Challenge> {
    let mut rest = value;
    let mut raw: Vec<(String, Vec<(String, String)>)> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let after_blank = after.trim_start_matches([' ', '\t']);
        if let Some(after_equals) = after_blank.strip_prefix('=') {
            let (text, after) = parameter_value(after_equals.trim_start_matches([' ', '\t']));
            if let Some((_, parameters)) = raw.last_mut() {
                parameters.push((word.to_ascii_lowercase(), text));
            }
            rest = after;
        } else {
            raw.push((word.to_ascii_lowercase(), Vec::new()));
            rest = after_blank;
        }
    }
    raw.into_iter().filter_map(|(scheme, parameters)| challenge(&scheme, parameters)).collect()
}

fn challenge(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    let (mut realm, mut service, mut scope) = (None, None, None);
    for (name, value) in parameters {
        match name.as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value),
            _ => {}
        }
    }
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer(Bearer { realm: realm?, service, scope })),
        _ => None,
    }
}

/// Splits a token (RFC 9110, section 5.6.2) off the front. Accepts the characters of token68
/// (section 11.2) as well, so that a scheme that carries one is skipped whole.
fn token(text: &str) -> (&str, &str) {
    let ends = |c: char| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~/".contains(c);
    text.split_at_checked(text.find(ends).unwrap_or(text.len())).unwrap_or(("", ""))
}

/// Splits a token or a quoted string (RFC 9110, section 5.6.4) off the front and removes the
/// quotes.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        // Some servers do not quote addresses.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at_checked(end).unwrap_or(("", ""));
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => value.extend(chars.next()),
            _ => value.push(c),
        }
    }
    (value, chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer(Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        })
    }

    #[test]
    fn challenges_of_real_servers_are_parsed() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull,push""#;
        let cases: [(&str, Vec<Challenge>); 11] = [
            (
                hub,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/x:pull,push"),
                )],
            ),
            (r#"Basic realm="Registry""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Basic realm="a, b=\"c\"", BEARER Realm = "r" , service=s"#,
                vec![Challenge::Basic, bearer("r", Some("s"), None)],
            ),
            (r#"Negotiate YII/a+b==, Bearer realm="r""#, vec![bearer("r", None, None)]),
            (
                "Bearer realm=https://a.example/t?x=1,service=b",
                vec![bearer("https://a.example/t?x=1", Some("b"), None)],
            ),
            (r#"Bearer service="no realm""#, vec![]),
            (r#"Bearer realm="unended"#, vec![bearer("unended", None, None)]),
            (r#"realm="r""#, vec![]),
            ("", vec![]),
            ("\u{e9}, =,;", vec![]),
        ];
        for (value, want) in cases {
            assert_eq!(parse(value), want, "{value}");
        }
    }

    #[test]
    fn tokens_are_preferred_to_passwords() {
        assert_eq!(choose(&["Basic", r#"Bearer realm="r""#]), Some(bearer("r", None, None)));
        assert_eq!(choose(&["Negotiate", "Basic"]), Some(Challenge::Basic));
        assert_eq!(choose(&["Negotiate"]), None);
    }
}
