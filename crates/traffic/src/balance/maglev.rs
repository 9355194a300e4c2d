//! Maglev: a table whose size is a prime, filled by every endpoint's own permutation in turn (Eisenbud et al., NSDI 2016).
//! Source: Envoy `MaglevTable`, whose tables these are.

use xxhash_rust::xxh64::xxh64;

#[derive(Debug)]
pub(super) struct Maglev {
    table: Vec<usize>,
    shares: Vec<(usize, f64)>,
}

struct Build<'a> {
    number: usize,
    key: &'a str,
    offset: u64,
    skip: u64,
    share: f64,
    target: f64,
    next: u64,
}

impl Maglev {
    /// A table of endpoints, each with its number, what is hashed for it, and its share of 1.
    pub(super) fn new(shares: &[(usize, &str, f64)], size: u64) -> Self {
        let most = shares.iter().map(|(.., share)| *share).fold(0.0, f64::max);
        let mut entries: Vec<Build<'_>> = shares
            .iter()
            .map(|(number, key, share)| Build {
                number: *number,
                key,
                offset: xxh64(key.as_bytes(), 0) % size,
                skip: xxh64(key.as_bytes(), 1) % (size - 1) + 1,
                share: *share,
                target: 0.0,
                next: 0,
            })
            .collect();
        // The order decides who gets a place that several want; it must not depend on how endpoints are listed.
        entries.sort_by(|a, b| a.key.cmp(b.key));
        let mut table = vec![usize::MAX; size as usize];
        let mut filled = 0;
        let mut iteration = 1.0;
        while filled < size {
            for entry in &mut entries {
                if filled == size || iteration * entry.share < entry.target {
                    continue;
                }
                entry.target += most;
                loop {
                    let place =
                        (u128::from(entry.offset) + u128::from(entry.skip) * u128::from(entry.next)) % u128::from(size);
                    entry.next += 1;
                    if let Some(free) = table.get_mut(place as usize).filter(|t| **t == usize::MAX) {
                        *free = entry.number;
                        break;
                    }
                }
                filled += 1;
            }
            iteration += 1.0;
        }
        Self { table, shares: shares.iter().map(|(number, _, share)| (*number, *share)).collect() }
    }

    pub(super) fn at(&self, hash: u64, attempt: u32) -> Option<usize> {
        let hash = if attempt > 0 { hash ^ (u64::MAX - u64::from(attempt) + 1) } else { hash };
        self.table.get((hash % self.table.len() as u64) as usize).copied()
    }

    pub(super) fn shares(&self) -> &[(usize, f64)] {
        &self.shares
    }
}

/// Returns true when a table may have this size.
#[must_use]
pub fn is_prime(number: u64) -> bool {
    number > 1 && (2..).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(keys: &[String], shares: &[f64], size: u64) -> Vec<usize> {
        let list: Vec<(usize, &str, f64)> =
            keys.iter().zip(shares).enumerate().map(|(i, (k, s))| (i, k.as_str(), *s)).collect();
        Maglev::new(&list, size).table
    }

    /// The tables of Envoy's own tests.
    #[test]
    fn tables_are_envoys() {
        let addresses = |count: u16| (90..90 + count).map(|p| format!("127.0.0.1:{p}")).collect::<Vec<_>>();
        let names: Vec<String> = (90..96).map(|p| p.to_string()).collect();
        assert_eq!(table(&addresses(6), &[1.0 / 6.0; 6], 7), [2, 4, 0, 1, 5, 0, 3]);
        assert_eq!(table(&names, &[1.0 / 6.0; 6], 7), [2, 5, 0, 3, 4, 1, 0]);
        let two = addresses(2);
        assert_eq!(table(&two, &[1.0 / 3.0, 2.0 / 3.0], 17), [1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1]);
        assert_eq!(table(&two, &[0.5, 0.5], 17), [1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1]);
        assert_eq!(table(&two, &[0.8, 0.2], 17), [1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn weights_are_kept_to_one_place() {
        let keys: Vec<String> = (90..92).map(|p| format!("127.0.0.1:{p}")).collect();
        let counts = table(&keys, &[1.0 / 3.0, 2.0 / 3.0], 65_537).iter().filter(|n| **n == 0).count();
        assert_eq!(counts, 21_846);
    }

    #[test]
    fn few_keys_move_when_one_of_a_hundred_leaves() {
        let keys: Vec<String> = (0..100).map(|p| format!("10.0.0.{p}:80")).collect();
        let before = table(&keys, &[0.01; 100], 65_537);
        let list: Vec<(usize, &str, f64)> =
            keys.iter().enumerate().filter(|(i, _)| *i != 42).map(|(i, k)| (i, k.as_str(), 1.0 / 99.0)).collect();
        let after = Maglev::new(&list, 65_537).table;
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b && **a != 42).count();
        assert!(moved * 100 < 65_537 * 2, "{moved} of 65537 moved");
    }

    #[test]
    fn primes() {
        assert!(is_prime(65_537) && is_prime(2) && !is_prime(65_536) && !is_prime(1) && !is_prime(5_000_012));
    }
}
