//! Collects the names of inputs from the command line: arguments, secrets, SSH agents and contexts.

use crate::dockerfile::ir::{self, CopySource, Kind, MountType, Word};

/// The names that a Dockerfile uses for one kind of input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InputNames {
    /// Names as written, without quotes.
    pub words: Vec<String>,
    /// True if a word has a variable, so that any name may be used.
    pub is_open: bool,
}

/// The names that a Dockerfile uses for each kind of input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamedInputs {
    /// Names of its stages, `stage-N` for those without one.
    pub stages: InputNames,
    /// Names of its ARGs.
    pub arguments: InputNames,
    /// Ids of secrets in mounts of RUN.
    pub secrets: InputNames,
    /// Ids of SSH agents in mounts of RUN; any id if a source of ADD may be fetched through SSH.
    pub agents: InputNames,
    /// InputNames that a named context can replace: images of FROM, stages, and those of `--from`.
    pub contexts: InputNames,
}

impl InputNames {
    fn add(&mut self, word: &str) {
        self.is_open |= word.contains('$');
        self.words.push(word.trim_matches(['"', '\'']).to_owned());
    }
}

/// Returns the names of all inputs of all stages.
#[must_use]
pub fn named_inputs(file: &ir::Dockerfile) -> NamedInputs {
    let mut found = NamedInputs::default();
    for (at, stage) in file.stages.iter().enumerate() {
        found.stages.add(&stage.name().unwrap_or_else(|| format!("stage-{at}")));
        found.contexts.add(&stage.from.image.value);
        if let Some((_, name)) = &stage.from.name {
            found.contexts.add(&name.value);
        }
    }
    let of_stages = file.stages.iter().flat_map(|stage| &stage.instructions);
    for instruction in file.meta_args.iter().chain(of_stages) {
        found.instruction(&instruction.kind);
    }
    found
}

impl NamedInputs {
    fn instruction(&mut self, kind: &Kind) {
        match kind {
            Kind::Arg(args) => args.iter().for_each(|arg| self.arguments.add(&arg.name.value)),
            Kind::Run(run) => run.mounts.iter().for_each(|mount| self.mount(&mount.value)),
            Kind::Copy(copy) => {
                copy.from.iter().for_each(|from| self.contexts.add(&from.value));
            }
            Kind::Add(add) => self.agents.is_open |= add.sources.iter().any(may_use_ssh),
            Kind::Onbuild(onbuild) => self.instruction(&onbuild.instruction.kind),
            Kind::Env(_)
            | Kind::Label(_)
            | Kind::Workdir(_)
            | Kind::User(_)
            | Kind::Expose(_)
            | Kind::Volume(_)
            | Kind::Cmd(_)
            | Kind::Entrypoint(_)
            | Kind::Shell(_)
            | Kind::Stopsignal(_)
            | Kind::Healthcheck(_)
            | Kind::Maintainer(_) => {}
        }
    }

    fn mount(&mut self, mount: &ir::Mount) {
        mount.from.iter().for_each(|from| self.contexts.add(&from.value));
        let text = |word: &Option<Word>| word.as_ref().map(|word| word.value.clone());
        if mount.kind_variable.is_some() || mount.kind == MountType::Secret {
            let name = text(&mount.source).or_else(|| text(&mount.id)).or_else(|| {
                let target = text(&mount.target)?;
                target.rsplit('/').next().map(str::to_owned)
            });
            name.iter().for_each(|name| self.secrets.add(name));
        }
        if mount.kind_variable.is_some() || mount.kind == MountType::Ssh {
            self.agents.add(&text(&mount.id).unwrap_or_else(|| "default".to_owned()));
        }
    }
}

fn may_use_ssh(source: &CopySource) -> bool {
    let CopySource::Path(word) = source else { return false };
    word.value.contains('@') || word.value.contains("ssh://") || word.value.contains('$')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::syntax;

    #[test]
    fn names_of_all_stages_and_triggers_are_found() {
        let file = "ARG V\nFROM busybox AS tool\n\
            RUN --mount=type=secret,id=a --mount=type=secret,target=/x/b --mount=type=ssh true\n\
            ONBUILD RUN --mount=type=ssh,id=c --mount=type=bind,from=other,target=/o true\n\
            FROM tool\nARG W=1\nCOPY --from=files /a /b\n";
        let (file, diagnostics) = syntax::parse(file);
        assert_eq!(diagnostics, []);
        let found = named_inputs(&file);
        let closed = |words: &[&str]| InputNames {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            is_open: false,
        };
        assert_eq!(found.arguments, closed(&["V", "W"]));
        assert_eq!(found.secrets, closed(&["a", "b"]));
        assert_eq!(found.agents, closed(&["default", "c"]));
        assert_eq!(found.contexts, closed(&["busybox", "tool", "tool", "other", "files"]));
    }

    #[test]
    fn variable_may_be_any_name() {
        let file = "ARG B\nFROM $B\nRUN --mount=type=secret,id=$B true\nADD git@h:a/b.git /b\n";
        let (file, _) = syntax::parse(file);
        let found = named_inputs(&file);
        assert!(found.contexts.is_open && found.secrets.is_open && found.agents.is_open);
        assert!(!found.arguments.is_open);
    }
}
