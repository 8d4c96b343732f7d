//! `type=gha` of `--cache-from` and `--cache-to`, with the attributes of BuildKit
//! (<https://docs.docker.com/build/cache/backends/gha/>).

use std::time::Duration;

use crate::registry::ActionsOptions;

use super::bucket_options::Variables;

/// The attributes of `type=gha`.
pub(crate) const NAMES: [&str; 8] =
    ["scope", "timeout", "url", "url_v2", "token", "version", "repository", "ghtoken"];

/// BuildKit's default of `timeout`.
const TIMEOUT: Duration = Duration::from_secs(600);
/// BuildKit's default of `scope`.
const SCOPE: &str = "buildkit";
/// Maximum length of a scope in bytes: GitHub limits keys to 512.
const MAX_SCOPE_BYTES: usize = 400;

/// Parses fields (name, value), all of them of [`NAMES`]. Address and token may be missing, as outside of
/// GitHub: that is an error of the cache when it is used, which is a warning like any other.
pub(crate) fn cache(
    fields: &[(String, String)],
    variables: Variables<'_>,
) -> Result<ActionsOptions, String> {
    let given = |name: &str| {
        let found = fields.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    };
    let variable = |name: &str| variables(name).filter(|value| !value.is_empty());
    if let Some(version) = given("version").filter(|version| version != "2") {
        return Err(format!("version={version} is not supported: GitHub has version 2 only"));
    }
    let scope = given("scope").unwrap_or_else(|| SCOPE.to_owned());
    // A comma separates keys; `#` begins the number of a version.
    if scope.len() > MAX_SCOPE_BYTES
        || scope.contains([',', '#'])
        || scope.contains(char::is_control)
    {
        return Err(format!("scope={} is not valid in a key", scope.escape_debug()));
    }
    let timeout = match given("timeout") {
        None => TIMEOUT,
        Some(text) => humantime::parse_duration(&text)
            .map_err(|_bad| format!("timeout={text} is not a time such as 10m"))?,
    };
    let url = given("url_v2").or_else(|| given("url")).or_else(|| variable("ACTIONS_RESULTS_URL"));
    let token = given("token").or_else(|| variable("ACTIONS_RUNTIME_TOKEN"));
    let repository = given("repository").or_else(|| variable("GITHUB_REPOSITORY"));
    Ok(ActionsOptions { url, token, repository: repository.unwrap_or_default(), scope, timeout })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<ActionsOptions, String> {
        let pairs = text.split(',').filter_map(|field| field.split_once('='));
        let fields: Vec<(String, String)> =
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        cache(&fields, &|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn attributes_come_before_the_environment() {
        let environment = [
            ("ACTIONS_RESULTS_URL", "https://r.example/"),
            ("ACTIONS_RUNTIME_TOKEN", "t"),
            ("GITHUB_REPOSITORY", "o/r"),
        ];
        let want = ActionsOptions {
            url: Some("https://r.example/".to_owned()),
            token: Some("t".to_owned()),
            repository: "o/r".to_owned(),
            scope: "buildkit".to_owned(),
            timeout: TIMEOUT,
        };
        assert_eq!(read("", &environment), Ok(want));
        let text = "url=http://a/,url_v2=http://b/,token=u,scope=main,timeout=90s,version=2,ghtoken=g,repository=x/y";
        let want = ActionsOptions {
            url: Some("http://b/".to_owned()),
            token: Some("u".to_owned()),
            repository: "x/y".to_owned(),
            scope: "main".to_owned(),
            timeout: Duration::from_secs(90),
        };
        assert_eq!(read(text, &environment), Ok(want));
        let nothing = read("", &[("ACTIONS_RUNTIME_TOKEN", "")]).unwrap();
        assert_eq!((nothing.url, nothing.token), (None, None));
    }

    #[test]
    fn invalid_attributes_are_refused() {
        for (text, part) in [
            ("version=1", "version=1 is not supported"),
            ("scope=a#b", "scope=a#b is not valid"),
            ("timeout=soon", "timeout=soon is not a time"),
        ] {
            let error = read(text, &[]).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
