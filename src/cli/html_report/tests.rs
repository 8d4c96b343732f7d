//! Pages made from recorded events, checked as text.

use crate::cli::html_report::*;
use crate::cli::records::Logs;

use super::layers::{FileChange, ReportedFile, ReportedLayer};

/// A build of two stages. The second copies a file of the first, and fails.
const FAILED: &str = r##"{"event":"started","seconds":0.0,"time":"2026-01-31T12:00:00Z","rbuild":"0.1.0","version":1}
{"event":"requested","seconds":0.0,"folder":"/w","context":".","platforms":[],"names":["app:1"]}
{"event":"dockerfile","seconds":0.0,"path":"Dockerfile","text":"FROM base AS a\nRUN make\nFROM scratch\n# all\nCOPY --from=a /x /\nRUN false\n"}
{"event":"planned","seconds":0.1,"stages":[{"name":"a","base":"base","needs":[],"instructions":["RUN make"]},{"name":"final","needs":[0],"instructions":["COPY --from=a /x /","RUN false","RUN true"]}]}
{"event":"step_started","seconds":0.1,"step":1,"name":"[internal] pull base"}
{"event":"progress","seconds":0.2,"step":1,"done_bytes":1500,"total_bytes":1500}
{"event":"step_finished","seconds":0.5,"step":1,"outcome":"done","took_seconds":0.4}
{"event":"step_started","seconds":0.5,"step":2,"name":"[a 1/2] FROM base","stage":"a","number":1,"of":2,"instruction":"FROM base"}
{"event":"step_finished","seconds":0.5,"step":2,"outcome":"cached","took_seconds":0.0}
{"event":"step_started","seconds":0.5,"step":3,"name":"[a 2/2] RUN make","stage":"a","number":2,"of":2,"instruction":"RUN make"}
{"event":"step_explained","seconds":0.5,"step":3,"reason":"/src/a.c changed"}
{"event":"isolation","seconds":0.5,"isolation":"chroot","remarks":[]}
{"event":"step_executing","seconds":0.5,"step":3}
{"event":"output","seconds":0.75,"step":3,"stream":"stdout","text":"\u001b[32mok\u001b[0m <1>\n"}
{"event":"step_layer","seconds":2.5,"step":3,"layer":"sha256:11","bytes":2048}
{"event":"step_finished","seconds":2.5,"step":3,"outcome":"done","took_seconds":2.0}
{"event":"step_started","seconds":2.5,"step":4,"name":"[final 2/4] COPY --from=a /x /","stage":"final","number":2,"of":4,"instruction":"COPY --from=a /x /"}
{"event":"step_finished","seconds":2.5,"step":4,"outcome":"cached","took_seconds":0.0}
{"event":"step_started","seconds":2.5,"step":5,"name":"[final 3/4] RUN false","stage":"final","number":3,"of":4,"instruction":"RUN false"}
{"event":"step_executing","seconds":2.5,"step":5}
{"event":"step_finished","seconds":3.0,"step":5,"outcome":"failed","took_seconds":0.5}
{"event":"warning","seconds":3.0,"text":"odd"}
{"event":"diagnostic","seconds":3.0,"severity":"warning","code":"Odd","message":"odd too","file":"Dockerfile","line":1,"column":1,"end_line":1,"end_column":2,"helps":["do it"]}
{"event":"diagnostic","seconds":3.0,"severity":"error","code":"E0404","message":"exit code: 1","file":"Dockerfile","line":6,"column":1,"end_line":6,"end_column":2,"helps":[]}
{"event":"failed","seconds":3.0,"message":"process \"false\" did not complete successfully: exit code: 1","exit_status":1,"took_seconds":3.0,"last_lines":["last"],"text":"------\nlast lines of the failed step:\n  last\n------\nerror[E0404]: exit code: 1"}
"##;

fn page(events: &str, images: &[ReportedImage]) -> String {
    let recorded = Recorded::read(events.as_bytes(), Logs::Ends).unwrap();
    let (id, status) = (Some("0123abcd"), recorded.status(false));
    ReportPage { id, status, recorded: &recorded, images, no_images: None }.html()
}

fn images(path: &str) -> Vec<ReportedImage> {
    let files = [
        ReportedFile { path: path.to_owned(), change: FileChange::Added, bytes: 1200 },
        ReportedFile { path: "/old".to_owned(), change: FileChange::Removed, bytes: 0 },
    ];
    let layer = ReportedLayer {
        digest: "sha256:22".to_owned(),
        instruction: format!("COPY {path} /"),
        bytes: Some(4096),
        counts: Some([1, 0, 1]),
        wasted_bytes: 7,
        files: files.into(),
        n_more: 3,
    };
    let elsewhere = ReportedLayer { digest: "sha256:33".to_owned(), ..ReportedLayer::default() };
    vec![ReportedImage {
        platform: "linux/amd64".to_owned(),
        layers: vec![elsewhere, layer],
        wasted_bytes: 7,
        wasted: vec![(path.to_owned(), 7)],
        file_bytes: 2000,
    }]
}

/// Returns the page without style and script, which snapshots leave out.
fn without_assets(page: &str) -> String {
    let page = page.replace(STYLE, "…").replace(SCRIPT, "…");
    page.replace(&integrity(STYLE), "STYLE").replace(&integrity(SCRIPT), "SCRIPT")
}

#[test]
fn failed_build_is_reported_completely() {
    let page = without_assets(&page(FAILED, &[]));
    insta::assert_snapshot!("page_failed", page);
}

#[test]
fn page_is_small_and_self_contained() {
    assert!(page("", &[]).len() < 40 << 10, "{}", page("", &[]).len());
    // It loads nothing, and the script inserts no markup.
    assert_eq!(STYLE.matches("url(").count(), STYLE.matches("url(#arrow)").count());
    for word in ["@import", "fetch(", "import(", "innerHTML", "outerHTML", "eval(", "http"] {
        assert!(!SCRIPT.contains(word) && !STYLE.contains(word), "{word}");
    }
}

#[test]
fn built_image_is_shown_with_its_layers() {
    let built = r#"{"event":"built","seconds":1.0,"id":"sha256:44","digest":"sha256:55","names":[],"layer_bytes":9,"took_seconds":1.0}"#;
    let page = page(built, &images("/x/y"));
    for part in [
        "<code>/x/y</code><b>1.2kB</b>",
        "and 3 more files",
        "+1 −1",
        "This layer is not in the store",
        "Wasted space: 7B of 2.0kB",
        "<dt>Layers</dt><dd>2</dd>",
    ] {
        assert!(page.contains(part), "{part}\n{}", without_assets(&page));
    }
    let gone = self::page(built, &[]);
    assert!(gone.contains("The image is no longer in the store."));
}

#[test]
fn no_text_becomes_markup() {
    let hostile =
        "</script></title></style><img src=x onerror=alert(1)>\\\" onmouseover=\\\"x() ' {} <!--";
    let mut events = FAILED.to_owned();
    for word in [
        "app:1",
        "Dockerfile\"",
        "# all",
        "\"a\"",
        "base",
        "RUN make",
        "RUN false",
        "RUN true",
        "ok",
        "/src/a.c",
        "sha256:11",
        "odd",
        "do it",
        "Odd",
        "last",
        "exit code",
        "0.1.0",
        "\"/w\"",
    ] {
        let quoted = if word.starts_with('"') { "\"" } else { "" };
        let end = if word.ends_with('"') { "\"" } else { "" };
        let inner = word.trim_matches('"');
        events = events.replace(word, &format!("{quoted}{inner}{hostile}{end}"));
    }
    // The events are still valid JSON.
    let n_lines = events.lines().count();
    let good =
        events.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
    assert_eq!(good.count(), n_lines, "{events}");
    let path = hostile.replace('\\', "");
    let built = r#"{"event":"built","seconds":1.0,"id":"HERE","digest":"HERE","names":[],"layer_bytes":9,"took_seconds":1.0}"#;
    let pages =
        [page(&events, &[]), page(&(events + &built.replace("HERE", hostile)), &images(&path))];
    for page in pages {
        let page = without_assets(&page);
        assert!(page.matches("&lt;img src=x onerror").count() > 20, "{page}");
        assert!(!page.contains("<img"), "{page}");
        assert!(!page.contains("\" onmouseover"), "{page}");
        assert!(!page.contains("<!--"), "{page}");
        for tag in ["script", "style", "title"] {
            // SVG has titles, too.
            let n = if tag == "title" { page.matches("<title>").count() } else { 1 };
            assert_eq!(page.matches(&format!("<{tag}>")).count(), n, "{page}");
            assert_eq!(page.matches(&format!("</{tag}>")).count(), n, "{page}");
        }
    }
}

#[test]
fn long_logs_show_both_ends_and_the_omitted_bytes() {
    let mut events = FAILED.replace("RUN false", "RUN many");
    for n in 0..40_000 {
        let text = format!("line {n} {}\\n", "x".repeat(40));
        events.push_str(&format!(
            "{{\"event\":\"output\",\"seconds\":2.6,\"step\":5,\"stream\":\"stdout\",\"text\":\"{text}\"}}\n"
        ));
    }
    let page = page(&events, &[]);
    assert!(page.len() < 3 << 19, "{}", page.len());
    for part in [
        "line 0 xx",
        "line 39999 xx",
        "bytes omitted here",
        "rbuild history logs 0123abcd --step 5",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("line 20000 xx"));
}
