//! Plans stages: finds the base and the `--from` sources of each, and folds its instructions.

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, Span, codes, nearest};
use crate::dockerfile::ir::{self, Escape, MountType, Word};
use crate::dockerfile::scope::GlobalScope;
use crate::oci::{Platform, Reference};

use super::named::{self, StageStart};
use super::order::{copy_from_word, unresolved_from};
use super::platforms::{self, PlannedStages};
use super::stage_state::{InstructionSources, StageState};
use super::{
    Base, CopyFrom, ImageLocation, ImageRequest, Images, NamedContext, PlannedStage, Request,
};

/// Plans the stages of one Dockerfile for one platform.
pub(super) struct Planner<'a> {
    pub(super) file: &'a ir::Dockerfile,
    pub(super) request: &'a Request,
    /// Platform of the target.
    platform: &'a Platform,
    pub(super) escape: Escape,
    pub(super) globals: GlobalScope,
    images: &'a Images,
    /// True if stages on unknown base images are planned as far as possible.
    pub(super) guesses: bool,
    /// Stage names in lower case. If several stages have one name, the last of them counts.
    pub(super) names: Vec<Option<String>>,
    /// By number in the file: number in the plan, and state after the last instruction. The inner
    /// `None` means that a config is missing or that the stage has an error.
    pub(super) done: BTreeMap<usize, Option<(usize, StageState)>>,
    planned: &'a mut PlannedStages,
    pub(super) needs: BTreeMap<ImageRequest, Span>,
    pub(super) errors: Vec<Diagnostic>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        file: &'a ir::Dockerfile,
        request: &'a Request,
        platform: &'a Platform,
        images: &'a Images,
        planned: &'a mut PlannedStages,
    ) -> Self {
        let mut errors = Vec::new();
        let globals = GlobalScope::new(file, &request.arg_inputs(platform), &mut errors);
        Self {
            file,
            request,
            platform,
            escape: file.escape(),
            globals,
            images,
            guesses: false,
            names: file.stages.iter().map(ir::Stage::name).collect(),
            done: BTreeMap::new(),
            planned,
            needs: BTreeMap::new(),
            errors,
        }
    }

    /// Returns the number of the stage to build, or reports an unknown `--target`.
    pub(super) fn target(&mut self) -> Option<usize> {
        let last = self.file.stages.len().checked_sub(1)?;
        let Some(target) = &self.request.target else { return Some(last) };
        let lower = target.to_ascii_lowercase();
        let by_name = self.names.iter().rposition(|name| name.as_ref() == Some(&lower));
        let by_number = || target.parse().ok().filter(|number| *number <= last);
        let found = by_name.or_else(by_number);
        if found.is_none() {
            let names = self.names.iter().flatten().map(String::as_str);
            let near = nearest(&lower, names).map(|name| format!("did you mean `{name}`?"));
            let known: Vec<&str> = self.names.iter().flatten().map(String::as_str).collect();
            let all = match known.as_slice() {
                [] => "no stage has a name: add one with `FROM … AS name`, or use a stage number \
                       (the first is 0)"
                    .to_owned(),
                names => format!("the stages are: {}", names.join(", ")),
            };
            let span = self.file.stages.last().map_or(Span::default(), |stage| stage.span);
            let message = format!("target stage \"{target}\" could not be found");
            let error = Diagnostic::error(codes::UNKNOWN_TARGET, span, message);
            let error = error.label(span, "the last stage, which is built without --target");
            self.errors.push(error.maybe_help(near).help(all));
        }
        found
    }

    /// Plans stage `at` of the file once the stages that it names are planned. Stages that only
    /// ONBUILD triggers name are planned on the way.
    pub(super) fn stage_after_others(&mut self, at: usize) -> Option<usize> {
        if let Some(done) = self.done.get(&at) {
            return done.as_ref().map(|(number, _)| *number);
        }
        let file = self.file;
        let stage = file.stages.get(at)?;
        let planned = match self.start_or_replace(at, stage) {
            Ok(Some((start, instructions))) => self.finish(at, stage, start, instructions),
            Ok(None) => {
                self.note_other_needs(at, stage);
                None
            }
            Err(error) => {
                self.errors.push(*error);
                self.guess(at, stage)
            }
        };
        let number = planned.as_ref().map(|(number, _)| *number);
        self.done.insert(at, planned);
        number
    }

    /// Plans a stage with a bad base as if it started from an unknown image, to report its other
    /// errors too.
    fn guess(&mut self, at: usize, stage: &'a ir::Stage) -> Option<(usize, StageState)> {
        let state = self.guesses.then(|| StageState::unknown_image(self.platform, self.escape))?;
        self.finish(at, stage, StageStart::new(Base::Scratch, state), &stage.instructions)
    }

    /// Returns the start of a stage and its instructions, which are empty if a named context replaces
    /// the whole stage.
    fn start_or_replace(
        &mut self,
        at: usize,
        stage: &'a ir::Stage,
    ) -> Result<Option<(StageStart, &'a [ir::Instruction])>, Box<Diagnostic>> {
        if let Some((_, name)) = &stage.from.name
            && self.context(&name.value.to_ascii_lowercase()).is_some()
        {
            let start = self.named(&name.value.to_ascii_lowercase(), name.span, self.platform);
            return Ok(start.map(|mut start| {
                start.state.take_triggers();
                (start, [].as_slice())
            }));
        }
        Ok(self.start(at, stage)?.map(|start| (start, stage.instructions.as_slice())))
    }

    /// Returns the named context that replaces `name` for the target's platform.
    pub(super) fn context(&self, name: &str) -> Option<(&'a str, &'a NamedContext)> {
        self.request.contexts.get(name, self.platform)
    }

    /// Starts a stage from a named context; `None` also while an image's config is missing.
    fn named(&mut self, name: &str, span: Span, platform: &Platform) -> Option<StageStart> {
        let (key, context) = self.request.contexts.get(name, platform)?;
        match context.image(platform.clone()) {
            Some(request) => self.image(request, span),
            None => {
                let state = StageState::scratch(platform, self.escape);
                let steps = vec![named::copy_of_directory(key, span)];
                Some(StageStart { base: Base::Scratch, steps, state })
            }
        }
    }

    /// Starts a stage from an image; `None` while its config is missing.
    fn image(&mut self, request: ImageRequest, span: Span) -> Option<StageStart> {
        let state = match self.images.get(&request) {
            Some(base) => StageState::image(base, self.escape),
            None => {
                self.needs.entry(request.clone()).or_insert(span);
                let unknown = || StageState::unknown_image(&request.platform, self.escape);
                self.guesses.then(unknown)?
            }
        };
        Some(StageStart::new(Base::Image(request), state))
    }

    /// Resolves FROM; `None` while an image's config is missing.
    fn start(
        &mut self,
        at: usize,
        stage: &ir::Stage,
    ) -> Result<Option<StageStart>, Box<Diagnostic>> {
        let from = &stage.from;
        let given = self.request.first_base.clone().filter(|_| at == 0);
        let image = given.map_or_else(|| self.globals.expand(&from.image), Ok)?;
        if image.is_empty() {
            let message = "base name should not be blank: FROM has no image name after its variables were expanded";
            let help =
                "FROM sees only the ARGs before the first FROM, and --build-arg values for them";
            return Err(Box::new(
                Diagnostic::error(codes::BAD_BASE, from.image.span, message).help(help),
            ));
        }
        let platform = self.platform(from)?;
        let lower = image.to_ascii_lowercase();
        if let Some(earlier) = self.earlier(at, &lower) {
            let Some(number) = self.stage(earlier) else { return Ok(None) };
            let parent = self.done.get(&earlier).and_then(Option::as_ref);
            let state = parent.map(|(_, state)| state.child());
            let state = state.expect("a planned stage has a state");
            return Ok(Some(StageStart::new(Base::Stage(number), state)));
        }
        if image == "scratch" {
            // `--platform` chooses among images, so it has no effect here.
            let state = StageState::scratch(self.platform, self.escape);
            return Ok(Some(StageStart::new(Base::Scratch, state)));
        }
        if self.request.contexts.get(&image, &platform).is_some() {
            return Ok(self.named(&image, from.image.span, &platform));
        }
        let request = self.image_request(&image, &from.image, platform)?;
        Ok(self.image(request, from.image.span))
    }

    fn platform(&self, from: &ir::From) -> Result<Platform, Box<Diagnostic>> {
        let Some(word) = &from.platform else { return Ok(self.platform.clone()) };
        let text = self.globals.expand(word)?;
        if text.is_empty() {
            let message =
                "empty platform value: --platform is blank after its variables were expanded";
            return Err(Box::new(Diagnostic::error(codes::BAD_PLATFORM, word.span, message)));
        }
        text.parse().map_err(|error| Box::new(platforms::unreadable(&error, word.span)))
    }

    fn image_request(
        &self,
        image: &str,
        word: &Word,
        platform: Platform,
    ) -> Result<ImageRequest, Box<Diagnostic>> {
        let name: Reference = image.parse().map_err(|error: crate::oci::ReferenceError| {
            let message = format!("invalid reference format: {error}");
            let near = nearest(image, self.names.iter().flatten().map(String::as_str));
            let help = near.map(|name| format!("did you mean the stage `{name}`?"));
            Box::new(Diagnostic::error(codes::BAD_BASE, word.span, message).maybe_help(help))
        })?;
        Ok(ImageRequest { name, location: ImageLocation::Registry, platform })
    }

    /// Notes the other images that a stage names while the config of its base is missing, so that the
    /// caller can resolve all of them at once.
    fn note_other_needs(&mut self, at: usize, stage: &ir::Stage) {
        for instruction in &stage.instructions {
            // An error is reported later, when the stage is planned.
            if let Some(from) = copy_from_word(instruction) {
                drop(self.copy_from(at, from));
            }
            drop(self.mount_froms(at, instruction));
        }
    }

    /// Resolves a `--from` or `from=`; `None` while it cannot be planned.
    fn copy_from(&mut self, at: usize, from: &Word) -> Result<Option<CopyFrom>, Box<Diagnostic>> {
        let error = |code, message: String| Diagnostic::error(code, from.span, message);
        let text = from.value.trim_matches(['"', '\'']);
        if text.contains('$') {
            let message = "variables are not expanded in --from".to_owned();
            let help = "add a stage `FROM ${IMAGE} AS name` and use --from=name";
            return Err(Box::new(error(codes::BAD_FLAG, message).help(help)));
        }
        let lower = text.to_ascii_lowercase();
        let named = self.context(&lower);
        if let Some((key, NamedContext::Directory)) = named {
            return Ok(Some(CopyFrom::Named(key.to_owned())));
        }
        if let Some(stage) = self.named_stage(at, from) {
            return Ok(self.stage(stage).map(CopyFrom::Stage));
        }
        if text.parse::<usize>().is_ok() {
            let message =
                format!("invalid stage index {text}: --from={text} is not an earlier stage");
            let help = format!("stages are numbered from 0, and this one is stage {at}");
            return Err(Box::new(error(codes::UNKNOWN_STAGE, message).help(help)));
        }
        if self.names.iter().skip(at).flatten().any(|name| *name == lower) {
            let own = self.names.get(at).is_some_and(|name| name.as_ref() == Some(&lower));
            let what = if own { "is the stage itself" } else { "comes later" };
            let message = format!(
                "--from={text}: stage `{text}` {what}; it must be defined before current stage"
            );
            let help = (!own)
                .then(|| format!("move the stage `{text}` above the one that copies from it"));
            let found = error(codes::UNKNOWN_STAGE, message).maybe_help(help);
            let later = self.names.iter().rposition(|name| name.as_ref() == Some(&lower));
            let span = later.and_then(|at| self.file.stages.get(at)).map(|stage| stage.span);
            return Err(Box::new(match span {
                Some(span) => found.label(span, format!("`{text}` begins here")),
                None => found,
            }));
        }
        let platform = self.platform.clone();
        let request = match self.context(text) {
            Some((key, context)) => match context.image(platform) {
                Some(request) => request,
                None => return Ok(Some(CopyFrom::Named(key.to_owned()))),
            },
            None => self
                .image_request(text, from, platform)
                .map_err(|error| unresolved_from(text, error))?,
        };
        if !self.images.contains_key(&request) {
            self.needs.entry(request.clone()).or_insert(from.span);
            if !self.guesses {
                return Ok(None);
            }
        }
        Ok(Some(CopyFrom::Image(request)))
    }

    /// Resolves the `from=` of each mount of a RUN; `None` while one of them cannot be planned.
    fn mount_froms(
        &mut self,
        at: usize,
        instruction: &ir::Instruction,
    ) -> Result<Option<Vec<Option<CopyFrom>>>, Box<Diagnostic>> {
        let ir::Kind::Run(run) = &instruction.kind else { return Ok(Some(Vec::new())) };
        let mut froms = Vec::new();
        let mut complete = true;
        for mount in &run.mounts {
            let from = match &mount.value.from {
                // `from=scratch` gives a cache an empty start, which is the default.
                Some(word) if word.value == "scratch" && mount.value.kind == MountType::Cache => {
                    None
                }
                Some(word) => {
                    let from = self.copy_from(at, word)?;
                    complete &= from.is_some();
                    from
                }
                None => None,
            };
            froms.push(from);
        }
        Ok(complete.then_some(froms))
    }

    /// Resolves everything that an instruction takes files from; `None` if that cannot be planned.
    fn sources(
        &mut self,
        at: usize,
        instruction: &ir::Instruction,
    ) -> Result<Option<InstructionSources>, Box<Diagnostic>> {
        let from = match copy_from_word(instruction) {
            Some(word) => self.copy_from(at, word)?,
            None => Some(CopyFrom::Context),
        };
        let mounts = self.mount_froms(at, instruction)?;
        Ok(from.zip(mounts).map(|(from, mounts)| InstructionSources { from, mounts }))
    }

    /// Applies the triggers of the base and then the stage's own instructions.
    fn finish(
        &mut self,
        at: usize,
        stage: &ir::Stage,
        start: StageStart,
        instructions: &[ir::Instruction],
    ) -> Option<(usize, StageState)> {
        let StageStart { base, mut steps, mut state } = start;
        let mut complete = true;
        steps.extend(state.begin(&self.request.changes, stage.from.image.span));
        let triggers = state.take_triggers();
        let inherited = triggers.iter().map(|trigger| (trigger, Some(stage.from.image.span)));
        let own = instructions.iter().map(|instruction| (instruction, None));
        for (instruction, trigger_span) in inherited.chain(own) {
            let sources = self.sources(at, instruction).unwrap_or_else(|error| {
                self.errors.push(shown_at(*error, trigger_span));
                None
            });
            let Some(sources) = sources else {
                complete = complete && self.guesses;
                continue;
            };
            match state.apply(instruction, sources, self.request, &self.globals) {
                Ok(mut step) => {
                    if let Some(span) = trigger_span {
                        step.move_to(span);
                    }
                    steps.push(step);
                }
                Err(_uncertain) if state.has_read_unknown() => {}
                Err(error) => self.errors.push(shown_at(*error, trigger_span)),
            }
        }
        if !complete {
            return None;
        }
        let name = stage.name().unwrap_or_else(|| format!("stage-{at}"));
        let config = state.config.clone();
        let is_uncached = self.request.uncached.has(&name);
        let stage = PlannedStage { name, base, span: stage.span, is_uncached, steps, config };
        Some((self.planned.add(stage, self.platform), state))
    }
}

/// Moves the error of an ONBUILD trigger to the FROM: its text is in the base image, not in this file.
fn shown_at(mut error: Diagnostic, from: Option<Span>) -> Diagnostic {
    if let Some(from) = from {
        error.span = from;
        error.labels.clear();
        error = error.label(from, "in an ONBUILD trigger of this image");
    }
    error
}
