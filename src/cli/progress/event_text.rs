//! Events that are shown on one line.

use crate::cli::display::reasons;
use crate::cli::display::text::shown;
use crate::executor::Event;
use crate::sandbox::Isolation;

/// Returns the line of a warning, a note, an isolation, an output or a reason; empty for events of steps, which
/// each display shows in its own way.
pub(super) fn event_text(event: &Event) -> String {
    let text = match event {
        Event::Warning { text } => format!("warning: {text}"),
        Event::Note { text } => text.clone(),
        Event::Wrote { path } => format!("wrote {}", path.display()),
        Event::Pushed { name, digest } => format!("pushed {name}@{digest}"),
        Event::Explained { step, reason } => {
            format!("#{} not cached: {}", step.0, reasons::text(reason))
        }
        Event::Isolated { isolation, remarks } => isolation_text(*isolation, remarks),
        Event::Planned { .. }
        | Event::Started { .. }
        | Event::Executing { .. }
        | Event::Output { .. }
        | Event::Progress { .. }
        | Event::Made { .. }
        | Event::Finished { .. } => String::new(),
    };
    shown(&text.replace('\n', " "), false).into_owned()
}

/// Returns the line about the isolation of steps: `isolation: chroot (steps can see …)`.
fn isolation_text(isolation: Isolation, remarks: &[String]) -> String {
    let (kind, ids) = match isolation {
        Isolation::SingleId => (Isolation::Namespace.name(), Some("one id")),
        Isolation::Namespace | Isolation::Chroot | Isolation::Emulated => (isolation.name(), None),
    };
    let remarks: Vec<&str> = ids.into_iter().chain(remarks.iter().map(String::as_str)).collect();
    if remarks.is_empty() {
        return format!("isolation: {kind}");
    }
    format!("isolation: {kind} ({})", remarks.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isolation_is_shown_with_its_remarks() {
        let text = |isolation, remarks: &[&str]| {
            let remarks = remarks.iter().map(ToString::to_string).collect();
            event_text(&Event::Isolated { isolation, remarks })
        };
        assert_eq!(text(Isolation::Namespace, &[]), "isolation: namespace");
        assert_eq!(text(Isolation::SingleId, &["a", "b"]), "isolation: namespace (one id; a; b)");
        assert_eq!(text(Isolation::Chroot, &["a", "b"]), "isolation: chroot (a; b)");
    }
}
