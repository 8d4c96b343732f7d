//! Flags with a value, as docker's command line accepts them: `--no-cache=true`, `--quiet=false`.

use std::ffi::OsString;

/// Flags of `build` and `bake` that clap reads without a value.
const FLAGS: [&str; 6] = ["--no-cache", "--quiet", "-q", "--load", "--push", "--check"];

/// Reads a boolean as Go's `strconv.ParseBool` does.
pub(crate) fn parse(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Replaces `--flag=true` by `--flag`, and removes `--flag=false`, up to `--`.
pub(crate) fn without_values(words: Vec<OsString>) -> Vec<OsString> {
    let mut is_over = false;
    let kept = words.into_iter().filter_map(|word| {
        is_over |= word == "--";
        let flag = word.to_str().filter(|_| !is_over).and_then(|text| text.split_once('='));
        let Some((name, value)) = flag.filter(|(name, _)| FLAGS.contains(name)) else {
            return Some(word);
        };
        match parse(value) {
            Some(true) => Some(name.into()),
            Some(false) => None,
            None => Some(word),
        }
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_lose_their_booleans() {
        for (line, want) in [
            ("rbuild --no-cache=true --push=1 .", "rbuild --no-cache --push ."),
            ("rbuild --load=false --quiet=F -q=t .", "rbuild -q ."),
            (
                "rbuild --push=late --load=podman --check=pull",
                "rbuild --push=late --load=podman --check=pull",
            ),
            ("rbuild --rm=true -- --load=true", "rbuild --rm=true -- --load=true"),
        ] {
            let words = line.split(' ').map(OsString::from).collect();
            assert_eq!(without_values(words), want.split(' ').collect::<Vec<_>>(), "{line}");
        }
    }
}
