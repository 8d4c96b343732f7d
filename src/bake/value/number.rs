//! Numbers of definition files: binary floating point with the precision that buildx has.
//!
//! cty (github.com/zclconf/go-cty) computes with Go's `big.Float`: 512 bits for literals, 64 for
//! lengths, 53 for values of the environment. The result of an operation has the larger precision.

use std::cmp::Ordering;
use std::fmt;

use num_bigint::{BigInt, BigUint, Sign};

use crate::limits::MAX_BAKE_NUMBER_DIGITS;

/// Precision of literals in bits.
const LITERAL: u64 = 512;
/// Precision of integers that functions return.
const INTEGER: u64 = 64;
/// Precision of numbers from the environment.
const DOUBLE: u64 = 53;

/// A number: `mantissa × 2^exponent`, rounded to `precision` bits.
#[derive(Debug, Clone)]
pub struct Number {
    mantissa: BigInt,
    exponent: i64,
    precision: u64,
}

impl Number {
    /// Reads a decimal literal, such as `1.5e3`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_with(text, LITERAL)
    }

    /// Reads a number from an environment variable, which has the precision of a double.
    #[must_use]
    pub fn parse_double(text: &str) -> Option<Self> {
        Self::parse_with(text, DOUBLE)
    }

    fn parse_with(text: &str, precision: u64) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (digits, power) = match digits.split_once(['e', 'E']) {
            Some((digits, power)) => (digits, power.parse::<i64>().ok()?),
            None => (digits, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all: String = [whole, fraction].concat();
        let bad = all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit());
        if bad || all.len() > MAX_BAKE_NUMBER_DIGITS {
            return None;
        }
        let mut mantissa = BigInt::parse_bytes(all.as_bytes(), 10)?;
        if negative {
            mantissa = -mantissa;
        }
        let power = power.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        let size = u32::try_from(power.unsigned_abs()).ok()?;
        if usize::try_from(size).ok()? > MAX_BAKE_NUMBER_DIGITS {
            return None;
        }
        let ten = BigInt::from(10).pow(size);
        Some(if power >= 0 {
            Self::rounded(mantissa * ten, 0, precision, false)
        } else {
            quotient(&mantissa, &ten, 0, precision)
        })
    }

    /// Makes an integer, as `length` returns it.
    #[must_use]
    pub fn integer(value: i64) -> Self {
        Self::rounded(BigInt::from(value), 0, INTEGER, false)
    }

    /// Makes an integer of any size with the precision of a literal.
    #[must_use]
    pub fn big(value: BigInt) -> Self {
        Self::rounded(value, 0, LITERAL, false)
    }

    /// Makes the number that is nearest to a double. Not finite: `None`.
    #[must_use]
    pub fn double(value: f64) -> Option<Self> {
        value.is_finite().then(|| Self::parse_double(&format!("{value}"))).flatten()
    }

    /// Rounds to nearest, ties to even. `sticky`: the true value is a little larger in magnitude.
    fn rounded(mut mantissa: BigInt, mut exponent: i64, precision: u64, sticky: bool) -> Self {
        let bits = mantissa.bits();
        if bits > precision {
            let drop = bits - precision;
            let (sign, magnitude) = mantissa.into_parts();
            let kept = &magnitude >> drop;
            let rest = &magnitude - (&kept << drop);
            let half = BigUint::from(1_u8) << (drop - 1);
            let up = match rest.cmp(&half) {
                Ordering::Greater => true,
                Ordering::Equal => sticky || kept.bit(0),
                Ordering::Less => false,
            };
            let kept = if up { kept + 1_u8 } else { kept };
            mantissa = BigInt::from_biguint(sign, kept);
            exponent = exponent.saturating_add_unsigned(drop);
        }
        match mantissa.trailing_zeros() {
            Some(zeros) => {
                mantissa >>= zeros;
                exponent = exponent.saturating_add_unsigned(zeros);
            }
            None => exponent = 0,
        }
        Self { mantissa, exponent, precision }
    }

    /// Returns both mantissas at the smaller of the two exponents.
    fn aligned(&self, other: &Self) -> Option<(BigInt, BigInt, i64)> {
        let exponent = self.exponent.min(other.exponent);
        let shift = |number: &Self| {
            let by = u64::try_from(number.exponent - exponent).ok()?;
            (by <= 100_000).then(|| &number.mantissa << by)
        };
        Some((shift(self)?, shift(other)?, exponent))
    }

    fn finer(&self, other: &Self) -> u64 {
        self.precision.max(other.precision)
    }

    /// Returns the sum, or `None` if the sizes differ absurdly.
    #[must_use]
    pub fn add(&self, other: &Self) -> Option<Self> {
        let (a, b, exponent) = self.aligned(other)?;
        Some(Self::rounded(a + b, exponent, self.finer(other), false))
    }

    /// Returns the difference.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Option<Self> {
        self.add(&other.negate())
    }

    /// Returns the product.
    #[must_use]
    pub fn multiply(&self, other: &Self) -> Option<Self> {
        let exponent = self.exponent.checked_add(other.exponent)?;
        let fits = exponent.unsigned_abs() <= 100_000;
        fits.then(|| {
            Self::rounded(&self.mantissa * &other.mantissa, exponent, self.finer(other), false)
        })
    }

    /// Returns the quotient, or `None` for a division by zero.
    #[must_use]
    pub fn divide(&self, other: &Self) -> Option<Self> {
        if other.is_zero() {
            return None;
        }
        let exponent = self.exponent.checked_sub(other.exponent)?;
        let fits = exponent.unsigned_abs() <= 100_000;
        fits.then(|| quotient(&self.mantissa, &other.mantissa, exponent, self.finer(other)))
    }

    /// Returns the remainder of a division truncated towards zero.
    #[must_use]
    pub fn modulo(&self, other: &Self) -> Option<Self> {
        let whole = self.divide(other)?.truncate();
        self.subtract(&whole.multiply(other)?)
    }

    /// Returns the number with the other sign.
    #[must_use]
    pub fn negate(&self) -> Self {
        Self { mantissa: -&self.mantissa, ..self.clone() }
    }

    /// Returns the number without its sign.
    #[must_use]
    pub fn absolute(&self) -> Self {
        if self.signum() < 0 { self.negate() } else { self.clone() }
    }

    /// Returns -1, 0 or 1.
    #[must_use]
    pub fn signum(&self) -> i64 {
        match self.mantissa.sign() {
            Sign::Minus => -1,
            Sign::NoSign => 0,
            Sign::Plus => 1,
        }
    }

    /// Returns whether the number is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.signum() == 0
    }

    /// Returns whether the number is an integer.
    #[must_use]
    pub fn is_integer(&self) -> bool {
        // The mantissa is odd, so a negative exponent leaves a fraction.
        self.exponent >= 0
    }

    /// Returns the integer part.
    #[must_use]
    pub fn truncate(&self) -> Self {
        if self.is_integer() {
            return self.clone();
        }
        let (sign, magnitude) = self.mantissa.clone().into_parts();
        let kept = magnitude >> self.exponent.unsigned_abs();
        Self::rounded(BigInt::from_biguint(sign, kept), 0, self.precision, false)
    }

    /// Returns the largest integer that is not above the number.
    #[must_use]
    pub fn floor(&self) -> Self {
        let whole = self.truncate();
        let below = self.signum() < 0 && !self.is_integer();
        if below { whole.subtract(&Self::integer(1)).unwrap_or(whole) } else { whole }
    }

    /// Returns the smallest integer that is not below the number.
    #[must_use]
    pub fn ceil(&self) -> Self {
        self.negate().floor().negate()
    }

    /// Returns the number as an integer of unlimited size, if it is one.
    #[must_use]
    pub fn to_integer(&self) -> Option<BigInt> {
        let shift = u64::try_from(self.exponent).ok()?;
        (shift <= 100_000).then(|| &self.mantissa << shift)
    }

    /// Returns the number as an `i64`, if it is an integer in its range.
    #[must_use]
    pub fn to_i64(&self) -> Option<i64> {
        i64::try_from(self.to_integer()?).ok()
    }

    /// Returns the number as an index, if it is one.
    #[must_use]
    pub fn to_usize(&self) -> Option<usize> {
        usize::try_from(self.to_integer()?).ok()
    }

    /// Returns the nearest double.
    #[must_use]
    pub fn to_f64(&self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }
}

/// Divides two mantissas, with enough bits to round correctly.
fn quotient(a: &BigInt, b: &BigInt, exponent: i64, precision: u64) -> Number {
    let shift = (precision + 2 + b.bits()).saturating_sub(a.bits());
    let (sign, magnitude) = (a << shift).into_parts();
    let divisor = b.magnitude();
    let result = &magnitude / divisor;
    // One more bit below the result stands for the remainder.
    let inexact = &result * divisor != magnitude;
    let result = (result << 1_u8) + u8::from(inexact);
    let sign = if b.sign() == Sign::Minus { -sign } else { sign };
    let exponent = exponent.saturating_sub_unsigned(shift + 1);
    Number::rounded(BigInt::from_biguint(sign, result), exponent, precision, inexact)
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.mantissa == other.mantissa && self.exponent == other.exponent
    }
}

impl Eq for Number {}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.aligned(other) {
            Some((a, b, _)) => a.cmp(&b),
            None => self.signum().cmp(&other.signum()).then_with(|| {
                let size = |number: &Self| {
                    let bits = i64::try_from(number.mantissa.bits()).unwrap_or(i64::MAX);
                    number.exponent.saturating_add(bits)
                };
                let order = size(self).cmp(&size(other));
                if self.signum() < 0 { order.reverse() } else { order }
            }),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Writes the fewest decimal digits that denote the number at its precision, without an exponent.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.signum() < 0 { "-" } else { "" };
        let magnitude = self.mantissa.magnitude();
        if self.exponent >= 0 {
            return write!(f, "{sign}{}", magnitude << self.exponent.unsigned_abs());
        }
        let (digits, point) = shortest(magnitude, self.exponent.unsigned_abs(), self.precision);
        if point <= 0 {
            let zeros = "0".repeat(usize::try_from(-point).unwrap_or(0));
            return write!(f, "{sign}0.{zeros}{digits}");
        }
        let point = usize::try_from(point).unwrap_or(0);
        let (whole, fraction) = digits.split_at_checked(point).unwrap_or((&digits, ""));
        let zeros = "0".repeat(point.saturating_sub(digits.len()));
        let dot = if fraction.is_empty() { "" } else { "." };
        write!(f, "{sign}{whole}{zeros}{dot}{fraction}")
    }
}

/// Returns the shortest digits for `mantissa / 2^down`, and the position of the decimal point.
///
/// The numbers that round to the same value at `precision` reach half a unit of the last bit up and
/// down. Digits are produced until the rest fits into that interval.
fn shortest(mantissa: &BigUint, down: u64, precision: u64) -> (String, i64) {
    let spare = precision.saturating_sub(mantissa.bits());
    // value = mantissa · 2^(spare+1) / scale, half a unit = 1 / scale.
    let mut rest = mantissa << (spare + 1);
    let mut scale = BigUint::from(1_u8) << (down + spare + 1);
    let mut half = BigUint::from(1_u8);
    let ten = BigUint::from(10_u8);
    let mut point = 0_i64;
    while rest >= scale {
        scale *= &ten;
        point += 1;
    }
    while &rest * &ten < scale {
        rest *= &ten;
        half *= &ten;
        point -= 1;
    }
    let mut digits = String::new();
    loop {
        rest *= &ten;
        half *= &ten;
        let digit = &rest / &scale;
        rest -= &digit * &scale;
        let digit = u32::try_from(&digit).unwrap_or(0);
        let low = rest <= half;
        let high = &rest + &half >= scale;
        let digit = match (low, high) {
            (false, false) => {
                digits.extend(char::from_digit(digit, 10));
                continue;
            }
            (true, false) => digit,
            (false, true) => digit + 1,
            (true, true) => digit + u32::from(&rest * 2_u8 >= scale),
        };
        push_carrying(&mut digits, digit, &mut point);
        return (digits, point);
    }
}

/// Appends the last digit, which may be ten.
fn push_carrying(digits: &mut String, last: u32, point: &mut i64) {
    if last < 10 {
        digits.extend(char::from_digit(last, 10));
        return;
    }
    loop {
        match digits.pop().and_then(|digit| digit.to_digit(10)) {
            None => {
                digits.push('1');
                *point += 1;
                return;
            }
            Some(9) => {}
            Some(digit) => {
                digits.extend(char::from_digit(digit + 1, 10));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn decimals_print_as_few_digits_as_denote_them() {
        for text in ["0", "1", "-1", "0.1", "3.14", "100", "-0.001", "123456789.987654321"] {
            assert_eq!(number(text).to_string(), text);
        }
        assert_eq!(number("1e3").to_string(), "1000");
        assert_eq!(number("0.1").add(&number("0.2")).unwrap().to_string(), "0.3");
        assert_eq!(Number::parse_double("0.1").unwrap().to_string(), "0.1");
    }

    #[test]
    fn a_third_has_the_digits_of_512_bits_or_of_64() {
        // Recorded: buildx 0.29, `1/3`.
        let third = number("1").divide(&number("3")).unwrap().to_string();
        assert_eq!(third, format!("0.{}5", "3".repeat(154)));
        let short = Number::integer(1).divide(&Number::integer(3)).unwrap().to_string();
        assert_eq!(short, "0.33333333333333333334");
    }

    #[test]
    fn rounding_to_integers_follows_the_sign() {
        let n = number("-2.5");
        assert_eq!(n.floor(), number("-3"));
        assert_eq!(n.ceil(), number("-2"));
        assert_eq!(n.truncate(), number("-2"));
        assert_eq!(number("-7").modulo(&number("3")).unwrap(), number("-1"));
        assert!(number("0.5") < number("1") && number("-1") < number("-0.5"));
    }
}
