//! A ring of hashes (ketama): every endpoint has a number of places by its weight, and a request goes to the first place at
//! or after its hash. Source: Envoy `RingHashLoadBalancer`; places and ties are the same, so every proxy agrees.

use xxhash_rust::xxh64::xxh64;

#[derive(Debug)]
pub(super) struct Ring {
    places: Vec<(u64, usize)>,
    shares: Vec<(usize, f64)>,
}

impl Ring {
    /// A ring of endpoints, each with its number, what is hashed for it, and its share of 1.
    pub(super) fn new(shares: &[(usize, &str, f64)], least: u64, most: u64, murmur: bool) -> Self {
        let smallest = shares.iter().map(|(.., share)| *share).fold(1.0, f64::min);
        let scale = ((smallest * least as f64).ceil() / smallest).min(most as f64);
        let mut places = Vec::with_capacity(scale.ceil() as usize);
        let (mut current, mut target) = (0.0, 0.0);
        for (number, key, share) in shares {
            target += scale * share;
            let mut i = 0u64;
            while current < target {
                let text = format!("{key}_{i}");
                let hash = if murmur { murmur2(text.as_bytes()) } else { xxh64(text.as_bytes(), 0) };
                places.push((hash, *number));
                current += 1.0;
                i += 1;
            }
        }
        places.sort_by_key(|(hash, _)| *hash);
        Self { places, shares: shares.iter().map(|(number, _, share)| (*number, *share)).collect() }
    }

    pub(super) fn at(&self, hash: u64, attempt: u32) -> Option<usize> {
        let found = self.places.partition_point(|(place, _)| *place < hash);
        let place = found.checked_rem(self.places.len())?;
        self.places.get((place + attempt as usize) % self.places.len()).map(|(_, number)| *number)
    }

    pub(super) fn shares(&self) -> &[(usize, f64)] {
        &self.shares
    }
}

/// MurmurHash2 with 64 bits, as libstdc++'s `std::hash` has it.
fn murmur2(bytes: &[u8]) -> u64 {
    const MUL: u64 = 0xc6a4_a793_5bd1_e995;
    const SEED: u64 = 0xc70f_6907;
    let mix = |v: u64| v ^ (v >> 47);
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MUL);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        hash = (hash ^ mix(word.wrapping_mul(MUL)).wrapping_mul(MUL)).wrapping_mul(MUL);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(MUL);
    }
    mix(mix(hash).wrapping_mul(MUL))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Envoy's own test of its ring: six endpoints, at least 12 places.
    #[test]
    fn places_are_envoys() {
        let keys: Vec<String> = (90..96).map(|port| format!("127.0.0.1:{port}")).collect();
        let shares: Vec<(usize, &str, f64)> =
            keys.iter().enumerate().map(|(i, k)| (90 + i, k.as_str(), 1.0 / 6.0)).collect();
        let ring = Ring::new(&shares, 12, 8_388_608, false);
        let expected = [
            (833_437_586_790_550_860, 94),
            (928_266_305_478_181_108, 92),
            (1_033_482_794_131_418_490, 90),
            (3_551_244_743_356_806_947, 95),
            (3_851_675_632_748_031_481, 93),
            (5_583_722_120_771_150_861, 91),
            (6_311_230_543_546_372_928, 91),
            (7_700_377_290_971_790_572, 93),
            (13_144_177_310_400_110_813, 95),
            (13_444_792_449_719_432_967, 92),
            (15_516_499_411_664_133_160, 94),
            (16_117_243_373_044_804_889, 90),
        ];
        assert_eq!(ring.places, expected);
        for (hash, port) in [(0, 94), (u64::MAX, 94), (3_551_244_743_356_806_947, 95), (3_551_244_743_356_806_948, 93)]
        {
            assert_eq!(ring.at(hash, 0), Some(port));
        }
    }

    #[test]
    fn murmur_is_that_of_libstdcxx() {
        // `std::hash<std::string>{}("127.0.0.1:90_0")` and of the empty string, by g++ 12 on x86-64.
        assert_eq!(murmur2(b""), 6_142_509_188_972_423_790);
    }
}
