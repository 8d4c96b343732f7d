//! Networks: addresses and prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::arguments::{number, text, whole};
use super::{Function, Outcome, Param, Run};
use crate::bake::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "cidrhost",
        params: &[Param::Text, Param::Number],
        variadic: None,
        run: Run::Pure(host),
    },
    Function {
        name: "cidrnetmask",
        params: &[Param::Text],
        variadic: None,
        run: Run::Pure(|a| {
            let network = Network::parse(text(a, 0)?)?;
            if network.width == 128 {
                return Err("IPv6 networks have no netmask".to_owned());
            }
            Ok(Value::text(network.with_bits(network.mask()).to_string()))
        }),
    },
    Function {
        name: "cidrsubnet",
        params: &[Param::Text, Param::Number, Param::Number],
        variadic: None,
        run: Run::Pure(|a| {
            let number = number(a, 2)?.to_integer().and_then(|number| u128::try_from(number).ok());
            let number = number.ok_or("the number of the network must be a whole number")?;
            let network = Network::parse(text(a, 0)?)?;
            Ok(Value::text(network.subnet(whole(a, 1)?, number)?.to_string()))
        }),
    },
    Function {
        name: "cidrsubnets",
        params: &[Param::Text],
        variadic: Some(Param::Number),
        run: Run::Pure(subnets),
    },
];

/// A network: an address without the bits of the host, and the length of the prefix.
#[derive(Debug, Clone, Copy)]
struct Network {
    bits: u128,
    prefix: u32,
    /// Bits of an address: 32 or 128.
    width: u32,
}

impl Network {
    fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a network such as 10.0.0.0/8");
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let (bits, width) = match address.parse::<IpAddr>().ok().ok_or_else(bad)? {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        let prefix = prefix.parse::<u32>().ok().filter(|prefix| *prefix <= width);
        let network = Self { bits, prefix: prefix.ok_or_else(bad)?, width };
        Ok(Self { bits: bits & network.mask(), ..network })
    }

    /// Returns the bits of the network part.
    fn mask(&self) -> u128 {
        let all = u128::MAX >> (128 - self.width);
        all & !all.checked_shr(self.prefix).unwrap_or(0)
    }

    fn with_bits(&self, bits: u128) -> IpAddr {
        match self.width {
            32 => IpAddr::V4(Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX))),
            _ => IpAddr::V6(Ipv6Addr::from(bits)),
        }
    }

    fn subnet(&self, extra: i64, number: u128) -> Result<Self, String> {
        let extra = u32::try_from(extra).ok().ok_or("the number of new bits is negative")?;
        let prefix = self.prefix.checked_add(extra).filter(|prefix| *prefix <= self.width);
        let prefix = prefix
            .ok_or_else(|| format!("a prefix of {} cannot grow by {extra} bits", self.prefix))?;
        if number.checked_shr(extra).unwrap_or(0) != 0 {
            return Err(format!("{extra} new bits cannot hold the number {number}"));
        }
        let bits = self.bits | number.checked_shl(self.width - prefix).unwrap_or(0);
        Ok(Self { bits, prefix, width: self.width })
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.with_bits(self.bits), self.prefix)
    }
}

/// Returns the address of a host; a negative number counts from the end.
fn host(values: &[Value]) -> Outcome {
    let network = Network::parse(text(values, 0)?)?;
    let number = number(values, 1)?;
    let index = number.absolute().to_integer().and_then(|index| u128::try_from(index).ok());
    let index = index.ok_or("the number of the host must be a whole number")?;
    let hosts = !network.mask() & (u128::MAX >> (128 - network.width));
    let index = if number.signum() < 0 { hosts.checked_sub(index - 1) } else { Some(index) };
    let index = index.filter(|index| *index <= hosts);
    let index = index.ok_or_else(|| format!("the network {network} has no host {number}"))?;
    Ok(Value::text(network.with_bits(network.bits | index).to_string()))
}

/// Returns networks that follow one another, each with its own number of new bits.
fn subnets(values: &[Value]) -> Outcome {
    let network = Network::parse(text(values, 0)?)?;
    let end = network.bits | (!network.mask() & (u128::MAX >> (128 - network.width)));
    let mut found = Vec::new();
    let mut next = Some(network.bits);
    for at in 1..values.len() {
        let extra = whole(values, at)?;
        if extra < 1 {
            return Err("at least one new bit is needed".to_owned());
        }
        let size = network.subnet(extra, 0)?;
        let step = 1_u128.checked_shl(network.width - size.prefix).unwrap_or(0);
        let full = || format!("{network} cannot hold network {at}");
        let start = next.ok_or_else(full)?.checked_next_multiple_of(step).ok_or_else(full)?;
        if start > end {
            return Err(full());
        }
        found.push(Network { bits: start, ..size }.to_string());
        next = start.checked_add(step);
    }
    Ok(Value::texts(found))
}
