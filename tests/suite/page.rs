//! `--report`: the page of a build, opened and used in a browser.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests may panic and access the system directly"
)]

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::env::{Done, Env, Who, as_root_and_as_user};

as_root_and_as_user!(a_page_is_written_at_the_end_and_from_the_history);

/// Two concurrent stages, a third that copies from one of them, and text that looks like markup.
const BUILD: &str = "FROM base:1 as a\n\
    RUN echo '</script><img src=x onerror=hacked=1>'; printf '\\033[31mred\\033[0m\\n'; sleep 0.3\n\
    COPY f /f\n\
    FROM base:1 AS b\n\
    RUN sleep 0.2; echo b >/b; i=0; while [ $i -lt 9 ]; do echo x >\"/tmp/<img src=x onerror=hacked=$i>\"; i=$((i+1)); done\n\
    FROM b\n\
    COPY --from=a /f /from-a\n\
    RUN rm /tmp/*1*\n";
const FAILING: &str = "FROM base:1 AS a\nRUN sleep 0.1; echo a >/a\nFROM base:1\nCOPY --from=a /a /\n\
    RUN echo last words; exit 7\nRUN true\n";

fn env_of(who: Who) -> Env {
    let env = Env::of(who);
    env.base();
    env.write("f", "1");
    env
}

fn page(env: &Env, name: &str) -> String {
    fs::read_to_string(env.path(name)).unwrap()
}

fn a_page_is_written_at_the_end_and_from_the_history(who: Who) {
    let env = env_of(who);
    let report = ["-t", "app:1", "--report", "page.html"];
    env.build(BUILD, &report).ok();
    let built = page(&env, "page.html");
    for part in [
        "<title>✓ app:1 – built</title>",
        "casing of `as` and `FROM` does not match",
        "<code>/from-a</code>",
        "<dt>Steps</dt><dd>5</dd>",
    ] {
        assert!(built.contains(part), "{part}");
    }
    env.rbuild(&["history", "show", "--report", "again.html"]).ok();
    assert_eq!(page(&env, "again.html"), built, "the record says the same");

    env.build(FAILING, &report).fails(1, &["exit code: 7"]);
    let failed = page(&env, "page.html");
    for part in
        ["✕ app:1 – failed", "The command failed: exit code: 7", "last words", "not reached"]
    {
        assert!(failed.contains(part), "{part}");
    }
    env.rbuild(&["history", "show", "--report", "again.html"]).ok();
    assert_eq!(page(&env, "again.html"), failed, "the record says the same");
    // A build that fails before it is planned has a page too.
    env.build("FROM base:1\nRNU x\n", &report).fails(1, &["RNU"]);
    let failed = page(&env, "page.html");
    assert!(failed.contains("<p class=\"remark error\">") && failed.contains("RNU"), "{failed}");
    assert_eq!(env.leftovers("store"), "");
}

#[test]
fn priv_what_cannot_be_reported_is_said_before_the_build() {
    let env = env_of(Who::Caller);
    env.write("Dockerfile", "FROM base:1\nRUN echo begun\n");
    let report = |place: &str, more: &[&str]| {
        env.rbuild(&[&["build", "context", "--report", place], more].concat())
    };
    let done = report("none/page.html", &[]);
    done.fails(3, &["cannot write the report", "none", "No such file"]);
    assert!(!done.stderr.contains("begun"), "{}", done.stderr);
    report("context", &[]).fails(3, &["context", "Is a directory"]);
    report("page.html", &["--check"]).fails(2, &["--report cannot be used here: nothing is built"]);
    report("page.html", &["--dry-run"])
        .fails(2, &["--report cannot be used here: nothing is built"]);
    let lock = env.rbuild(&["lock", "context", "--report", "page.html"]);
    lock.fails(2, &["--report cannot be used with `rbuild lock`"]);
    assert!(!env.path("page.html").exists());
    // The build is complete even if the report cannot be written at the end.
    report("/dev/full", &[]).fails(3, &["begun", "cannot write the report"]);
    env.write("Dockerfile", "FROM base:1\nRUN exit 7\n");
    report("/dev/full", &[]).fails(1, &["exit code: 7", "warning: cannot write the report"]);
}

#[test]
fn priv_an_interrupted_build_has_a_page() {
    let env = env_of(Who::Caller);
    env.write("Dockerfile", "FROM base:1\nRUN echo begun; sleep 1000\n");
    let mut command = env.command(&["build", "context", "--report", "page.html"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !env.rbuild(&["history", "logs"]).stdout.contains("RUN echo begun") {
        assert!(Instant::now() < deadline, "the build does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(Done::of(child.wait_with_output().unwrap()).code, Some(130));
    let page = page(&env, "page.html");
    assert!(page.contains("Interrupted after") && page.contains("begun\n"), "{page}");
}

/// Opens a page in several sizes and colour schemes. Keeps screenshots on request.
fn shots(browser: &Browser, path: &Path, name: &str) {
    let kept = std::env::var_os("RBUILD_TEST_SCREENSHOTS");
    let mut seen = Vec::new();
    for (width, height) in [(1440, 900), (420, 900)] {
        for scheme in ["light", "dark"] {
            browser.resize(width, height);
            browser.prefer(scheme);
            browser.open(path);
            // A page that is as wide as the window needs no horizontal scrolling.
            let wide = "document.documentElement.scrollWidth <= innerWidth";
            assert_eq!(browser.eval(wide), json!(true), "{name} {width}");
            let shot = browser.screenshot();
            if let Some(directory) = &kept {
                let file = format!("{name}-{width}-{scheme}.png");
                fs::write(Path::new(directory).join(file), &shot).unwrap();
            }
            seen.push(shot);
        }
    }
    let n_shots = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), n_shots, "all look different");
    browser.resize(1440, 900);
    browser.prefer("light");
    browser.open(path);
}

/// Checks that the page requested only itself and logged nothing, and that no text became markup.
fn is_clean(browser: &Browser) {
    let asked = browser.requests();
    let others: Vec<_> = asked
        .iter()
        .filter(|url| !url.starts_with("file:///") && !url.starts_with("data:"))
        .collect();
    assert!(!asked.is_empty() && others.is_empty(), "{asked:?}");
    assert_eq!(browser.console(), Vec::<serde_json::Value>::new());
    assert_eq!(browser.eval("typeof hacked"), json!("undefined"));
    assert_eq!(browser.eval("document.querySelectorAll('img, iframe, object').length"), json!(0));
    assert_eq!(browser.eval("document.scripts.length"), json!(1));
}

#[test]
fn priv_the_page_of_a_build_is_clicked_through() {
    if Who::root().is_none() {
        return;
    }
    let Some(browser) = Browser::start() else { return };
    let env = env_of(Who::Caller);
    env.build(BUILD, &["-t", "app:1"]).ok();
    env.write("f", "22");
    env.build(BUILD, &["-t", "app:1", "--report", "page.html"]).ok();
    shots(&browser, &env.path("page.html"), "built");
    let eval = |expression: &str| browser.eval(expression);
    let count = |selector: &str| eval(&format!("document.querySelectorAll({selector:?}).length"));
    assert_eq!(eval("document.title"), json!("✓ app:1 – built"));
    // Two FROMs of an image, and five other steps; a FROM of a stage is not counted.
    assert_eq!(count("#steps .step:has(.number:not(:empty))"), json!(7));
    assert_eq!(count(".step.cached"), json!(4));
    assert_eq!(count("#graph .box"), json!(3));
    assert_eq!(count("#graph .edge"), json!(2));
    let why = "[...document.querySelectorAll('.why')].map(one => one.textContent).join()";
    assert!(eval(why).as_str().unwrap().contains("not cached: /f changed"), "{}", eval(why));

    // A step can be expanded and collapsed, by mouse and by keyboard.
    let step = "document.querySelector('.step.done')";
    assert_eq!(eval(&format!("{step}.open")), json!(false));
    browser.click(".step.done summary");
    browser.wait_for(&format!("{step}.open"));
    browser.keys(".step.done summary", "\u{e007}");
    browser.wait_for(&format!("!{step}.open"));
    // The timeline links to the step.
    let id = eval(&format!("{step}.id"));
    let id = id.as_str().unwrap();
    browser.click(&format!(".timeline a[href='#{id}']"));
    browser.wait_for(&format!("location.hash === '#{id}' && {step}.open"));
    browser.wait_for(&format!("Math.abs({step}.getBoundingClientRect().top) < innerHeight"));
    // The description of a bar is available by keyboard too.
    eval("document.querySelector('.timeline .bar.done').focus()");
    browser.wait_for(
        "!document.getElementById('tip').hidden && tip.textContent.includes('COPY f /f')",
    );

    // The dark and the light theme.
    let colour = "getComputedStyle(document.body).backgroundColor";
    let before = eval(colour);
    eval("scrollTo({top: 0, behavior: 'instant'})");
    browser.click("#theme");
    assert_ne!(eval(colour), before);
    browser.click("#theme");
    assert_eq!(eval(colour), before);

    // The filter finds files by a part of their paths.
    let seen = "[...document.querySelectorAll('.layers .files li')].filter(one => one.offsetParent !== null)";
    browser.keys("#filter", "from-a");
    browser.wait_for(&format!(
        "{seen}.map(one => one.querySelector('code').textContent).join() === '/from-a'"
    ));
    assert_eq!(eval("document.getElementById('hits').textContent"), json!("1 of the listed files"));
    // The warning links to its line.
    browser.click("#warnings a");
    browser.wait_for("document.querySelector('.line.warning:target') !== null");
    is_clean(&browser);
    // Any fragment is accepted, even an invalid one.
    browser.open(&env.path("page.html#%"));
    eval("location.reload()");
    browser
        .wait_for("document.getElementById('theme') && !document.querySelector('.tools').hidden");
    is_clean(&browser);
}

#[test]
fn priv_the_page_of_a_failed_build_begins_with_what_failed() {
    if Who::root().is_none() {
        return;
    }
    let Some(browser) = Browser::start() else { return };
    let env = env_of(Who::Caller);
    env.build(FAILING, &["-t", "app:1", "--report", "page.html"]).fails(1, &["exit code: 7"]);
    shots(&browser, &env.path("page.html"), "failed");
    assert_eq!(browser.eval("document.querySelector('main section').id"), json!("failure"));
    let text = browser.eval("document.getElementById('failure').innerText");
    for part in ["exit code: 7", "last words", "Dockerfile:5:1"] {
        assert!(text.as_str().unwrap().contains(part), "{text}");
    }
    // The failure is visible without a click.
    let box_of = |what: &str| format!("document.querySelector('{what}').getBoundingClientRect()");
    assert_eq!(browser.eval(&format!("{}.bottom < innerHeight", box_of(".failure"))), json!(true));
    assert_eq!(browser.eval("document.querySelectorAll('.step[open]').length"), json!(1));
    browser.click("#failure a");
    browser.wait_for("document.querySelector('.step.failed:target') !== null");
    let steps = "[...document.querySelectorAll('.step.never')].map(one => one.innerText).join()";
    assert!(browser.eval(steps).as_str().unwrap().contains("RUN true"), "{}", browser.eval(steps));
    is_clean(&browser);
}

#[test]
fn priv_a_page_of_what_was_all_cached_is_a_page_too() {
    if Who::root().is_none() {
        return;
    }
    let Some(browser) = Browser::start() else { return };
    let env = env_of(Who::Caller);
    env.build(BUILD, &["-t", "app:1"]).ok();
    env.build(BUILD, &["-t", "app:1", "--report", "page.html"]).ok();
    shots(&browser, &env.path("page.html"), "cached");
    let steps = "document.querySelectorAll('.step.cached').length";
    assert_eq!(browser.eval(steps), json!(7));
    is_clean(&browser);
}
