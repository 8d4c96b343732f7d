//! Google's Container Registry and Artifact Registry: a service account, by its key or by the metadata
//! server (<https://cloud.google.com/artifact-registry/docs/docker/authentication>).

use std::time::Duration;

use serde_json::Value;

use super::exchange::{Exchange, Login, Question, text};

/// The metadata server of virtual machines, of GKE and of Cloud Run.
const METADATA_HOST: &str = "metadata.google.internal";
/// The file in which the firmware names the machine. Google's libraries read it, too
/// (`systemInfoSuggestsGCE` in cloud.google.com/go/compute/metadata).
const PRODUCT_FILE: &str = "/sys/class/dmi/id/product_name";

/// Returns whether `host` is a registry of Google.
pub(super) fn serves(host: &str) -> bool {
    host == "gcr.io" || host.ends_with(".gcr.io") || host.ends_with(".pkg.dev")
}

/// Returns the login of the service account. `None` if there is none.
pub(super) fn login(exchange: &Exchange<'_>) -> Result<Option<Login>, String> {
    if let Some(path) = exchange.variable("GOOGLE_APPLICATION_CREDENTIALS") {
        let file = exchange.read(path)?;
        let document: Option<Value> = serde_json::from_str(&file).ok();
        let kind = document.as_ref().and_then(|document| text(document, "type"));
        if kind == Some("service_account") {
            return Ok(Some(Login::of_user("_json_key", &file, None)));
        }
        let kind = kind.unwrap_or("unknown");
        return Err(format!(
            "GOOGLE_APPLICATION_CREDENTIALS: rbuild reads keys of service accounts only, not the type {kind}"
        ));
    }
    of_metadata_server(exchange)
}

/// Asks the metadata server. Elsewhere than at Google, nothing is sent: a name lookup could take long.
fn of_metadata_server(exchange: &Exchange<'_>) -> Result<Option<Login>, String> {
    let given = exchange.variable("GCE_METADATA_HOST");
    let is_google = || {
        exchange.variable("K_SERVICE").is_some()
            || exchange.read(PRODUCT_FILE).is_ok_and(|name| name.contains("Google"))
    };
    if given.is_none() && !is_google() {
        return Ok(None);
    }
    let host = given.unwrap_or(METADATA_HOST);
    let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
    let what = "the metadata server of Google";
    let answer = exchange.json(&Question::get(url).header("metadata-flavor", "Google"), what)?;
    let token = text(&answer, "access_token");
    let token = token.ok_or_else(|| format!("the response of {what} has no token"))?;
    let lifetime = answer.get("expires_in").and_then(Value::as_u64).map(Duration::from_secs);
    Ok(Some(Login::of_user("oauth2accesstoken", token, lifetime)))
}
