//! Ranges of IP addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use envoy_types::pb::envoy::config::core::v3 as core;

use crate::{Error, Path};

/// Addresses that share their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Creates the range of the addresses that share that many first bits with this one; at most all of its bits count.
    #[must_use]
    pub fn new(address: IpAddr, bits: u32) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let bits = bits.min(32);
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                Self { address: Ipv4Addr::from_bits(v4.to_bits() & mask).into(), bits }
            }
            IpAddr::V6(v6) => {
                let bits = bits.min(128);
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                Self { address: Ipv6Addr::from_bits(v6.to_bits() & mask).into(), bits }
            }
        }
    }

    pub(crate) fn decode(value: &core::CidrRange, path: &Path<'_>) -> Result<Self, Error> {
        let here = path.field("address_prefix");
        let address: IpAddr = value
            .address_prefix
            .parse()
            .map_err(|_| here.error(format!("'{}' is no address", value.address_prefix)))?;
        let bits = value.prefix_len.as_ref().map_or(0, |v| v.value);
        if bits > 128 {
            return Err(path.field("prefix_len").error("must be at most 128"));
        }
        Ok(Self::new(address, bits))
    }

    pub(crate) fn encode(&self) -> core::CidrRange {
        core::CidrRange {
            address_prefix: self.address.to_string(),
            prefix_len: Some(crate::convert::wrap_u32(self.bits)),
        }
    }

    /// Returns the number of first bits that its addresses share.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
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
        let network = Network::new("10.1.2.3".parse().unwrap(), 16);
        assert!(
            network.contains("10.1.255.1".parse().unwrap()) && network.contains("::ffff:10.1.0.9".parse().unwrap())
        );
        assert!(!network.contains("10.2.0.1".parse().unwrap()) && !network.contains("::1".parse().unwrap()));
        let all = Network::new("0.0.0.0".parse().unwrap(), 0);
        assert!(all.contains("1.2.3.4".parse().unwrap()));
        let one = Network::new("::1".parse().unwrap(), 200);
        assert!(one.contains("::1".parse().unwrap()) && !one.contains("::2".parse().unwrap()));
        assert_eq!(network, Network::new("10.1.0.0".parse().unwrap(), 16));
    }
}
