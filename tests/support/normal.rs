//! Normalises output: replaces what differs between runs or machines.

/// Returns the text without digests, times, ages, and sizes in megabytes, which depend on the
/// machine's busybox.
pub(crate) fn normal(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(line).collect();
    lines.push(String::new());
    lines.join("\n")
}

fn line(line: &str) -> String {
    let words = line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    // Columns are as wide as their contents.
    let mut shown = String::with_capacity(words.len());
    for c in words.chars() {
        if c != ' ' || !shown.trim_start().ends_with("   ") {
            shown.push(c);
        }
    }
    shown
}

fn word(word: &str) -> String {
    let bare = word.trim_end_matches([',', ';', ')']);
    let end = word.strip_prefix(bare).unwrap_or_default();
    let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let start = bare.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
    if let Some((before, hex)) = bare.rsplit_once(':')
        && is_hex(hex)
    {
        return format!("{before}:[id]{end}");
    }
    let number = bare.strip_prefix(start).unwrap_or_default();
    let is_number =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    for unit in ["MB", "s"] {
        if number.strip_suffix(unit).is_some_and(is_number) && number.contains('.') {
            return format!("{start}[n]{unit}{end}");
        }
    }
    if word.strip_prefix('(').is_some_and(is_number) {
        return "([n]".to_owned();
    }
    if bare.len() == 20 && bare.ends_with('Z') && bare.contains('T') {
        return format!("[time]{end}");
    }
    word.to_owned()
}
