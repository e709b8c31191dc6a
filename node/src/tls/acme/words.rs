//! What an authority says is wrong (RFC 8555, section 6.7), as people are shown it: in its own words, bounded, and without what
//! proves that a name is this node's.

use instant_acme::{Identifier, Problem};

/// The longest text, in characters.
const MAX_CHARS: usize = 700;
/// The most subproblems that are shown.
const MAX_SUBPROBLEMS: usize = 5;
/// A run of so many letters of base64url or hexadecimal is the thumbprint of a key, a token or a digest.
const SECRET_CHARS: usize = 40;

/// The problem's type, detail and subproblems as one line.
pub fn of_problem(problem: &Problem) -> String {
    let mut text = plain(problem.detail.as_deref(), problem.r#type.as_deref());
    for subproblem in problem.subproblems.iter().take(MAX_SUBPROBLEMS) {
        let about = match &subproblem.identifier {
            Some(Identifier::Dns(name)) => format!("{name}: "),
            _ => String::new(),
        };
        text.push_str("; ");
        text.push_str(&about);
        text.push_str(&plain(subproblem.detail.as_deref(), subproblem.r#type.as_deref()));
    }
    let left = problem.subproblems.len().saturating_sub(MAX_SUBPROBLEMS);
    if left > 0 {
        text.push_str(&format!("; and {left} more"));
    }
    shown(&text)
}

fn plain(detail: Option<&str>, kind: Option<&str>) -> String {
    match (detail, kind) {
        (Some(detail), Some(kind)) => format!("{detail} ({kind})"),
        (Some(only), None) | (None, Some(only)) => only.to_owned(),
        (None, None) => "the authority gave no reason".to_owned(),
    }
}

/// A text of a stranger: one line, bounded, with long runs of letters hidden.
pub fn shown(text: &str) -> String {
    let line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(8 * MAX_CHARS).collect();
    let mut shown = String::new();
    let mut run = String::new();
    let end = |run: &mut String, shown: &mut String| {
        // All that is counted is ASCII.
        shown.push_str(if run.len() >= SECRET_CHARS { "(hidden)" } else { run });
        run.clear();
    };
    for c in line.chars() {
        if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
            run.push(c);
            continue;
        }
        end(&mut run, &mut shown);
        shown.push(c);
    }
    end(&mut run, &mut shown);
    if shown.chars().count() > MAX_CHARS {
        shown = shown.chars().take(MAX_CHARS).chain(['…']).collect();
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn problem(json: &str) -> Problem {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn type_detail_and_subproblems_are_shown() {
        let said = of_problem(&problem(
            r#"{"type":"urn:ietf:params:acme:error:compound","detail":"Two names","subproblems":[
                {"type":"urn:ietf:params:acme:error:caa","detail":"CAA forbids","identifier":{"type":"dns","value":"a.example.org"}},
                {"type":"urn:ietf:params:acme:error:dns"}]}"#,
        ));
        assert_eq!(
            said,
            "Two names (urn:ietf:params:acme:error:compound); a.example.org: CAA forbids \
             (urn:ietf:params:acme:error:caa); urn:ietf:params:acme:error:dns"
        );
        assert_eq!(of_problem(&problem("{}")), "the authority gave no reason");
    }

    #[test]
    fn what_proves_a_name_is_hidden_and_no_text_is_long() {
        let token = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
        let print = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
        let said = shown(&format!("Expected \"{token}.{print}\" (got \"404\nnot found\")"));
        assert_eq!(said, "Expected \"(hidden).(hidden)\" (got \"404 not found\")");
        assert!(shown(&"word ".repeat(10_000)).chars().count() <= MAX_CHARS + 1);
        let many = format!(r#"{{"detail":"d","subproblems":[{}]}}"#, [r#"{"detail":"x"}"#; 9].join(","));
        assert!(of_problem(&problem(&many)).ends_with("; and 4 more"));
    }
}
