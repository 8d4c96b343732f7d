//! Events that are shown on one line.

use crate::cli::display::reasons;
use crate::cli::display::text::shown;
use crate::executor::Event;

/// Returns the line of a warning, a note, an output or a reason; empty for events of steps, which
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
