//! Stages: which exist, which the target needs, and in which order they are planned.

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, Span, codes, nearest};
use crate::dockerfile::ir::{self, Escape, MountType, Word};
use crate::oci::{Platform, Reference};

use super::args::Globals;
use super::fold::Fold;
use super::named::{self, Replaced, Start};
use super::order::{copy_from_word, unnamed};
use super::platforms::{self, PlannedStages};
use super::{
    Base, CopyFrom, ImagePlace, ImageRequest, Images, NamedContext, PlannedStage, Request,
};

/// What the `--from` of an instruction names, and what the `from=` of each of its mounts does.
type Froms = (CopyFrom, Vec<Option<CopyFrom>>);

/// What a stage looks up while it is planned.
pub(super) struct Planner<'a> {
    pub(super) file: &'a ir::Dockerfile,
    pub(super) request: &'a Request,
    /// What the target is for.
    platform: &'a Platform,
    pub(super) escape: Escape,
    pub(super) globals: Globals,
    images: &'a Images,
    /// True if stages on unknown base images are planned as far as possible.
    pub(super) guesses: bool,
    /// Names in lower case; of stages with the same name the last one counts.
    pub(super) names: Vec<Option<String>>,
    /// By number in the file: its number in the plan and its last state; `None` inside while a
    /// config is missing or it has an error.
    pub(super) done: BTreeMap<usize, Option<(usize, Fold)>>,
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
        let escape = file.directives.escape.map_or_else(Escape::default, |escape| escape.value);
        let mut errors = Vec::new();
        let globals = Globals::new(file, request, platform, escape, &mut errors);
        let name = |stage: &ir::Stage| {
            stage.from.name.as_ref().map(|(_, name)| name.value.to_ascii_lowercase())
        };
        Self {
            file,
            request,
            platform,
            escape,
            globals,
            images,
            guesses: false,
            names: file.stages.iter().map(name).collect(),
            done: BTreeMap::new(),
            planned,
            needs: BTreeMap::new(),
            errors,
        }
    }

    /// The number of the stage to build.
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
                [] => "no stage has a name: give one with `FROM … AS name`, or say a number \
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

    /// Plans stage `at` of the file, when all that it names is planned; others only triggers name.
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

    /// Plans a stage whose base is wrong as if it started from an unknown image, so that what else is
    /// wrong with it shows.
    fn guess(&mut self, at: usize, stage: &'a ir::Stage) -> Option<(usize, Fold)> {
        let fold = self.guesses.then(|| Fold::unknown(self.platform, self.escape))?;
        self.finish(at, stage, Start::new(Base::Scratch, fold), &stage.instructions)
    }

    /// What the stage starts from and its instructions; none when a named context stands in for it.
    fn start_or_replace(
        &mut self,
        at: usize,
        stage: &'a ir::Stage,
    ) -> Result<Option<(Start, &'a [ir::Instruction])>, Box<Diagnostic>> {
        if let Some((_, name)) = &stage.from.name
            && self.context(&name.value.to_ascii_lowercase()).is_some()
        {
            let start = self.named(&name.value.to_ascii_lowercase(), name.span, self.platform);
            return Ok(start.map(|mut start| {
                start.fold.take_triggers();
                (start, [].as_slice())
            }));
        }
        Ok(self.start(at, stage)?.map(|start| (start, stage.instructions.as_slice())))
    }

    /// The context that `name` means for the target.
    pub(super) fn context(&self, name: &str) -> Option<(&'a str, &'a NamedContext)> {
        self.request.contexts.get(name, self.platform)
    }

    /// A stage that starts from a named context; `None` also when an image's config is missing.
    fn named(&mut self, name: &str, span: Span, platform: &Platform) -> Option<Start> {
        let (key, context) = self.request.contexts.get(name, platform)?;
        match context.image(platform.clone()) {
            Some(request) => self.image(request, span),
            None => {
                let fold = Fold::scratch(platform, self.escape);
                Some(Start { replaced: named::from_directory(key, span), fold })
            }
        }
    }

    /// A stage that starts from an image; `None` when its config is missing.
    fn image(&mut self, request: ImageRequest, span: Span) -> Option<Start> {
        let fold = match self.images.get(&request) {
            Some(base) => Fold::image(base, self.escape),
            None => {
                let fold = self.guesses.then(|| Fold::unknown(&request.platform, self.escape));
                self.needs.entry(request.clone()).or_insert(span);
                fold?
            }
        };
        Some(Start::new(Base::Image(request), fold))
    }

    /// What the stage starts from; `None` when an image's config is missing.
    fn start(&mut self, at: usize, stage: &ir::Stage) -> Result<Option<Start>, Box<Diagnostic>> {
        let from = &stage.from;
        let image = self.globals.expand(&from.image, self.escape)?;
        if image.is_empty() {
            let message = "base name should not be blank: FROM names no image after its variables were expanded";
            let help = "only ARGs before the first FROM, and --build-arg for them, count here";
            return Err(Box::new(
                Diagnostic::error(codes::BAD_BASE, from.image.span, message).help(help),
            ));
        }
        let platform = self.platform(from)?;
        let lower = image.to_ascii_lowercase();
        if let Some(earlier) = self.earlier(at, &lower) {
            let Some(number) = self.stage(earlier) else { return Ok(None) };
            let parent = self.done.get(&earlier).and_then(Option::as_ref);
            let fold = parent.map(|(_, fold)| fold.child()).expect("a planned stage has a state");
            return Ok(Some(Start::new(Base::Stage(number), fold)));
        }
        if image == "scratch" {
            // Nothing is of no platform: `--platform` chooses among images.
            let fold = Fold::scratch(self.platform, self.escape);
            return Ok(Some(Start::new(Base::Scratch, fold)));
        }
        if self.request.contexts.get(&image, &platform).is_some() {
            return Ok(self.named(&image, from.image.span, &platform));
        }
        let request = self.image_request(&image, &from.image, platform)?;
        Ok(self.image(request, from.image.span))
    }

    fn platform(&self, from: &ir::From) -> Result<Platform, Box<Diagnostic>> {
        let Some(word) = &from.platform else { return Ok(self.platform.clone()) };
        let text = self.globals.expand(word, self.escape)?;
        if text.is_empty() {
            let message = "--platform is blank: empty platform value from its variables";
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
            let help = near.map(|name| format!("there is a stage `{name}`"));
            Box::new(Diagnostic::error(codes::BAD_BASE, word.span, message).maybe_help(help))
        })?;
        Ok(ImageRequest { name, place: ImagePlace::Registry, platform })
    }

    /// While a base's config is missing: the other images that the stage names, so that all can
    /// be had at once.
    fn note_other_needs(&mut self, at: usize, stage: &ir::Stage) {
        for instruction in &stage.instructions {
            // An error here is met again, and reported, when the stage is planned.
            if let Some(from) = copy_from_word(instruction) {
                drop(self.copy_from(at, from));
            }
            drop(self.mount_froms(at, instruction));
        }
    }

    /// What `--from` names; `None` while it cannot be planned.
    fn copy_from(&mut self, at: usize, from: &Word) -> Result<Option<CopyFrom>, Box<Diagnostic>> {
        let error = |code, message: String| Diagnostic::error(code, from.span, message);
        let text = from.value.trim_matches(['"', '\'']);
        if text.contains('$') {
            let message = "--from takes no variables".to_owned();
            let help = "name a stage `FROM ${IMAGE} AS name` and use --from=name";
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
                format!("invalid stage index {text}: --from={text} names no earlier stage");
            let help = format!("stages are counted from 0, and this is stage {at}");
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
            let place = later.and_then(|at| self.file.stages.get(at)).map(|stage| stage.span);
            return Err(Box::new(match place {
                Some(place) => found.label(place, format!("`{text}` begins here")),
                None => found,
            }));
        }
        let platform = self.platform.clone();
        let request = match self.context(text) {
            Some((key, context)) => match context.image(platform) {
                Some(request) => request,
                None => return Ok(Some(CopyFrom::Named(key.to_owned()))),
            },
            None => {
                self.image_request(text, from, platform).map_err(|error| unnamed(text, error))?
            }
        };
        if !self.images.contains_key(&request) {
            self.needs.entry(request.clone()).or_insert(from.span);
            if !self.guesses {
                return Ok(None);
            }
        }
        Ok(Some(CopyFrom::Image(request)))
    }

    /// What the `from=` of each mount of a RUN names; `None` while one cannot be planned.
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
                // For a cache these are two words for nothing.
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

    /// What an instruction takes files from; `None` when that cannot be planned.
    fn froms(
        &mut self,
        at: usize,
        instruction: &ir::Instruction,
    ) -> Result<Option<Froms>, Box<Diagnostic>> {
        let from = match copy_from_word(instruction) {
            Some(word) => self.copy_from(at, word)?,
            None => Some(CopyFrom::Context),
        };
        let mounts = self.mount_froms(at, instruction)?;
        Ok(from.zip(mounts))
    }

    /// Folds the triggers of the base and then the stage's own instructions.
    fn finish(
        &mut self,
        at: usize,
        stage: &ir::Stage,
        start: Start,
        instructions: &[ir::Instruction],
    ) -> Option<(usize, Fold)> {
        let Start { replaced: Replaced { base, mut steps }, mut fold } = start;
        let mut complete = true;
        let triggers = fold.take_triggers();
        let borrowed = triggers.iter().map(|trigger| (trigger, Some(stage.from.image.span)));
        let own = instructions.iter().map(|instruction| (instruction, None));
        for (instruction, place) in borrowed.chain(own) {
            let froms = self.froms(at, instruction).unwrap_or_else(|error| {
                self.errors.push(at_place(*error, place));
                None
            });
            let Some((from, mounts)) = froms else {
                complete = complete && self.guesses;
                continue;
            };
            match fold.instruction(instruction, from, mounts, self.request, &self.globals) {
                Ok(mut step) => {
                    if let Some(place) = place {
                        step.move_to(place);
                    }
                    steps.push(step);
                }
                Err(_uncertain) if fold.has_read_unknown() => {}
                Err(error) => self.errors.push(at_place(*error, place)),
            }
        }
        if !complete {
            return None;
        }
        let name = match &stage.from.name {
            Some((_, name)) => name.value.to_ascii_lowercase(),
            None => format!("stage-{at}"),
        };
        let config = fold.config.clone();
        let stage = PlannedStage { name, base, span: stage.span, steps, config };
        Some((self.planned.add(stage, self.platform), fold))
    }
}

/// A trigger has no place of its own in the file: its errors are shown at the FROM.
fn at_place(mut error: Diagnostic, place: Option<Span>) -> Diagnostic {
    if let Some(place) = place {
        error.span = place;
        error.labels.clear();
        error = error.label(place, "in an ONBUILD trigger of this image");
    }
    error
}
