//! The modes that `--chmod` accepts: octal numbers and the clauses of chmod(1).

/// The value of `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// An absolute mode, for files, directories and the parents that the copy creates.
    Octal(u32),
    /// Changes to each file's own mode, applied in order.
    Symbolic(Box<[ModeChange]>),
}

/// One operation of a clause, such as `go-w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModeChange {
    /// The bits of the classes `u`, `g`, `o` that the clause affects.
    affected: u32,
    operator: Operator,
    permissions: Permissions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permissions {
    /// The given bits; with `X`, also execute permission if the file is a directory or executable.
    Bits { bits: u32, execute_if_any: bool },
    /// The permissions of another class, as a shift from the lowest three bits.
    CopyOf { shift: u32 },
}

/// The reason why a mode is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModeError {
    /// Digits that are not an octal number up to 07777.
    #[error("`{0}` is not a mode: it should be octal and between 0 and 07777")]
    Octal(String),
    /// Text that is not a list of chmod(1) clauses.
    #[error("`{0}` is not a mode: it should be octal, or clauses such as `u=rwX,go=rX`")]
    Symbolic(String),
}

const ALL: u32 = 0o7777;
const EXECUTE: u32 = 0o111;
const SET_IDS: u32 = 0o6000;
const STICKY: u32 = 0o1000;

/// Parses the value of `--chmod`.
///
/// # Errors
/// [`ModeError::Octal`] for digits that are not octal up to 07777, [`ModeError::Symbolic`] for any
/// other text that is not a list of chmod(1) clauses.
pub fn parse_chmod(text: &str) -> Result<Chmod, ModeError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= ALL => Ok(Chmod::Octal(mode)),
            _ => Err(ModeError::Octal(text.to_owned())),
        };
    }
    let mut changes = Vec::new();
    for clause in text.split(',') {
        parse_clause(clause, &mut changes).ok_or_else(|| ModeError::Symbolic(text.to_owned()))?;
    }
    Ok(Chmod::Symbolic(changes.into()))
}

fn parse_clause(clause: &str, changes: &mut Vec<ModeChange>) -> Option<()> {
    let operators = ['+', '-', '='];
    let (who, mut rest) = clause.split_at_checked(clause.find(operators)?)?;
    let mut affected = if who.is_empty() { ALL } else { 0 };
    for class in who.chars() {
        affected |= match class {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o0007,
            'a' => ALL,
            _ => return None,
        };
    }
    while let Some(first) = rest.chars().next() {
        let operator = match first {
            '+' => Operator::Add,
            '-' => Operator::Remove,
            _ => Operator::Set,
        };
        let after = rest.get(1..)?;
        let end = after.find(operators).unwrap_or(after.len());
        let permissions = parse_permissions(after.get(..end)?)?;
        // As in BSD's chmod and BuildKit, `t` applies to every class but `o` alone.
        let sticky = match permissions {
            Permissions::Bits { bits, .. } if affected & !0o0007 != 0 => bits & STICKY,
            Permissions::Bits { .. } | Permissions::CopyOf { .. } => 0,
        };
        let affected = affected | sticky;
        changes.push(ModeChange { affected, operator, permissions });
        rest = after.get(end..)?;
    }
    Some(())
}

fn parse_permissions(letters: &str) -> Option<Permissions> {
    match letters {
        "u" => return Some(Permissions::CopyOf { shift: 6 }),
        "g" => return Some(Permissions::CopyOf { shift: 3 }),
        "o" => return Some(Permissions::CopyOf { shift: 0 }),
        _ => {}
    }
    let (mut bits, mut execute_if_any) = (0, false);
    for letter in letters.chars() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= EXECUTE,
            'X' => execute_if_any = true,
            's' => bits |= SET_IDS,
            't' => bits |= STICKY,
            _ => return None,
        }
    }
    Some(Permissions::Bits { bits, execute_if_any })
}

impl Chmod {
    /// Returns the new mode of a file with the current mode `mode`.
    #[must_use]
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(changes) => {
                changes.iter().fold(mode & ALL, |mode, change| change.apply(mode, is_dir))
            }
        }
    }
}

impl ModeChange {
    fn apply(self, mode: u32, is_dir: bool) -> u32 {
        let (bits, named) = match self.permissions {
            Permissions::Bits { bits, execute_if_any } => {
                let any = execute_if_any && (is_dir || mode & EXECUTE != 0);
                (if any { bits | EXECUTE } else { bits }, bits)
            }
            Permissions::CopyOf { shift } => (((mode >> shift) & 0o7) * EXECUTE, 0),
        };
        let bits = bits & self.affected;
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            // chmod(1): a directory's set-id bits stay unless the clause names them.
            Operator::Set if is_dir => mode & !(self.affected & !(SET_IDS & !named)) | bits,
            Operator::Set => mode & !self.affected | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32, change: &str) -> u32 {
        parse_chmod(change).unwrap().apply(mode, false)
    }

    fn directory(mode: u32, change: &str) -> u32 {
        parse_chmod(change).unwrap().apply(mode, true)
    }

    #[test]
    fn symbolic_modes_change_a_files_own_mode() {
        for (mode, change, want) in [
            (0o644, "u+x", 0o744),
            (0o644, "go-r", 0o600),
            (0o644, "u=rwx,g=rx,o=", 0o750),
            (0o644, "a+X", 0o644),
            (0o755, "u=rwX,go=rX", 0o755),
            (0o644, "+x", 0o755),
            (0o644, "a=r,u+w,o-r", 0o640),
            (0o755, "u+s,g+s", 0o6755),
            (0o751, "g=u", 0o771),
            (0o751, "o=g,g=", 0o705),
            (0o644, "u+x-w", 0o544),
            (0o777, "+t", 0o1777),
            (0o777, "u+t", 0o1777),
            (0o644, "u=rws,g+st", 0o7644),
            (0o644, "o=t", 0o640),
            (0o1777, "u=rw", 0o1677),
            (0o4755, "u=rwx", 0o755),
            (0o600, "a=", 0),
        ] {
            assert_eq!(file(mode, change), want, "{mode:o} {change}");
        }
        assert_eq!(directory(0o700, "a+X"), 0o711);
        assert_eq!(directory(0o2755, "a=rx"), 0o2555);
        assert_eq!(directory(0o2755, "g=s"), 0o2705);
    }

    #[test]
    fn octal_modes_replace_a_files_mode() {
        assert_eq!(file(0o123, "0640"), 0o640);
        assert_eq!(file(0o123, "7777"), 0o7777);
        for text in ["10777", "8", "99999999999999"] {
            assert_eq!(parse_chmod(text), Err(ModeError::Octal(text.into())));
        }
    }

    #[test]
    fn invalid_modes_are_refused_with_their_text() {
        for text in ["u+k", "", "x", "u", "u+r,", "k=r", "u+rug", "0x7"] {
            assert_eq!(parse_chmod(text), Err(ModeError::Symbolic(text.into())), "{text}");
        }
    }
}
