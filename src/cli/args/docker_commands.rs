//! Commands of docker, podman and buildah that rbuild calls otherwise, or does not have.

/// Commands that have the same name behind a group: `docker image push`.
const SAME: [&str; 8] = ["push", "pull", "save", "load", "tag", "inspect", "build", "diff"];
/// Docker's groups of commands.
const GROUPS: [&str; 8] =
    ["image", "container", "builder", "buildx", "system", "volume", "network", "compose"];
/// Commands for containers.
const CONTAINERS: [&str; 16] = [
    "run", "exec", "ps", "start", "stop", "restart", "kill", "rm", "wait", "attach", "create",
    "cp", "top", "stats", "commit", "export",
];

/// Returns what to do in rbuild, for the words of a command line of docker; `None` for words that
/// docker does not have either.
pub(crate) fn tip(words: &[&str]) -> Option<String> {
    let (first, second) = (*words.first()?, words.get(1).copied().unwrap_or_default());
    let is_group = GROUPS.contains(&first);
    let word = if is_group { second } else { first };
    let instead = match (first, word) {
        ("image", "ls" | "list") => "rbuild images",
        ("image", "rm" | "remove") => "rbuild rmi",
        ("image", "history") => "rbuild inspect",
        (_, "prune") if is_group => "rbuild prune",
        ("system", "df") | ("builder" | "buildx", "du") => "rbuild du",
        ("bud", _) => "rbuild build",
        (_, "logs") => {
            return Some(
                "rbuild has no containers yet; what the steps of a build printed is shown by \
                 `rbuild history logs`"
                    .to_owned(),
            );
        }
        (_, "run" | "exec") => {
            return Some(
                "rbuild has no containers yet; `rbuild enter IMAGE -- COMMAND` runs a command in an \
                 image"
                    .to_owned(),
            );
        }
        ("image" | "buildx" | "builder", same) if SAME.contains(&same) => {
            return Some(format!("it is called `rbuild {same}`"));
        }
        (_, word) if CONTAINERS.contains(&word) => {
            return Some(
                "rbuild has no containers yet: it builds, keeps and moves images".to_owned(),
            );
        }
        _ if is_group => {
            let text = format!("rbuild has no group `{first}`: `rbuild -h` lists its commands");
            return Some(text);
        }
        _ => return None,
    };
    Some(format!("it is called `{instead}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_docker_have_docker_s_meaning() {
        for (words, part) in [
            (&["run", "app"][..], "rbuild enter"),
            (&["exec"], "rbuild enter"),
            (&["container", "run"], "rbuild enter"),
            (&["ps"], "no containers yet"),
            (&["container", "ls"], "no group `container`"),
            (&["logs"], "history logs"),
            (&["image", "ls"], "`rbuild images`"),
            (&["image", "rm", "x"], "`rbuild rmi`"),
            (&["buildx", "build", "."], "`rbuild build`"),
            (&["builder", "prune"], "`rbuild prune`"),
            (&["system", "df"], "`rbuild du`"),
            (&["buildx", "du"], "`rbuild du`"),
            (&["image", "push"], "`rbuild push`"),
            (&["compose", "up"], "no group `compose`"),
        ] {
            let tip = tip(words);
            assert!(tip.as_ref().is_some_and(|tip| tip.contains(part)), "{words:?}: {tip:?}");
        }
        assert_eq!(tip(&["buidl"]), None);
        assert_eq!(tip(&[]), None);
    }
}
