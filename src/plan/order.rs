//! Orders planning: each stage is planned after those that it names.

use crate::diag::Diagnostic;
use crate::dockerfile::ir::{self, Word};

use super::NamedContext;
use super::stages::Planner;

impl Planner<'_> {
    /// Plans stage `at` of the file after all that it needs, and returns its number in the plan.
    ///
    /// Waiting stages are kept in a list: recursion would overflow the stack on a file with a long
    /// chain of stages.
    pub(super) fn stage(&mut self, at: usize) -> Option<usize> {
        let mut waiting = vec![at];
        while let Some(last) = waiting.last().copied() {
            let unplanned = self.unplanned(last);
            if unplanned.is_empty() {
                waiting.pop();
                self.stage_after_others(last);
            }
            waiting.extend(unplanned.into_iter().rev());
        }
        self.done.get(&at)?.as_ref().map(|(number, _)| *number)
    }

    /// Returns the stages that this one names and that are not planned yet. All of them come earlier.
    fn unplanned(&self, at: usize) -> Vec<usize> {
        let is_unplanned = |needed: &usize| !self.done.contains_key(needed);
        let Some(stage) = self.file.stages.get(at).filter(|_| is_unplanned(&at)) else {
            return Vec::new();
        };
        if stage.name().is_some_and(|name| self.context(&name).is_some()) {
            return Vec::new();
        }
        // A bad name is reported when its stage is planned.
        let Ok(image) = self.globals.expand(&stage.from.image) else {
            return Vec::new();
        };
        let base = self.earlier(at, &image.to_ascii_lowercase());
        let named = stage.instructions.iter().flat_map(ir::Instruction::from_words);
        let named = named.filter_map(|from| self.named_stage(at, from));
        base.into_iter().chain(named).filter(is_unplanned).collect()
    }

    /// Finds the last stage before `at` with this name, which is in lower case.
    pub(super) fn earlier(&self, at: usize, name: &str) -> Option<usize> {
        self.names.iter().take(at).rposition(|one| one.as_deref() == Some(name))
    }

    /// Finds the earlier stage that a `from` names, unless a named context replaces it.
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

/// Extends the error of a `--from` that is not even a valid image name.
pub(super) fn unresolved_from(text: &str, mut error: Box<Diagnostic>) -> Box<Diagnostic> {
    let what = "no stage, named context or image is called";
    error.message = format!("{what} `{text}`: {}", error.message);
    error
}

/// Returns the `--from` of a COPY.
pub(super) fn copy_from_word(instruction: &ir::Instruction) -> Option<&Word> {
    let ir::Kind::Copy(copy) = &instruction.kind else {
        return None;
    };
    copy.from.as_ref()
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
            changes: Default::default(),
            first_base: None,
            network: Network::Host,
            allow_host_network: false,
            allow_insecure: false,
            uncached: crate::plan::Uncached::None,
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
