//! The scopes in the token of a job: branches whose caches it may read or write.
//!
//! The token is a JWT (RFC 7519). Its claim `ac` is a text with a list of scopes. Its signature is not
//! checked: the server does that.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Bit of a permission to write.
const WRITE: u32 = 2;

/// A scope of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenScope {
    /// Name of a branch, such as `refs/heads/main`.
    pub(super) name: String,
    pub(super) is_writable: bool,
}

#[derive(Deserialize)]
struct Claims {
    ac: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Access {
    scope: String,
    permission: u32,
}

/// Returns the scopes of a token. A token without any, as servers other than GitHub's have it, has one
/// scope without a name.
pub(super) fn scopes(token: &str) -> Vec<TokenScope> {
    parsed(token)
        .filter(|scopes| !scopes.is_empty())
        .unwrap_or_else(|| vec![TokenScope { name: String::new(), is_writable: true }])
}

fn parsed(token: &str) -> Option<Vec<TokenScope>> {
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    let access: Vec<Access> = serde_json::from_str(&claims.ac).ok()?;
    let scope = |Access { scope, permission }| TokenScope {
        name: scope,
        is_writable: permission & WRITE != 0,
    };
    Some(access.into_iter().map(scope).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a token with this claim.
    pub(in crate::registry::actions_cache) fn token(access: &str) -> String {
        let payload = serde_json::json!({ "ac": access, "exp": 1 }).to_string();
        format!("e30.{}.x", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn scopes_are_read_from_the_claim() {
        let access = r#"[{"Scope":"refs/pull/7/merge","Permission":3},{"Scope":"refs/heads/main","Permission":1}]"#;
        let scope = |name: &str, is_writable| TokenScope { name: name.to_owned(), is_writable };
        let want = [scope("refs/pull/7/merge", true), scope("refs/heads/main", false)];
        assert_eq!(scopes(&token(access)), want);
        for other in ["", "opaque", "a.!.c", "e30.e30.x", &token("[]"), &token("{")] {
            assert_eq!(scopes(other), [scope("", true)], "{other}");
        }
    }
}
