//! Whether retention patterns compile in zot: globs and Go regular expressions (spec §2.3).
//!
//! Both checks err on the side of silence: what they report is certainly invalid, but not everything invalid is found.

use std::iter::Peekable;
use std::str::Chars;

/// Why a repository glob is invalid.
#[must_use]
pub(super) fn glob_problem(glob: &str) -> Option<&'static str> {
    let mut chars = glob.chars();
    let mut braces = 0usize;
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.next().is_none() => return Some("ends in a backslash"),
            '[' => {
                // One negation; only a `]` right after it is refused.
                let mut next = chars.next();
                if matches!(next, Some('^' | '!')) {
                    next = chars.next();
                }
                if next == Some(']') {
                    return Some("has an empty character class");
                }
                loop {
                    match next {
                        None => return Some("has an unclosed ["),
                        Some('\\') if chars.next().is_none() => return Some("ends in a backslash"),
                        Some(']') => break,
                        Some(_) => next = chars.next(),
                    }
                }
            }
            '{' => braces += 1,
            '}' => match braces.checked_sub(1) {
                Some(rest) => braces = rest,
                None => return Some("has a } without {"),
            },
            _ => {}
        }
    }
    (braces > 0).then_some("has an unclosed {")
}

/// Why a tag pattern is no Go regular expression.
#[must_use]
pub(super) fn regex_problem(regex: &str) -> Option<&'static str> {
    let mut chars = regex.chars().peekable();
    let mut open = 0usize;
    // Whether something precedes that a repetition can apply to.
    let mut atom = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                None => return Some("ends in a backslash"),
                // Quoting changes the rules for what follows; leave that to zot.
                Some('Q') => return None,
                Some('1'..='9') => return Some("uses a back-reference"),
                Some(_) => atom = true,
            },
            '(' => {
                open += 1;
                let before = atom;
                atom = false;
                if chars.next_if_eq(&'?').is_some() {
                    match chars.next() {
                        Some('=' | '!') => return Some("uses look-around"),
                        Some('<') if matches!(chars.peek(), Some('=' | '!')) => return Some("uses look-around"),
                        None => return Some("has an unclosed ("),
                        Some(':') => {}
                        Some(_) => {
                            // Flags or a group name up to `:`, `>` or `)`.
                            loop {
                                match chars.next() {
                                    None => return Some("has an unclosed ("),
                                    Some(')') => {
                                        // Only flags: what stood before them can still be repeated.
                                        open = open.saturating_sub(1);
                                        atom = before;
                                        break;
                                    }
                                    Some(':' | '>') => break,
                                    Some(_) => {}
                                }
                            }
                        }
                    }
                }
            }
            ')' => {
                match open.checked_sub(1) {
                    Some(rest) => open = rest,
                    None => return Some("has a ) without ("),
                }
                atom = true;
            }
            '|' => atom = false,
            '[' => {
                let _ = chars.next_if_eq(&'^');
                // A closing bracket in first place is a member.
                let _ = chars.next_if_eq(&']');
                loop {
                    match chars.next() {
                        None => return Some("has an unclosed ["),
                        Some(']') => break,
                        Some('[') if chars.peek() == Some(&':') => skip_named_class(&mut chars),
                        Some('\\') if chars.next().is_none() => return Some("ends in a backslash"),
                        Some(_) => {}
                    }
                }
                atom = true;
            }
            '*' | '+' | '?' => {
                if !atom {
                    return Some("has a repetition with nothing to repeat");
                }
                // A lazy mark belongs to the repetition; another repetition is refused.
                let _ = chars.next_if_eq(&'?');
                if matches!(chars.peek(), Some('*' | '+' | '?')) {
                    return Some("repeats a repetition");
                }
            }
            _ => atom = true,
        }
    }
    (open > 0).then_some("has an unclosed (")
}

/// Go past a named class such as `[:alpha:]`, of which the `[` is gone. Without a `:]` the `[` stands for itself.
fn skip_named_class(chars: &mut Peekable<Chars<'_>>) {
    let mut ahead = chars.clone();
    let _ = ahead.next();
    while let Some(c) = ahead.next() {
        if c == ':' && ahead.next_if_eq(&']').is_some() {
            *chars = ahead;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for good in [
            "**",
            "infra/*",
            "{a,b}/[a-z]?",
            "a\\[",
            "[^a]",
            "[!a]x",
            "",
            "{a,{b,c}}",
            "tmp/**",
            "[^^]",
            "[^!]*",
            "[!^]",
        ] {
            assert_eq!(glob_problem(good), None, "{good}");
        }
        for bad in ["[", "[a", "[]", "{a", "a}", "a\\", "[a\\", "[^]", "[!]a]", "[^^", "[^"] {
            assert!(glob_problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn regular_expressions() {
        for good in [
            ".*",
            "v2.*",
            ".*-prod",
            "",
            "^v[0-9]+(\\.[0-9]+)*$",
            "(?i)a",
            "(?:a|b)+?",
            "(?P<n>x)",
            "(?<n>x)",
            "[]a]",
            "[^]]",
            "a{2}",
            "a{",
            "]",
            "}",
            "[[:alpha:]]+",
            "[a-z[:digit:]_+*.-]+",
            "[[:alpha:](]",
            "[[:digit:])]+",
            "[[:alnum:]?*]x",
            "[[:]",
            "a(?i)*",
            "(?i)",
            "\\d+\\.\\w*?",
            "a|",
            "\\Qa(\\E",
            "[a\\]]",
        ] {
            assert_eq!(regex_problem(good), None, "{good}");
        }
        for bad in [
            "*",
            "(",
            ")",
            "a(b",
            "[",
            "[a",
            "\\",
            "a**",
            "a+*",
            "+",
            "(*a)",
            "a|*",
            "(?=a)",
            "(?!a)",
            "(?<=a)b",
            "(a)\\1",
            "(?i)*",
            "[[:alpha:]",
            "[[:digit:]_",
            "a|(?i)*",
        ] {
            assert!(regex_problem(bad).is_some(), "{bad}");
        }
    }
}
