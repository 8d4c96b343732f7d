//! A terminal that a test can read, with its own tmux server.
#![expect(clippy::panic, clippy::unwrap_used, reason = "tests panic on failure")]

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::env::Env;

/// Time limit of each wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal in which a program runs.
#[derive(Debug)]
pub(crate) struct Terminal<'a> {
    env: &'a Env,
    socket: PathBuf,
}

impl<'a> Terminal<'a> {
    /// Runs rbuild with these arguments in a terminal of this size. When it ends, `exit=` and its
    /// status are printed below. Words with `=` before the first word without are environment
    /// variables.
    pub(crate) fn rbuild(env: &'a Env, size: (u16, u16), args: &[&str]) -> Self {
        let n_variables = args.iter().take_while(|word| word.contains('=')).count();
        let (variables, args) = args.split_at(n_variables);
        let quoted = |word: &&str| format!("'{word}'");
        let words = |words: &[&str]| words.iter().map(quoted).collect::<Vec<_>>().join(" ");
        let (variables, args) = (words(variables), words(args));
        let program = env!("CARGO_BIN_EXE_rbuild");
        // The shell lives as long as the terminal. Signals that end rbuild do not end it.
        Self::shell(
            env,
            size,
            &format!(
                "trap : INT QUIT\nenv {variables} '{program}' --root store {args}\n\
                 echo \"exit=$?\"\nexec sleep 1000"
            ),
        )
    }

    /// Runs a shell script.
    pub(crate) fn shell(env: &'a Env, (columns, rows): (u16, u16), script: &str) -> Self {
        let socket = (0..).map(|n| env.path(&format!("tmux.{n}"))).find(|path| !path.exists());
        let terminal = Self { env, socket: socket.unwrap() };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        terminal.tmux(&["new-session", "-d", "-x", &columns, "-y", &rows, script]);
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = self.env.program("tmux");
        command.args(["-u", "-f", "/dev/null", "-S"]).arg(&self.socket).args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the screen, without blank lines at its end.
    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).trim_end().to_owned()
    }

    /// Returns the screen with its colour sequences.
    pub(crate) fn colours(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"]).trim_end().to_owned()
    }

    /// Returns the screen and everything scrolled off it, with wrapped lines joined.
    pub(crate) fn all(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-J", "-S", "-"]).trim_end().to_owned()
    }

    /// Returns the cursor's position, from 0, or `None` if it is hidden.
    pub(crate) fn cursor(&self) -> Option<(u16, u16)> {
        let text = self.tmux(&["display", "-p", "#{cursor_flag} #{cursor_x} #{cursor_y}"]);
        let numbers: Vec<u16> = text.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let [is_shown, x, y] = numbers.try_into().unwrap();
        (is_shown == 1).then_some((x, y))
    }

    /// Types keys, by their tmux names.
    pub(crate) fn keys(&self, keys: &str) {
        self.tmux(&["send-keys", keys]);
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// Waits until `is` returns true for the screen. Returns the screen.
    #[track_caller]
    pub(crate) fn until(&self, is: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            assert!(start.elapsed() < PATIENCE, "it never came:\n{screen}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Waits until all parts are on the screen. Returns the screen.
    #[track_caller]
    pub(crate) fn until_shown(&self, parts: &[&str]) -> String {
        self.until(|screen| parts.iter().all(|part| screen.contains(part)))
    }

    /// Waits until rbuild has ended, and checks its exit status. Returns everything that it left on
    /// the terminal.
    #[track_caller]
    pub(crate) fn ended(&self, code: i32) -> Vec<String> {
        self.until(|screen| screen.contains("exit="));
        let all = self.all();
        let Some((left, exit)) = all.rsplit_once("exit=") else { panic!("{all}") };
        assert_eq!(exit.trim(), code.to_string(), "{all}");
        assert!(self.cursor().is_some(), "the cursor is hidden");
        left.lines().map(|line| line.trim_end().to_owned()).collect()
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let mut command = self.env.program("tmux");
        drop(command.arg("-S").arg(&self.socket).arg("kill-server").output());
        // The server confirms before it ends.
        let start = Instant::now();
        let socket = self.socket.to_str().unwrap();
        let lives = || self.env.processes().iter().any(|process| process.contains(socket));
        while start.elapsed() < PATIENCE && lives() {
            sleep(Duration::from_millis(5));
        }
    }
}
