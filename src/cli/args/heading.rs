//! Headings of options in the help of commands.

/// Context, Dockerfile and what they are read with.
pub(crate) const INPUTS: &str = "Inputs";
/// Names, exports and sizes of the image.
pub(crate) const OUTPUT: &str = "Image and output";
/// Build caches, and newer base images.
pub(crate) const CACHE: &str = "Cache";
/// Resources that RUN steps get.
pub(crate) const STEPS: &str = "RUN steps";
/// Lock file, network and clock.
pub(crate) const REPRODUCIBLE: &str = "Reproducible builds";
/// Checks of the Dockerfile, and what is shown during a build.
pub(crate) const CHECKS: &str = "Checks and progress";
/// Options of docker that change nothing.
pub(crate) const DOCKER: &str = "Options of docker without effect";
/// Options of every command.
pub(crate) const GLOBAL: &str = "Global options";
