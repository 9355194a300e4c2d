//! Ranges of IP addresses.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3 as core;

use crate::{Error, Path};

/// Addresses that share their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    pub(crate) fn decode(value: &core::CidrRange, path: &Path<'_>) -> Result<Self, Error> {
        let here = path.field("address_prefix");
        let address: IpAddr = value
            .address_prefix
            .parse()
            .map_err(|_| here.error(format!("'{}' is no address", value.address_prefix)))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = value.prefix_len.as_ref().map_or(0, |v| v.value);
        if bits > most {
            return Err(path.field("prefix_len").error(format!("must be at most {most}")));
        }
        Ok(Self { address, bits })
    }

    pub(crate) fn encode(&self) -> core::CidrRange {
        core::CidrRange {
            address_prefix: self.address.to_string(),
            prefix_len: Some(crate::convert::wrap_u32(self.bits)),
        }
    }

    /// Returns true when an address is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let same =
            |own: u128, other: u128, width: u32| self.bits == 0 || (own ^ other) >> (width - self.bits.min(width)) == 0;
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(own.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bits_decide() {
        let network = Network { address: "10.1.0.0".parse().unwrap(), bits: 16 };
        assert!(
            network.contains("10.1.255.1".parse().unwrap()) && network.contains("::ffff:10.1.0.9".parse().unwrap())
        );
        assert!(!network.contains("10.2.0.1".parse().unwrap()) && !network.contains("::1".parse().unwrap()));
        let all = Network { address: "0.0.0.0".parse().unwrap(), bits: 0 };
        assert!(all.contains("1.2.3.4".parse().unwrap()));
    }
}
