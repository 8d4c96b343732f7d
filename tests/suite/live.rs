//! The live view on the screen of a terminal.

use crate::support::env::Env;
use crate::support::registry::DockerRegistry;
use crate::support::tmux::Terminal;

/// Two stages that print and then keep running.
const BUSY: &str = "FROM base:1 AS one\n\
    RUN echo before\n\
    RUN printf 'a\\tb\\n\\033[2J\\033[3;3Hescaped\\n10%%\\r20%%\\r'; sleep 1000\n\
    FROM base:1 AS two\n\
    RUN for i in $(seq 1 30); do echo line $i; done; sleep 1001\n\
    FROM base:1\n\
    COPY --from=one /etc/passwd /one\n\
    COPY --from=two /etc/passwd /two\n";

fn env(dockerfile: &str) -> Env {
    let env = Env::new();
    env.base();
    env.write("Dockerfile", dockerfile);
    env
}

/// Waits until both stages of [`BUSY`] have printed everything. Returns the screen.
#[track_caller]
fn until_busy(terminal: &Terminal<'_>) -> String {
    let has = |screen: &str, text: &str| screen.lines().any(|line| line.trim() == text);
    terminal.until(|screen| has(screen, "20%") && has(screen, "line 30"))
}

/// Returns lines about steps without their numbers, times and ends:
/// `✔ 0 [one 2/3] RUN echo before`.
fn folded(lines: &[String]) -> Vec<String> {
    let fold = |line: &String| {
        let mut words = line.split_whitespace();
        let (sign, time) = (words.next()?, words.next()?);
        let time = if time.ends_with('s') { "0" } else { time };
        words.next().filter(|word| word.starts_with('#'))?;
        let name: String = words.collect::<Vec<_>>().join(" ");
        Some(format!("{sign} {time} {}", name.chars().take(30).collect::<String>()))
    };
    lines.iter().filter_map(fold).filter(|line| !line.contains("[internal]")).collect()
}

#[test]
fn priv_steps_that_run_at_once_are_seen_with_their_last_lines() {
    let env = env(BUSY);
    let terminal = Terminal::rbuild(&env, (80, 24), &["build", "context"]);
    let screen = until_busy(&terminal);
    let lines: Vec<&str> = screen.lines().collect();
    let at = |part: &str| lines.iter().position(|line| line.contains(part)).expect(part);
    let header = at("building ");
    assert!(lines[header].contains("s · 1/5 steps"), "{screen}");
    assert!(at("✔") < header && at("[one 2/3] RUN echo before") < header, "{screen}");
    assert!(!screen.contains("  before"), "what ended is one line:\n{screen}");
    let one = at("[one 3/3] RUN printf");
    let below = |step: usize, n: usize| -> Vec<&str> {
        lines[step + 1..].iter().map(|line| line.trim()).take(n).collect()
    };
    assert_eq!(below(one, 3), ["a       b", "escaped", "20%"], "{screen}");
    let two = at("[two 2/2] RUN for");
    assert_eq!(below(two, 6), ["line 25", "line 26", "line 27", "line 28", "line 29", "line 30"]);
    assert_eq!(terminal.cursor(), None);
    assert!(terminal.colours().contains("\u{1b}[2m"), "{}", terminal.colours());
    // The clock advances although nothing happens.
    let time = |screen: &str| {
        screen.split_once("building ").unwrap().1.split(' ').next().map(str::to_owned)
    };
    terminal.until(|now| time(now) != time(&screen));

    terminal.keys("C-c");
    let left = terminal.ended(130);
    let mut steps = folded(&left);
    steps.sort();
    let want = [
        "■ CANCELED [one 3/3] RUN printf 'a\\tb\\n\\0",
        "■ CANCELED [two 2/2] RUN for i in $(seq 1",
        "✔ 0 [one 2/3] RUN echo before",
        "✔ CACHED [one 1/3] FROM docker.io/libra",
        "✔ CACHED [stage-2 1/3] FROM docker.io/l",
        "✔ CACHED [two 1/2] FROM docker.io/libra",
    ];
    assert_eq!(steps, want, "{left:#?}");
    assert!(left.iter().any(|line| line.starts_with("interrupted: ending")), "{left:#?}");
    assert_eq!(left.last().map(String::as_str), Some("error: interrupted"));
    drop(terminal);
    assert_eq!(env.leftovers("store"), "");
}

#[test]
fn priv_a_resized_terminal_is_written_over_as_it_is_now() {
    let env = env(BUSY);
    let terminal = Terminal::rbuild(&env, (100, 40), &["build", "context"]);
    until_busy(&terminal);
    let frame = |columns: u16, rows: u16, wanted: &[&str]| {
        terminal.resize(columns, rows);
        // Everything below the header belongs to a frame that was drawn for this width.
        terminal.until(|screen| {
            let lines: Vec<&str> = screen.lines().collect();
            let Some(header) = lines.iter().rposition(|line| line.starts_with("building ")) else {
                return false;
            };
            let live = &lines[header..];
            let limit = usize::from(columns) - 1;
            let widest = live.iter().map(|line| line.chars().count()).max();
            let has = |part: &&str| live.iter().any(|line| line.contains(part));
            (widest == Some(limit) || limit > 100) && wanted.iter().all(has)
        })
    };
    for (columns, rows) in [(60, 40), (50, 30), (90, 30)] {
        let screen = frame(columns, rows, &["[two 2/2]", "line 30"]);
        assert_eq!(screen.matches("building ").count(), 1, "{columns}x{rows}:\n{screen}");
        assert_eq!(screen.matches("[two 2/2]").count(), 1, "{columns}x{rows}:\n{screen}");
    }
    // The terminal itself scrolls away what does not fit on a smaller screen, and also a frame that
    // arrives before it has reported its new size.
    frame(60, 12, &["[two 2/2]", "line 30"]);
    frame(20, 12, &["[two 2/2]", "line 30"]);
    frame(20, 5, &["[two 2/2]"]);
    frame(20, 2, &[]);
    frame(20, 1, &[]);
    frame(200, 50, &["sleep 1001", "sleep 1000"]);
    terminal.keys("C-c");
    terminal.until_shown(&["error: interrupted", "exit=130"]);
}

#[test]
fn priv_what_is_over_is_in_the_scrollback_once() {
    let mut dockerfile = "FROM base:1\n".to_owned();
    let n_steps = 20;
    (0..n_steps)
        .for_each(|n| dockerfile += &format!("RUN echo step {n}; usleep 20000; touch /{n}\n"));
    let env = env(&dockerfile);
    let args = ["build", "context", "-t", "app:1", "-o", "type=oci,dest=app.tar"];
    let left = Terminal::rbuild(&env, (60, 10), &args).ended(0);
    let want = |how: &str| {
        let steps = (0..n_steps).map(|n| {
            let name = format!("[stage-0 {}/21] RUN echo step {n}; usleep 20000", n + 2);
            format!("✔ {how} {}", name.chars().take(30).collect::<String>())
        });
        let from = "✔ CACHED [stage-0 1/21] FROM docker.io/".to_owned();
        std::iter::once(from).chain(steps).collect::<Vec<_>>()
    };
    assert_eq!(folded(&left), want("0"), "{left:#?}");
    let n_others = left
        .iter()
        .filter(|line| line.contains("building ") || line.trim_start().starts_with("step "));
    assert_eq!(n_others.count(), 0, "{left:#?}");
    assert!(left.iter().any(|line| line == "wrote app.tar"), "{left:#?}");
    let last = left.last().unwrap();
    assert!(last.starts_with("built sha256:") && last.ends_with(" as app:1"), "{left:#?}");

    // Cached steps are shown too, although they take no time.
    let left = Terminal::rbuild(&env, (60, 10), &["build", "context"]).ended(0);
    assert_eq!(folded(&left), want("CACHED"), "{left:#?}");

    env.write("Dockerfile", dockerfile.replace("step 19", "step twenty"));
    let left = Terminal::rbuild(&env, (60, 10), &["build", "context", "--explain"]).ended(0);
    let at = left.iter().position(|line| line.contains("RUN echo step twenty")).unwrap();
    assert!(left[at + 1].starts_with("         not cached: the command changed: `"), "{left:#?}");
}

#[test]
fn priv_a_failure_is_the_last_on_the_screen_with_its_own_output_only() {
    let gate = "--mount=type=cache,id=gate,target=/gate";
    let dockerfile = format!(
        "FROM base:1 AS innocent\n\
         RUN {gate} echo innocent words; touch /gate/printed; sleep 1000\n\
         FROM base:1 AS guilty\n\
         RUN {gate} until test -e /gate/printed; do usleep 10000; done; echo guilty words; usleep 500000; exit 3\n\
         FROM scratch\n\
         COPY --from=innocent /etc/passwd /a\n\
         COPY --from=guilty /etc/passwd /b\n"
    );
    let env = env(&dockerfile);
    let check = |lines: &[String]| {
        let last =
            lines.iter().position(|line| line == "------").unwrap_or_else(|| panic!("{lines:#?}"));
        let said: Vec<&str> = lines[last..].iter().map(String::as_str).collect();
        let want = ["------", "last lines of the failed step:", "  guilty words", "------"];
        assert_eq!(said[..4], want, "{lines:#?}");
        assert!(
            said[4].starts_with("error[E0404]: ") && said[4].ends_with("exit code: 3"),
            "{lines:#?}"
        );
        assert!(said.iter().any(|line| line.ends_with("^ this step")), "{lines:#?}");
    };
    let terminal = Terminal::rbuild(&env, (80, 24), &["build", "context"]);
    terminal.until(|screen| screen.contains("  innocent words") || screen.contains("exit="));
    let left = terminal.ended(1);
    check(&left);
    let steps = folded(&left);
    assert!(steps.iter().any(|line| line.starts_with("✘ ERROR [guilty 2/2]")), "{left:#?}");
    assert!(steps.iter().any(|line| line.starts_with("■ CANCELED [innocent 2/2]")), "{left:#?}");
    assert!(!left.iter().any(|line| line.trim() == "innocent words"), "{left:#?}");

    // In a log, too, each line names its step.
    let done = env.rbuild(&["build", "context", "--no-cache"]);
    let lines: Vec<String> = done.stderr.lines().map(str::to_owned).collect();
    check(&lines);
    assert!(lines.iter().any(|line| line.ends_with(" innocent words")), "{lines:#?}");
}

#[test]
fn priv_the_kind_of_terminal_is_respected() {
    let env = env(BUSY);
    let screen = |args: &[&str]| {
        let terminal = Terminal::rbuild(&env, (80, 24), args);
        terminal.until_shown(&["line 30"]);
        let cursor = terminal.cursor();
        let (screen, colours) = (terminal.screen(), terminal.colours());
        terminal.keys("C-c");
        terminal.ended(130);
        (screen, colours, cursor)
    };
    let (plain, colours, cursor) = screen(&["NO_COLOR=1", "build", "context"]);
    assert!(plain.contains("building ") && cursor.is_none(), "{plain}");
    assert!(!colours.contains('\u{1b}'), "{colours:?}");

    for args in [&["TERM=dumb", "build", "context"][..], &["build", "context", "--progress=plain"]]
    {
        let (screen, _, cursor) = screen(args);
        assert!(!screen.contains("building ") && cursor.is_some(), "{screen}");
        assert!(
            screen.lines().any(|line| line.starts_with('#') && line.ends_with(" line 30")),
            "{screen}"
        );
    }
    let (tty, ..) = screen(&["GITLAB_CI=true", "build", "context", "--progress=tty"]);
    assert!(tty.contains("building "), "{tty}");
    let (ascii, ..) = screen(&["LC_ALL=C", "build", "context"]);
    assert!(ascii.contains("building ") && ascii.is_ascii(), "{ascii}");

    env.rbuild(&["build", "context", "--progress=tty"])
        .fails(2, &["--progress=tty: standard error is not a terminal", "--progress=plain"]);
}

#[test]
fn priv_a_stopped_build_leaves_the_terminal_and_goes_on() {
    let env = env(BUSY);
    let program = env!("CARGO_BIN_EXE_rbuild");
    let script = format!(
        "set -m\n'{program}' --root store build context\n\
         echo stopped; read line; fg; echo exit=$?; exec sleep 1000"
    );
    let terminal = Terminal::shell(&env, (80, 24), &script);
    until_busy(&terminal);
    terminal.keys("C-z");
    let screen = terminal.until_shown(&["stopped"]);
    assert!(terminal.cursor().is_some() && !screen.contains("building "), "{screen}");
    terminal.keys("Enter");
    terminal.until_shown(&["building ", "line 30"]);
    assert_eq!(terminal.cursor(), None);
    // SIGQUIT restores the terminal too.
    terminal.keys("C-\\");
    let screen = terminal.until_shown(&["exit=131"]);
    assert!(terminal.cursor().is_some() && !screen.contains("building "), "{screen}");
}

#[test]
fn priv_pushes_and_pulls_are_shown_too() {
    let registry = DockerRegistry::open();
    let env = env("FROM base:1\n");
    let name = format!("{}/app:1", registry.host());
    let left =
        Terminal::rbuild(&env, (100, 24), &["build", "context", "-t", &name, "--push"]).ended(0);
    let find = |left: &[String], part: &str| {
        let line = left.iter().find(|line| line.contains(part));
        line.unwrap_or_else(|| panic!("{left:#?}")).clone()
    };
    let push = find(&left, &format!("[internal] push {name}"));
    assert!(push.starts_with('✔') && push.ends_with("B/s"), "{push}");
    assert!(
        left.iter().any(|line| line.starts_with(&format!("pushed {name}@sha256:"))),
        "{left:#?}"
    );
    env.rbuild(&["rmi", &name, "base:1"]).ok();
    env.rbuild(&["prune", "--all"]).ok();
    let left = Terminal::rbuild(&env, (60, 24), &["pull", &name]).ended(0);
    let pull = find(&left, "[internal] pull ");
    assert!(pull.starts_with('✔') && pull.ends_with("B/s") && pull.contains("MB "), "{pull}");
}
