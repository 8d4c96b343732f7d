//! Definitions of a repository or an archive, which are fetched like a context.

use std::sync::Arc;

use crate::bake::DefinitionFile;
use crate::cli::args::Global;
use crate::cli::commands::{open_store, with_services};
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::inputs::bake_files;
use crate::cli::inputs::contexts::{fetch_error, remote};
use crate::executor::{self, Provided, Services};
use crate::plan::redacted;

/// Variables with logins for repositories, and the secrets that they stand for.
const LOGINS: [(&str, &str); 2] = [
    ("BUILDX_BAKE_GIT_AUTH_TOKEN", "GIT_AUTH_TOKEN"),
    ("BUILDX_BAKE_GIT_AUTH_HEADER", "GIT_AUTH_HEADER"),
];

/// Fetches the repository or archive, and reads definition files of it. Also returns the URL below which
/// contexts are: none if the URL is that of a single file.
pub(super) fn read(
    url: &str,
    names: &[String],
    global: &Global,
    environment: &Environment,
) -> Result<(Vec<DefinitionFile>, Option<String>), CliError> {
    let source = remote(url)?.ok_or_else(|| {
        let text = format!("error: {}: not a repository or an archive", redacted(url));
        CliError::new(text, Exit::Usage)
    })?;
    let mut provided = Provided::default();
    for (variable, id) in LOGINS {
        if let Some(value) = environment.get(variable) {
            provided.secrets.insert(id.to_owned(), Arc::from(value.as_bytes()));
        }
    }
    let store = open_store(global, environment)?;
    with_services(&store, environment, |services| {
        let services = Services { provided: &provided, ..*services };
        let fetched = executor::fetch_context(&services, &source, environment.now_s);
        let fetched = fetched.map_err(|error| fetch_error(&error))?;
        let files = bake_files::read_fetched(&fetched, names, environment)?;
        let has_contexts = fetched.single_file().is_none();
        Ok((files, has_contexts.then(|| url.to_owned())))
    })
}
