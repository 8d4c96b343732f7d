//! `rbuild login [REGISTRY]` and `rbuild logout [REGISTRY]`

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

/// Longer than any password or token.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;

type Result<T> = std::result::Result<T, CliError>;

pub(crate) fn login(args: &LoginArgs, environment: &Environment) -> Result<()> {
    let directory = config_directory(environment)?;
    let registry = registry(&args.registry);
    let user = match &args.username {
        Some(user) => user.clone(),
        None => ask(&format!("user for {registry}: "), true)?,
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
        return Err(usage("login needs a user and a password"));
    }
    let failed = |error: RegistryError| CliError::from_error(&error, Exit::Environment);
    let client = registries::client_for(environment, registry, &user, &password)?;
    check_login(&client, registry).map_err(failed)?;
    let kept = store_login(&directory, registry, &user, &password).map_err(failed)?;
    let place = match kept {
        CredentialStore::Helper(name) => format!("docker-credential-{name} has the password"),
        CredentialStore::File => {
            let file = directory.join("config.json");
            format!("the password is in {}, unencrypted", file.display())
        }
    };
    say!("logged in to {registry}; {place}");
    Ok(())
}

pub(crate) fn logout(args: &LogoutArgs, environment: &Environment) -> Result<()> {
    let directory = config_directory(environment)?;
    let registry = registry(&args.registry);
    let forgot = erase_login(&directory, registry)
        .map_err(|error| CliError::from_error(&error, Exit::Environment))?;
    let said = if forgot { "logged out of" } else { "there was no login to" };
    say!("{said} {registry}");
    Ok(())
}

/// Docker Hub under all its names is one registry.
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
    environment.docker_config().ok_or_else(|| usage("there is no HOME: set DOCKER_CONFIG"))
}

/// Asks on the terminal; what is typed is shown or not.
pub(super) fn ask(prompt: &str, echoes: bool) -> Result<String> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(usage("without a terminal, give --username and --password-stdin"));
    }
    let failed = |error: std::io::Error| usage(&format!("cannot ask: {error}"));
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
        // If this fails, so does every further use of the terminal.
        let _restored = rustix::termios::tcsetattr(&input, OptionalActions::Flush, &before);
        let _newline = out.write_all(b"\n");
    }
    read.map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
