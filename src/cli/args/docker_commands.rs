//! Commands of docker, podman and buildah that rbuild names differently, or does not have.

/// Commands that rbuild has under the same name, without a group: `docker image push`.
const SAME: [&str; 10] =
    ["push", "pull", "save", "load", "tag", "inspect", "build", "bake", "diff", "imagetools"];
/// Groups of commands in docker's command line.
const GROUPS: [&str; 8] =
    ["image", "container", "builder", "buildx", "system", "volume", "network", "compose"];
/// Commands that manage containers.
const CONTAINERS: [&str; 16] = [
    "run", "exec", "ps", "start", "stop", "restart", "kill", "rm", "wait", "attach", "create",
    "cp", "top", "stats", "commit", "export",
];

/// Returns a hint for a command line of docker, or `None` if docker does not have the command.
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
                "rbuild does not run containers; `rbuild history logs` shows the output of a \
                 build's steps"
                    .to_owned(),
            );
        }
        (_, "run" | "exec") => {
            return Some(
                "rbuild does not run containers; `rbuild enter IMAGE -- COMMAND` runs a command \
                 in an image"
                    .to_owned(),
            );
        }
        ("image" | "buildx" | "builder", same) if SAME.contains(&same) => {
            return Some(format!("use `rbuild {same}`"));
        }
        (_, word) if CONTAINERS.contains(&word) => {
            return Some(
                "rbuild does not run containers: it builds, stores and transfers images".to_owned(),
            );
        }
        _ if is_group => {
            let text =
                format!("rbuild has no command group `{first}`; `rbuild -h` lists its commands");
            return Some(text);
        }
        _ => return None,
    };
    Some(format!("use `{instead}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_commands_have_hints() {
        for (words, part) in [
            (&["run", "app"][..], "rbuild enter"),
            (&["exec"], "rbuild enter"),
            (&["container", "run"], "rbuild enter"),
            (&["ps"], "does not run containers"),
            (&["container", "ls"], "no command group `container`"),
            (&["logs"], "history logs"),
            (&["image", "ls"], "`rbuild images`"),
            (&["image", "rm", "x"], "`rbuild rmi`"),
            (&["buildx", "build", "."], "`rbuild build`"),
            (&["buildx", "bake"], "`rbuild bake`"),
            (&["builder", "prune"], "`rbuild prune`"),
            (&["system", "df"], "`rbuild du`"),
            (&["buildx", "du"], "`rbuild du`"),
            (&["image", "push"], "`rbuild push`"),
            (&["compose", "up"], "no command group `compose`"),
        ] {
            let tip = tip(words);
            assert!(tip.as_ref().is_some_and(|tip| tip.contains(part)), "{words:?}: {tip:?}");
        }
        assert_eq!(tip(&["buidl"]), None);
        assert_eq!(tip(&[]), None);
    }
}
