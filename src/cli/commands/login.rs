//! `rbuild login [REGISTRY]` and `rbuild logout [REGISTRY]`: credentials in docker's `config.json` or
//! its credential helpers.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use rustix::termios::{LocalModes, OptionalActions};

use super::{CliError, Environment, Exit};
use crate::cli::args::transfer::{LoginArgs, LogoutArgs};
use crate::cli::display::stderr;
use crate::cli::display::stdout::say;
use crate::cli::display::text::shown;
use crate::cli::registries;
use crate::registry::{CredentialStore, RegistryError, check_login, erase_login, store_login};

/// Limit on `--password-stdin`: longer than any password or token.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;

type Result<T> = std::result::Result<T, CliError>;

/// Checks the credentials with the registry, then stores them.
pub(crate) fn login(args: &LoginArgs, environment: &Environment) -> Result<()> {
    let directory = config_directory(environment)?;
    let registry = registry(&args.registry);
    let user = match &args.username {
        Some(user) => user.clone(),
        None => ask(&format!("user name for {registry}: "), true)?,
    };
    let password = match (&args.password, args.password_stdin) {
        (Some(password), _) => {
            stderr::remark(
                "warning: others can see a password on the command line; better use --password-stdin",
            );
            password.clone()
        }
        (None, true) => {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(MAX_PASSWORD_BYTES).read_to_string(&mut text);
            read.map_err(|error| usage(&format!("cannot read standard input: {error}")))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        (None, false) => ask("password: ", false)?,
    };
    if user.is_empty() || password.is_empty() {
        return Err(usage("the user name and the password must not be empty"));
    }
    let failed = |error: RegistryError| CliError::from_error(&error, Exit::Environment);
    let client = registries::client_for(environment, registry, &user, &password)?;
    check_login(&client, registry).map_err(failed)?;
    let kept = store_login(&directory, registry, &user, &password).map_err(failed)?;
    let storage = match kept {
        CredentialStore::Helper(name) => {
            format!("the password is stored by docker-credential-{name}")
        }
        CredentialStore::File => {
            let file = directory.join("config.json");
            format!("the password is stored unencrypted in {}", file.display())
        }
    };
    say!("logged in to {registry}; {storage}");
    Ok(())
}

/// Removes the stored credentials of a registry.
pub(crate) fn logout(args: &LogoutArgs, environment: &Environment) -> Result<()> {
    let directory = config_directory(environment)?;
    let registry = registry(&args.registry);
    let was_logged_in = erase_login(&directory, registry)
        .map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    let done = if was_logged_in { "logged out of" } else { "not logged in to" };
    say!("{done} {registry}");
    Ok(())
}

/// Returns the host of a registry. Docker Hub has several, and one login for all of them.
fn registry(text: &str) -> &str {
    let host = text.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

fn usage(text: &str) -> CliError {
    CliError::new(format!("error: {text}"), Exit::Usage)
}

fn config_directory(environment: &Environment) -> Result<PathBuf> {
    environment.docker_config().ok_or_else(|| usage("HOME is not set: set DOCKER_CONFIG"))
}

/// Prompts on the terminal and reads a line. Without `echoes`, the terminal does not show it.
pub(super) fn ask(prompt: &str, echoes: bool) -> Result<String> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(usage("standard input is not a terminal: use --username and --password-stdin"));
    }
    let failed = |error: std::io::Error| usage(&format!("cannot prompt on the terminal: {error}"));
    let mut out = std::io::stderr();
    out.write_all(shown(prompt, false).as_bytes()).and_then(|()| out.flush()).map_err(failed)?;
    let before = rustix::termios::tcgetattr(&input).map_err(|error| failed(error.into()))?;
    if !echoes {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        rustix::termios::tcsetattr(&input, OptionalActions::Flush, &silent)
            .map_err(|error| failed(error.into()))?;
    }
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    if !echoes {
        // If this fails, the terminal is gone, and nothing is left to restore.
        let _restored = rustix::termios::tcsetattr(&input, OptionalActions::Flush, &before);
        let _newline = out.write_all(b"\n");
    }
    read.map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
