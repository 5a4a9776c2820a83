//! Numbers in scripts: sums and products of decimals, hexadecimals and variables, and patterns of
//! them.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::fmt;

/// The values of `$NAME`.
pub type Variables = BTreeMap<String, i64>;

/// The value of an expression such as `1+2*$MSS` or `-1`; no blanks, products before sums.
///
/// # Errors
/// What cannot be read.
pub fn evaluate(text: &str, variables: &Variables) -> Result<i64, String> {
    let mut rest = text;
    let mut total = 0_i64;
    let mut first = true;
    let overflow = || format!("{text}: too large");
    while !rest.is_empty() || first {
        let negative = match rest.as_bytes().first() {
            Some(b'+') if !first => {
                rest = &rest[1..];
                false
            }
            Some(b'-') => {
                rest = &rest[1..];
                true
            }
            _ if first => false,
            _ => return Err(format!("{text}: `{rest}` is no number")),
        };
        first = false;
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        let (term, after) = rest.split_at(end);
        rest = after;
        let mut product = 1_i64;
        for factor in term.split('*') {
            let value = atom(factor, variables).ok_or_else(|| {
                let known = variables.keys();
                let known: String = known.map(|name| format!(" ${name}")).collect();
                format!("`{factor}` is no number (variables:{known})")
            })?;
            product = product.checked_mul(value).ok_or_else(overflow)?;
        }
        let signed = if negative { -product } else { product };
        total = total.checked_add(signed).ok_or_else(overflow)?;
    }
    Ok(total)
}

fn atom(text: &str, variables: &Variables) -> Option<i64> {
    if let Some(name) = text.strip_prefix('$') {
        return variables.get(name).copied();
    }
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        // `parse` alone would take a sign.
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        None => None,
    }
}

/// Which numbers will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `*`
    Any,
    /// `5`, or `2..7` with both ends, either of which may be left out.
    Range(i64, i64),
    /// `=5`: not relative to anything.
    Absolute(i64),
}

impl Pattern {
    /// This number and no other.
    #[must_use]
    pub const fn exactly(number: i64) -> Self {
        Self::Range(number, number)
    }

    /// Reads a pattern.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn parse(text: &str, variables: &Variables) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(number) = text.strip_prefix('=') {
            return Ok(Self::Absolute(evaluate(number, variables)?));
        }
        let Some((low, high)) = text.split_once("..") else {
            return Ok(Self::exactly(evaluate(text, variables)?));
        };
        let end = |text: &str, default| match text {
            "" => Ok(default),
            text => evaluate(text, variables),
        };
        Ok(Self::Range(end(low, i64::MIN)?, end(high, i64::MAX)?))
    }

    /// The only number that will do, if there is only one.
    #[must_use]
    pub const fn number(self) -> Option<i64> {
        match self {
            Self::Range(low, high) if low == high => Some(low),
            Self::Absolute(number) => Some(number),
            _ => None,
        }
    }

    /// Whether a number that is relative to nothing will do.
    #[must_use]
    pub fn matches(self, number: i64) -> bool {
        match self {
            Self::Any => true,
            Self::Range(low, high) => (low..=high).contains(&number),
            Self::Absolute(only) => only == number,
        }
    }

    /// Whether a sequence number will do: `base` is what the script counts from.
    #[must_use]
    pub fn matches_seq(self, number: u32, base: u32) -> bool {
        match self {
            Self::Absolute(only) => only == i64::from(number),
            _ => self.matches(relative(number, base)),
        }
    }
}

/// A sequence number as the script counts; one that is shortly before the base is negative.
#[must_use]
pub fn relative(number: u32, base: u32) -> i64 {
    i64::from(number.wrapping_sub(base).cast_signed())
}

/// The sequence number that a script means.
#[must_use]
pub fn absolute(number: Pattern, base: u32) -> Option<u32> {
    let low_half = |number: i64| u32::try_from(number & 0xffff_ffff).ok();
    match number {
        Pattern::Absolute(number) => low_half(number),
        pattern => Some(base.wrapping_add(low_half(pattern.number()?)?)),
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Any => f.write_str("*"),
            Self::Absolute(number) => write!(f, "={number}"),
            Self::Range(low, high) if low == high => write!(f, "{low}"),
            Self::Range(i64::MIN, high) => write!(f, "..{high}"),
            Self::Range(low, i64::MAX) => write!(f, "{low}.."),
            Self::Range(low, high) => write!(f, "{low}..{high}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    fn variables() -> Variables {
        [("MSS".into(), 1460)].into()
    }

    #[test]
    fn expressions() {
        let value = |text| evaluate(text, &variables());
        assert_eq!(value("1+2*$MSS"), Ok(2921));
        assert_eq!(value("$MSS-12"), Ok(1448));
        assert_eq!(value("-1"), Ok(-1));
        assert_eq!(value("0x10*2-1"), Ok(31));
        for bad in [
            "",
            "+",
            "1+",
            "1 2",
            "x",
            "$NO",
            "1**2",
            "--1",
            "0x",
            "9999999999999999999",
        ] {
            assert!(value(bad).is_err(), "{bad:?} was read");
        }
        let error = value("1+$NO").unwrap_err();
        assert_eq!(error, "`$NO` is no number (variables: $MSS)");
    }

    #[test]
    fn patterns() {
        let pattern = |text| Pattern::parse(text, &variables()).unwrap();
        assert!(pattern("*").matches(-5));
        assert!(pattern("5").matches(5) && !pattern("5").matches(6));
        assert!(pattern("2..$MSS").matches(1460) && !pattern("2..4").matches(5));
        assert!(pattern("3..").matches(i64::MAX) && !pattern("3..").matches(2));
        assert!(pattern("..3").matches(-9) && !pattern("..3").matches(4));
        for text in ["*", "5", "2..4", "3..", "..3", "=7"] {
            assert_eq!(pattern(text).to_string(), text);
        }
    }

    #[test]
    fn sequence_numbers_wrap() {
        let base = u32::MAX - 1;
        assert_eq!(relative(3, base), 5);
        assert_eq!(relative(base - 1, base), -1);
        assert_eq!(absolute(Pattern::exactly(5), base), Some(3));
        assert_eq!(absolute(Pattern::exactly(-1), base), Some(base - 1));
        assert_eq!(absolute(Pattern::Absolute(5), base), Some(5));
        assert_eq!(absolute(Pattern::Any, base), None);
        assert!(Pattern::Absolute(3).matches_seq(3, base));
        assert!(Pattern::Range(4, 6).matches_seq(3, base));
    }
}
