//! Ignore files: a directory that is skipped as a whole holds nothing that would be kept.

use rbuild::context::parse_ignore;
use rbuild::tree::TreePath;

/// Reads lines up to an empty one as paths, the rest as an ignore file.
pub(crate) fn probe(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (paths, rules) = text.split_once("\n\n").unwrap_or(("", &text));
    let Ok(rules) = parse_ignore(rules) else { return };
    for line in paths.lines() {
        let _ = rules.hides(line);
        let Ok(path) = TreePath::new(line.as_bytes()) else { continue };
        let excluded = rules.excludes(&path);
        assert!(!(excluded && rules.is_empty()));
        let mut directory = path.parent();
        while let Some(above) = directory.filter(|above| !above.is_root()) {
            let skipped = rules.excludes(&above) && !rules.may_hold_exceptions_below(&above);
            assert!(excluded || !skipped, "{above:?} is skipped, but {path:?} is kept");
            directory = above.parent();
        }
    }
}
