//! `BUILDKIT_COLORS`: colours of steps, as in
//! [Buildx](https://docs.docker.com/build/building/variables/#buildkit_colors).

use super::line::Paint;

/// Colours of steps by their state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colours {
    pub(super) done: Paint,
    /// Of steps that run, and of cached ones.
    pub(super) running: Paint,
    pub(super) failed: Paint,
    pub(super) cancelled: Paint,
}

impl Default for Colours {
    fn default() -> Self {
        Self {
            done: Paint::Green,
            running: Paint::Cyan,
            failed: Paint::Red,
            cancelled: Paint::Yellow,
        }
    }
}

impl Colours {
    /// Reads `run=green:error=red:cancel=255,165,0`. As in BuildKit, what cannot be read is left out.
    pub(super) fn of_variable(text: &str) -> Self {
        let mut colours = Self::default();
        for (state, colour) in text.split(':').filter_map(|field| field.split_once('=')) {
            let Some(paint) = paint(colour) else { continue };
            match state {
                "run" => (colours.done, colours.running) = (paint, paint),
                "error" => colours.failed = paint,
                "cancel" => colours.cancelled = paint,
                // `warning`: warnings stand below the view, as text.
                _ => {}
            }
        }
        colours
    }
}

/// Returns a colour by its name, or by red, green and blue.
fn paint(colour: &str) -> Option<Paint> {
    const NAMES: [&str; 8] =
        ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
    let of_name = |name: &str, first: u8| {
        let at = NAMES.iter().position(|known| *known == name)?;
        Some(Paint::Sgr(first + u8::try_from(at).ok()?))
    };
    if let Some(name) = colour.strip_prefix("light-") {
        return of_name(name, 90);
    }
    let parts: Vec<u8> = colour.split(',').map_while(|part| part.trim().parse().ok()).collect();
    match parts.as_slice() {
        [red, green, blue] => Some(Paint::Rgb(*red, *green, *blue)),
        _ => of_name(colour, 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_named_or_mixed() {
        let colours = Colours::of_variable("run=blue:error=light-red:cancel=255,165,0:warning=x:y");
        assert_eq!((colours.done, colours.running), (Paint::Sgr(34), Paint::Sgr(34)));
        assert_eq!((colours.failed, colours.cancelled), (Paint::Sgr(91), Paint::Rgb(255, 165, 0)));
        for text in ["", "run", "run=pink", "error=1,2", "error=1,2,300"] {
            assert_eq!(Colours::of_variable(text), Colours::default(), "{text}");
        }
    }
}
