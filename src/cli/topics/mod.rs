//! The pages of `docs/`, compiled in: `rbuild help TOPIC`, and the manual pages `rbuild-TOPIC(7)`.

mod manual;
mod markdown;
mod terminal;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use crate::diag::nearest;

use super::args;
use super::args::default_command::command_at;
use super::display::stdout;
use super::display::stdout::say;
use super::environment::Environment;
use super::error::CliError;
use super::exit::Exit;
use super::images::config_text::one_line;

/// A page of the documentation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Topic {
    /// The file's name without `.md`.
    name: &'static str,
    /// The text, in Markdown.
    markdown: &'static str,
}

/// Declares the pages by the names of their files.
macro_rules! topics {
    ($($name:literal),* $(,)?) => {
        [$(Topic {
            name: $name,
            markdown: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/", $name, ".md")),
        }),*]
    };
}

/// All pages; `tests/suite/topics.rs` compares them with the files of `docs/`.
const TOPICS: [Topic; 13] = topics![
    "bake",
    "caches",
    "ci",
    "cli",
    "debugging",
    "docker",
    "kaniko",
    "outputs",
    "progress-json",
    "registries",
    "reproducible",
    "security",
    "store",
];

/// Shows what `rbuild help WORD` asks for, if that is a topic, or neither a topic nor a command.
///
/// A word may be both: `rbuild help store` shows the help of the command, then the page.
/// Returns `None` for everything that clap answers.
pub(super) fn help(typed: &[OsString], environment: &Environment) -> Option<Result<(), CliError>> {
    let at = command_at(typed)?;
    if typed.get(at)? != "help" {
        return None;
    }
    let [word] = typed.get(at + 1..)? else { return None };
    let word = word.to_str()?;
    let commands = args::command();
    let is_command = commands.find_subcommand(word).is_some() || word == "help";
    if word == "topics" {
        list();
        return Some(Ok(()));
    }
    let Some(topic) = TOPICS.iter().find(|topic| topic.name == word) else {
        let is_option = word.starts_with('-');
        return (!is_command && !is_option).then(|| Err(unknown(word, &commands)));
    };
    if is_command && let Err(command_help) = args::parse(typed.iter().cloned()) {
        stdout::help(&command_help);
        say!();
    }
    let colours = environment.colour && io::stdout().is_terminal();
    for line in terminal::lines(&markdown::blocks(topic.markdown), colours) {
        stdout::line(&line, colours);
    }
    Some(Ok(()))
}

/// Prints the name of each topic and what it is about.
fn list() {
    let width = TOPICS.iter().map(|topic| topic.name.len()).max().unwrap_or(0);
    for topic in &TOPICS {
        let summary = markdown::summary(&markdown::blocks(topic.markdown));
        say!("{:width$}  {summary}", topic.name);
    }
}

/// Returns the error for a word that names nothing to show, with a similar name.
fn unknown(word: &str, commands: &clap::Command) -> CliError {
    let names = TOPICS.iter().map(|topic| topic.name);
    let names = names.chain(commands.get_subcommands().map(clap::Command::get_name));
    let help = nearest(word, names).map_or_else(
        || "`rbuild help topics` lists the topics, `rbuild -h` the commands".to_owned(),
        |near| format!("did you mean `rbuild help {near}`?"),
    );
    let text = format!("error: no command or topic is called `{}`\nhelp: {help}", one_line(word));
    CliError::new(text, Exit::Usage)
}

/// Returns the path and the text of each manual page, for a directory of pages.
///
/// These pages belong to section 7, so they go into `man7` if the directory is called `man1`.
pub(super) fn manual_pages(directory: &Path) -> Vec<(PathBuf, String)> {
    let is_section_1 = directory.file_name().is_some_and(|name| name == "man1");
    let directory = if is_section_1 { directory.with_file_name("man7") } else { directory.into() };
    let page = |topic: &Topic| {
        let text = manual::page(topic.name, &markdown::blocks(topic.markdown));
        (directory.join(format!("rbuild-{}.7", topic.name)), text)
    };
    TOPICS.iter().map(page).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_renders_on_a_terminal_and_as_a_manual_page() {
        for topic in TOPICS {
            let blocks = markdown::blocks(topic.markdown);
            assert!(markdown::summary(&blocks).len() > 20, "{}", topic.name);
            for colours in [false, true] {
                let lines = terminal::lines(&blocks, colours);
                assert!(lines.len() > 30, "{}", topic.name);
                let text = lines.join("\n");
                assert!(!text.contains("](") && !text.contains("|---"), "{text}");
                assert_eq!(colours, text.contains('\u{1b}'), "{}", topic.name);
            }
            let page = manual::page(topic.name, &blocks);
            assert!(page.contains(".SH NAME\n") && !page.contains("]("), "{page}");
        }
    }
}
