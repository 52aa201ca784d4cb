//! Reads the printed form of a plan, as ARCHITECTURE.md shows it: `;` in turn, `|`
//! side by side, parentheses group. Knows no primitive; what a step is called and
//! given is kept as it stands.

/// A part of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// One primitive.
    Step(Step),
    /// One after the other.
    InTurn(Vec<Self>),
    /// All at once.
    SideBySide(Vec<Self>),
}

/// One primitive: its name, and its arguments with their keys; without a key
/// where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub name: String,
    pub arguments: Vec<(String, String)>,
}

impl Step {
    /// The argument at this place.
    #[must_use]
    pub fn at(&self, place: usize) -> Option<&str> {
        self.arguments.get(place).map(|(_, value)| value.as_str())
    }

    /// The argument with this key.
    #[must_use]
    pub fn named(&self, key: &str) -> Option<&str> {
        let mut arguments = self.arguments.iter();
        let found = arguments.find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// The argument with this key as a span of time, in seconds.
    #[must_use]
    pub fn seconds(&self, key: &str) -> Option<f64> {
        let text = self.named(key)?;
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: f64 = text[..digits].parse().ok()?;
        let unit = match &text[digits..] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        Some(number * unit)
    }
}

impl Part {
    /// All steps, in the printed order.
    #[must_use]
    pub fn steps(&self) -> Vec<&Step> {
        match self {
            Self::Step(step) => vec![step],
            Self::InTurn(parts) | Self::SideBySide(parts) => {
                parts.iter().flat_map(Self::steps).collect()
            }
        }
    }
}

/// Reads a whole plan.
///
/// # Errors
/// What is left where it cannot be read on.
pub fn read(text: &str) -> Result<Part, String> {
    let mut rest = text.trim();
    let part = group(&mut rest)?;
    if rest.is_empty() {
        Ok(part)
    } else {
        Err(rest.to_owned())
    }
}

fn take(rest: &mut &str, symbol: char) -> bool {
    let Some(after) = rest.strip_prefix(symbol) else {
        return false;
    };
    *rest = after.trim_start();
    true
}

fn group(rest: &mut &str) -> Result<Part, String> {
    let first = member(rest)?;
    let separator = match rest.chars().next() {
        Some(symbol @ (';' | '|')) => symbol,
        _ => return Ok(first),
    };
    let mut parts = vec![first];
    while take(rest, separator) {
        parts.push(member(rest)?);
    }
    Ok(if separator == ';' {
        Part::InTurn(parts)
    } else {
        Part::SideBySide(parts)
    })
}

fn member(rest: &mut &str) -> Result<Part, String> {
    if take(rest, '(') {
        let part = group(rest)?;
        return if take(rest, ')') {
            Ok(part)
        } else {
            Err((*rest).to_owned())
        };
    }
    let (name, after) = rest.split_once('(').ok_or_else(|| (*rest).to_owned())?;
    let (inside, after) = after.split_once(')').ok_or_else(|| (*rest).to_owned())?;
    *rest = after.trim_start();
    let arguments = inside.split(',').map(|argument| {
        let (key, value) = argument.split_once('=').unwrap_or(("", argument));
        (key.trim().to_owned(), value.trim().to_owned())
    });
    Ok(Part::Step(Step {
        name: name.trim().to_owned(),
        arguments: arguments.collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_is_printed() {
        let text = "isolate(m, a, drain=1s) ; (restart(a, grace=500ms) | (wait(2m) ; probe(b, within=1h)))";
        let plan = read(text).expect("a plan");
        let names: Vec<&str> = plan.steps().iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["isolate", "restart", "wait", "probe"]);
        let Part::InTurn(parts) = &plan else {
            panic!("{plan:?}")
        };
        assert!(matches!(&parts[1], Part::SideBySide(inner) if inner.len() == 2));
        let steps = plan.steps();
        assert_eq!((steps[0].at(0), steps[0].at(1)), (Some("m"), Some("a")));
        assert_eq!(steps[1].seconds("grace"), Some(0.5));
        assert_eq!(steps[2].at(0), Some("2m"));
        assert_eq!(steps[3].seconds("within"), Some(3600.0));
        for wrong in ["", "restart", "wait(1s) ;", "(wait(1s)", "wait(1s)) "] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
