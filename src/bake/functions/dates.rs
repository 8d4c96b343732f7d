//! Times: RFC 3339 text, formats and durations.

use super::arguments::{any, number, text};
use super::{Function, Outcome, Param, Run};
use crate::bake::clock::{self, Timestamp};
use crate::bake::value::Value;

const fn function(
    name: &'static str,
    params: &'static [Param],
    run: fn(&[Value]) -> Outcome,
) -> Function {
    Function { name, params, variadic: None, run: Run::Pure(run) }
}

pub(super) const FUNCTIONS: &[Function] = &[
    function("formatdate", &[Param::Text, Param::Text], |a| {
        Ok(Value::text(clock::format(text(a, 0)?, &time(text(a, 1)?)?)?))
    }),
    function("formattimestamp", &[Param::Text, Param::Any], |a| {
        let time = match any(a, 1)?.as_text() {
            Some(text) => time(text)?,
            None => unix(a, 1)?,
        };
        match text(a, 0)? {
            "X" => Ok(Value::text(time.unix_s().to_string())),
            format => Ok(Value::text(clock::format(format, &time)?)),
        }
    }),
    Function {
        name: "homedir",
        params: &[],
        variadic: None,
        run: Run::Ambient(|_, ambient| Ok(Value::text(&ambient.home))),
    },
    function("timeadd", &[Param::Text, Param::Text], |a| {
        let sum = time(text(a, 0)?)?.plus(clock::parse_duration(text(a, 1)?)?);
        sum.map(|sum| Value::text(sum.to_string())).ok_or_else(|| "the sum is too late".to_owned())
    }),
    Function {
        name: "timestamp",
        params: &[],
        variadic: None,
        run: Run::Ambient(|_, ambient| {
            let now = Timestamp::of_unix(ambient.now_s).ok_or("the clock is wrong")?;
            Ok(Value::text(now.to_string()))
        }),
    },
    function("unixtimestampparse", &[Param::Number], |a| {
        let time = unix(a, 0)?;
        let members = time.members().into_iter().map(|(name, value)| {
            let value = value.map_or_else(Value::String, Value::integer);
            (name.to_owned(), value)
        });
        Ok(Value::Object(members.collect()))
    }),
];

fn time(text: &str) -> Result<Timestamp, String> {
    let time = Timestamp::parse(text);
    time.ok_or_else(|| format!("{text:?} is not a timestamp such as 2006-01-02T15:04:05Z"))
}

fn unix(values: &[Value], at: usize) -> Result<Timestamp, String> {
    let seconds = number(values, at)?.to_i64();
    let seconds = seconds.ok_or("a unix timestamp must be an integer")?;
    Timestamp::of_unix(seconds).ok_or_else(|| "the timestamp is too large".to_owned())
}
