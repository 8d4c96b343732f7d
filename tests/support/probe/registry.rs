//! Any bytes as what registries, token servers, buckets, credential helpers and docker's `config.json` say.

use rbuild::registry::probes;

/// Reads `bytes` as each of them. No error quotes what may be a secret.
pub(crate) fn probe(bytes: &[u8]) {
    for (host, succeeded) in [("registry.example:5000", true), ("docker.io", false)] {
        if let Err(error) = probes::docker_config(bytes, host) {
            assert!(!error.is_empty());
        }
        let _ = probes::helper_answer(succeeded, bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(realm) = probes::challenge(text) {
        assert!(realm.len() <= text.len());
    }
    let shown = probes::bucket_error(text);
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
}
