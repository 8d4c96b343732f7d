//! `--secret` and `--ssh`: secrets and SSH agents for RUN steps.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::args::build::BuildArgs;
use crate::cli::environment::Environment;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::executor::{AgentSource, Provided, SshKey};
use crate::pathio;

/// Maximum length of a secret, as in BuildKit.
const MAX_SECRET_BYTES: u64 = 500 << 10;

/// Maximum length of a key file. The longest keys have a few thousand bytes.
const MAX_KEY_BYTES: u64 = 100 << 10;

type Result<T> = std::result::Result<T, CliError>;

/// Reads the values of all secrets, and finds the agents.
pub(crate) fn read_all(args: &BuildArgs, environment: &Environment) -> Result<Provided> {
    let mut provided = Provided::default();
    for text in &args.secret {
        let (id, value) = secret(text, environment)?;
        if let Some(value) = value {
            provided.secrets.insert(id, value);
        }
    }
    for text in &args.ssh {
        let (id, source) = agent(text, environment)?;
        provided.agents.insert(id, source);
    }
    Ok(provided)
}

/// Returns the id of a `--secret`, if it is valid.
pub(crate) fn secret_id(text: &str) -> Option<String> {
    secret_spec(text).ok().map(|spec| spec.id)
}

/// Returns the id of an `--ssh`.
pub(crate) fn agent_id(text: &str) -> &str {
    match text.split_once('=').unwrap_or((text, "")).0 {
        "" => "default",
        id => id,
    }
}

fn usage(text: impl std::fmt::Display) -> CliError {
    CliError::new(format!("error: {text}"), Exit::Usage)
}

/// The parsed value of a `--secret`.
#[derive(Debug, Default, PartialEq, Eq)]
struct SecretSpec {
    id: String,
    source: Option<String>,
    env: Option<String>,
}

/// Reads one `--secret`. The value is `None` if its environment variable is not set.
fn secret(text: &str, environment: &Environment) -> Result<(String, Option<Arc<[u8]>>)> {
    let spec = secret_spec(text).map_err(|why| usage(format!("--secret {text}: {why}")))?;
    let variable = |name: &str| environment.get_or_empty(name).map(|value| value.as_bytes().into());
    let value = match (&spec.source, &spec.env) {
        (Some(path), _) => Some(read(Path::new(path), &spec.id)?),
        (None, Some(name)) => variable(name),
        (None, None) => match variable(&spec.id) {
            Some(value) => Some(value),
            None => Some(read(Path::new(&spec.id), &spec.id)?),
        },
    };
    Ok((spec.id, value))
}

fn read(path: &Path, id: &str) -> Result<Arc<[u8]>> {
    let value = pathio::read(path, MAX_SECRET_BYTES)
        .map_err(|error| usage(format!("the secret `{id}`: {}", crate::executor::chain(&error))))?;
    Ok(value.into())
}

fn secret_spec(text: &str) -> std::result::Result<SecretSpec, String> {
    let mut spec = SecretSpec::default();
    let mut kind = None;
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| format!("`{field}` is not `key=value`"))?;
        match key.to_ascii_lowercase().as_str() {
            "id" => value.clone_into(&mut spec.id),
            "source" | "src" => spec.source = Some(value.to_owned()),
            "env" => spec.env = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => kind = Some(value),
            "type" => return Err(format!("type `{value}` is not `file` or `env`")),
            _ => return Err(format!("unknown key `{key}`: use id, src, env or type")),
        }
    }
    if spec.id.is_empty() {
        return Err("an id is required, as in id=token,src=token.txt".to_owned());
    }
    if kind == Some("env") && spec.env.is_none() {
        spec.env = Some(spec.source.take().unwrap_or_else(|| spec.id.clone()));
    }
    if kind == Some("file") && spec.source.is_none() {
        spec.source = Some(spec.id.clone());
    }
    if spec.source.is_some() && spec.env.is_some() {
        return Err("src and env cannot be combined".to_owned());
    }
    Ok(spec)
}

/// Reads one `--ssh`: `ID`, `ID=SOCKET` or `ID=KEY,KEY`.
fn agent(text: &str, environment: &Environment) -> Result<(String, AgentSource)> {
    let (_, paths) = text.split_once('=').unwrap_or((text, ""));
    let paths: Vec<PathBuf> =
        paths.split(',').filter(|p| !p.is_empty()).map(PathBuf::from).collect();
    let id = agent_id(text);
    let bad = |why: String| usage(format!("--ssh {text}: {why}"));
    let source = match paths.as_slice() {
        [] => {
            let socket = environment.get("SSH_AUTH_SOCK").ok_or_else(|| {
                bad("SSH_AUTH_SOCK is not set: start an agent, or give a socket or a key file"
                    .to_owned())
            })?;
            AgentSource::Socket(socket.into())
        }
        [path] if is_socket(path) => AgentSource::Socket(path.clone()),
        files => AgentSource::Keys(Arc::new(keys(files).map_err(bad)?)),
    };
    Ok((id.to_owned(), source))
}

fn keys(files: &[PathBuf]) -> std::result::Result<Vec<SshKey>, String> {
    let read = |path: &PathBuf| {
        let bytes =
            pathio::read(path, MAX_KEY_BYTES).map_err(|error| crate::executor::chain(&error))?;
        SshKey::parse(&bytes).map_err(|error| format!("{}: {error}", path.display()))
    };
    files.iter().map(read).collect()
}

fn is_socket(path: &Path) -> bool {
    let kind = |about: rustix::fs::Stat| rustix::fs::FileType::from_raw_mode(about.st_mode);
    rustix::fs::stat(path).map(kind) == Ok(rustix::fs::FileType::Socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_parsed() {
        let spec = |id: &str, source: Option<&str>, env: Option<&str>| {
            let text = |text: Option<&str>| text.map(str::to_owned);
            Ok(SecretSpec { id: id.to_owned(), source: text(source), env: text(env) })
        };
        for (text, want) in [
            ("id=a", spec("a", None, None)),
            ("id=a,src=f", spec("a", Some("f"), None)),
            ("source=f,id=a", spec("a", Some("f"), None)),
            ("type=file,id=a", spec("a", Some("a"), None)),
            ("id=a,env=B", spec("a", None, Some("B"))),
            ("type=env,id=a", spec("a", None, Some("a"))),
            ("type=env,id=a,src=B", spec("a", None, Some("B"))),
            ("src=f", Err("an id is required, as in id=token,src=token.txt".to_owned())),
            ("a", Err("`a` is not `key=value`".to_owned())),
            ("id=a,src=f,env=B", Err("src and env cannot be combined".to_owned())),
            ("id=a,type=x", Err("type `x` is not `file` or `env`".to_owned())),
            ("id=a,mode=1", Err("unknown key `mode`: use id, src, env or type".to_owned())),
        ] {
            assert_eq!(secret_spec(text), want, "{text}");
        }
    }
}
