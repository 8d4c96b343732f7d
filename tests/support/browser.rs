//! Headless Chromium for tests of pages, controlled through chromedriver (`WebDriver`).
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests start programs and panic on failure"
)]

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::env::skip;

const CHROMIUM: &str = "/usr/bin/chromium";
const CHROMEDRIVER: &str = "/usr/bin/chromedriver";
/// No sandbox, because root may run it; no requests in the background.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser with one page, stopped on drop.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    _directory: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser. Returns `None` if Chromium or chromedriver is not installed.
    pub(crate) fn start() -> Option<Self> {
        if !(Path::new(CHROMIUM).exists() && Path::new(CHROMEDRIVER).exists()) {
            skip("chromium", "there is no /usr/bin/chromium, or no /usr/bin/chromedriver");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut driver = Command::new(CHROMEDRIVER)
            .arg("--port=0")
            .env("HOME", directory.path())
            .stdout(Stdio::piped())
            .stderr(File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, port) = line.split_once("started successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        let home =
            format!("http://127.0.0.1:{}/session", port.expect("chromedriver tells its port"));
        let mut browser = Self { driver, session: home, _directory: directory };
        let data = format!("--user-data-dir={}", browser._directory.path().join("data").display());
        let flags: Vec<&str> = FLAGS.into_iter().chain([data.as_str()]).collect();
        let asked = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "binary": CHROMIUM, "args": flags },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let session = browser.post("", &asked)["sessionId"].as_str().unwrap().to_owned();
        browser.session = format!("{}/{session}", browser.session);
        // Discards the requests of the browser's first page.
        browser.post("/url", &json!({ "url": "about:blank" }));
        browser.requests();
        browser.console();
        Some(browser)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build(),
        );
        let sent = agent.post(format!("{}{path}", self.session)).send_json(body);
        value(path, sent.unwrap())
    }

    fn get(&self, path: &str) -> Value {
        value(path, ureq::get(format!("{}{path}", self.session)).call().unwrap())
    }

    /// Opens a file in the browser.
    pub(crate) fn open(&self, path: &Path) {
        self.post("/url", &json!({ "url": format!("file://{}", path.display()) }));
    }

    /// Sets the window's inner size.
    pub(crate) fn resize(&self, width: u32, height: u32) {
        let sizes = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &sizes);
    }

    /// Sets the system's colour scheme: `dark` or `light`.
    pub(crate) fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    fn devtools(&self, command: &str, params: &Value) {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": params }));
    }

    /// Returns the value of an expression.
    pub(crate) fn eval(&self, expression: &str) -> Value {
        let script = format!("return ({expression});");
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn wait_for(&self, expression: &str) {
        for _ in 0..200 {
            if self.eval(expression) == json!(true) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        panic!("`{expression}` does not come true");
    }

    fn element(&self, selector: &str) -> String {
        let asked = json!({ "using": "css selector", "value": selector });
        let found = self.post("/element", &asked);
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    }

    /// Clicks as a user would, which fails if another element covers this one.
    pub(crate) fn click(&self, selector: &str) {
        self.post(&format!("/element/{}/click", self.element(selector)), &json!({}));
    }

    /// Types into an element; `\u{e007}` is the key Enter.
    pub(crate) fn keys(&self, selector: &str, text: &str) {
        self.post(&format!("/element/{}/value", self.element(selector)), &json!({ "text": text }));
    }

    /// Returns a screenshot as PNG.
    pub(crate) fn screenshot(&self) -> Vec<u8> {
        STANDARD.decode(self.get("/screenshot").as_str().unwrap()).unwrap()
    }

    /// Returns the messages of the console.
    pub(crate) fn console(&self) -> Vec<Value> {
        self.post("/se/log", &json!({ "type": "browser" })).as_array().unwrap().clone()
    }

    /// Returns the addresses that the page requested since the last call.
    pub(crate) fn requests(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({ "type": "performance" }));
        let messages = log.as_array().unwrap().iter().map(|entry| {
            let message: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            message["message"].clone()
        });
        let sent = messages.filter(|message| message["method"] == "Network.requestWillBeSent");
        sent.map(|message| message["params"]["request"]["url"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[track_caller]
fn value(path: &str, mut answer: ureq::http::Response<ureq::Body>) -> Value {
    let body: Value = answer.body_mut().with_config().limit(64 << 20).read_json().unwrap();
    assert!(answer.status().is_success(), "{path}: {body}");
    body["value"].clone()
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its session.
        drop(ureq::delete(&self.session).call());
        self.driver.kill().unwrap();
        self.driver.wait().unwrap();
    }
}
