//! Times and addresses as logs say them.

use std::net::IpAddr;
use std::time::Duration;

/// A time in whole milliseconds.
pub(crate) fn milliseconds(time: Option<Duration>) -> Option<String> {
    Some(time?.as_millis().to_string())
}

/// A time in UTC; with an argument, in that `strftime` format (`%f` and the like are fractions of a second).
pub(crate) fn start_time(time: jiff::Timestamp, format: Option<&str>) -> Option<String> {
    match format {
        None | Some("") => Some(format!("{time:.3}")),
        Some(format) => jiff::fmt::strtime::format(format, time).ok(),
    }
}

/// An address, or, with a number of bits, the network of that size in which it is.
pub(crate) fn masked(address: IpAddr, bits: Option<&str>) -> Option<String> {
    let Some(bits) = bits else { return Some(address.to_string()) };
    let mut bits: u32 = bits.parse().ok()?;
    let network = match address {
        IpAddr::V4(v4) => {
            bits = bits.min(32);
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            IpAddr::from((u32::from(v4) & mask).to_be_bytes())
        }
        IpAddr::V6(v6) => {
            bits = bits.min(128);
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            IpAddr::from((u128::from(v6) & mask).to_be_bytes())
        }
    };
    Some(format!("{network}/{bits}"))
}

/// The name of this machine.
pub(crate) fn hostname() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned())
}
