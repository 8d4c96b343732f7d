//! In which order stages are planned: each after those that it names.

use crate::diag::Diagnostic;
use crate::dockerfile::ir::{self, Word};

use super::NamedContext;
use super::stages::Planner;

impl Planner<'_> {
    /// Plans stage `at` of the file, and first all that it needs; its number in the plan. Stages that
    /// wait for others are in a list, and not on the thread's stack: a file may have any number.
    pub(super) fn stage(&mut self, at: usize) -> Option<usize> {
        let mut waiting = vec![at];
        while let Some(last) = waiting.last().copied() {
            let missing = self.missing(last);
            if missing.is_empty() {
                waiting.pop();
                self.stage_after_others(last);
            }
            waiting.extend(missing.into_iter().rev());
        }
        self.done.get(&at)?.as_ref().map(|(number, _)| *number)
    }

    /// The stages that this one names and that are not planned yet. Each is an earlier one.
    fn missing(&self, at: usize) -> Vec<usize> {
        let is_missing = |needed: &usize| !self.done.contains_key(needed);
        let Some(stage) = self.file.stages.get(at).filter(|_| is_missing(&at)) else {
            return Vec::new();
        };
        let name = stage.from.name.as_ref().map(|(_, name)| name.value.to_ascii_lowercase());
        if name.is_some_and(|name| self.context(&name).is_some()) {
            return Vec::new();
        }
        // What is wrong with a name is said when its stage is planned.
        let Ok(image) = self.globals.expand(&stage.from.image, self.escape) else {
            return Vec::new();
        };
        let base = self.earlier(at, &image.to_ascii_lowercase());
        let named = stage.instructions.iter().flat_map(froms);
        let named = named.filter_map(|from| self.named_stage(at, from));
        base.into_iter().chain(named).filter(is_missing).collect()
    }

    /// The stage before `at` with this name, in lower case.
    pub(super) fn earlier(&self, at: usize, name: &str) -> Option<usize> {
        self.names.iter().take(at).rposition(|one| one.as_deref() == Some(name))
    }

    /// The earlier stage that a `from` names, unless a named context stands in for it.
    pub(super) fn named_stage(&self, at: usize, from: &Word) -> Option<usize> {
        let text = from.value.trim_matches(['"', '\'']);
        let lower = text.to_ascii_lowercase();
        if matches!(self.context(&lower), Some((_, NamedContext::Directory))) {
            return None;
        }
        let by_number = || text.parse().ok().filter(|number| *number < at);
        self.earlier(at, &lower).or_else(by_number)
    }
}

/// Returns the error of a `--from` that names nothing and cannot be an image either.
pub(super) fn unnamed(text: &str, mut error: Box<Diagnostic>) -> Box<Diagnostic> {
    let what = "no stage, named context or image is called";
    error.message = format!("{what} `{text}`: {}", error.message);
    error
}

/// The `--from` of a COPY.
pub(super) fn copy_from_word(instruction: &ir::Instruction) -> Option<&Word> {
    let ir::Kind::Copy(copy) = &instruction.kind else {
        return None;
    };
    copy.from.as_ref()
}

/// Returns the words of an instruction that may name stages: those of COPY `--from` and of `from=` in
/// the mounts of a RUN.
pub fn froms(instruction: &ir::Instruction) -> impl Iterator<Item = &Word> {
    let mounts = if let ir::Kind::Run(run) = &instruction.kind { Some(&run.mounts) } else { None };
    let mounted = mounts.into_iter().flatten().filter_map(|mount| mount.value.from.as_ref());
    copy_from_word(instruction).into_iter().chain(mounted)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;
    use std::thread;

    use crate::dockerfile::syntax;
    use crate::oci::Platform;
    use crate::plan::{Images, NamedContexts, Network, Outcome, Request, RunSettings, plan};

    fn n_stages(text: &str) -> usize {
        let request = Request {
            build_args: BTreeMap::new(),
            contexts: NamedContexts::default(),
            target: None,
            platforms: vec![Platform::host()],
            platform_given: false,
            build_platform: Platform::host(),
            labels: Vec::new(),
            network: Network::Host,
            allow_host_network: false,
            allow_insecure: false,
            run: RunSettings::default(),
        };
        match plan(&syntax::parse(text).0, &request, &Images::new()) {
            Ok(Outcome::Ready(plan)) => plan.stages.len(),
            Ok(Outcome::Needs(needs)) => panic!("{needs:?}"),
            Err(errors) => panic!("{errors:?}"),
        }
    }

    #[test]
    fn a_long_chain_of_stages_takes_no_more_stack_than_a_short_one() {
        let links = [
            "FROM scratch AS sTHIS\nCOPY --from=sLAST /a /a\n",
            "FROM scratch AS sTHIS\nRUN --mount=from=sLAST,target=/m true\n",
            "FROM sLAST AS sTHIS\n",
        ];
        for link in links {
            let mut text = "FROM scratch AS s0\nCOPY a /a\n".to_owned();
            for number in 1..2000 {
                let link = link.replace("THIS", &number.to_string());
                write!(text, "{}", link.replace("LAST", &(number - 1).to_string())).unwrap();
            }
            let planned =
                thread::Builder::new().stack_size(256 << 10).spawn(move || n_stages(&text));
            assert_eq!(planned.unwrap().join().unwrap(), 2000, "{link}");
        }
    }
}
