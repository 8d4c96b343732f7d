//! `--volume`: files and directories of the host as further mounts of each RUN.

use crate::dockerfile::ir;

use super::{Request, RunMount, RunMountKind, VolumeAccess};

/// Adds the volumes of the request to the mounts of a RUN. A mount of the Dockerfile with the same target
/// hides one.
pub(super) fn with_volumes(
    mounts: Vec<RunMount>,
    request: &Request,
    run: &ir::Run,
) -> Vec<RunMount> {
    if request.run.volumes.is_empty() {
        return mounts;
    }
    let span = match &run.form {
        ir::RunForm::Exec(words) => words.first().map(|word| word.span).unwrap_or_default(),
        ir::RunForm::Shell { text, .. } => text.span,
        ir::RunForm::Script(heredoc) => heredoc.name.span,
    };
    let mut all: Vec<RunMount> = Vec::new();
    for volume in &request.run.volumes {
        let (target, read_only) = (volume.target.clone(), volume.access == VolumeAccess::ReadOnly);
        if mounts.iter().all(|mount| mount.target != target) {
            let kind = RunMountKind::Host(volume.clone());
            all.push(RunMount { span, kind, target, read_only });
        }
    }
    all.extend(mounts);
    // The path of a directory is a prefix of the paths below it, so it sorts first.
    all.sort_by(|one, other| one.target.cmp(&other.target));
    all
}
