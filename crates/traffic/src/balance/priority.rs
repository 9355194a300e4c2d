//! Shares the load among the priorities. Source: Envoy, "Priority levels", "Panic threshold", "Degraded endpoints";
//! `LoadBalancerBase::recalculatePerPriorityState`.

/// The share of a priority that is available.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Availability {
    /// Per cent, over-provisioning counted.
    healthy: u32,
    /// Per cent, over-provisioning counted.
    degraded: u32,
    /// Endpoints that are healthy or degraded.
    usable: usize,
    /// All endpoints.
    all: usize,
}

impl Availability {
    /// Of so many healthy and degraded endpoints among all; `factor` is the over-provisioning, 140 for 1.4.
    #[must_use]
    pub fn new(healthy: usize, degraded: usize, all: usize, factor: u32) -> Self {
        let share =
            |part: usize| (part as u64 * u64::from(factor)).checked_div(all as u64).unwrap_or(0).min(100) as u32;
        let healthy_share = share(healthy);
        Self {
            healthy: healthy_share,
            degraded: share(degraded).min(100 - healthy_share),
            usable: healthy + degraded,
            all,
        }
    }

    /// Returns true when it has anything.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.healthy + self.degraded > 0
    }

    fn is_below(&self, threshold: u8) -> bool {
        self.all == 0 || self.usable * 100 < usize::from(threshold) * self.all
    }
}

/// The load of every priority, in per cent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loads {
    /// Its healthy endpoints; all of them when it panics.
    pub healthy: Vec<u32>,
    /// Its degraded endpoints.
    pub degraded: Vec<u32>,
    /// True for each priority whose health is disregarded.
    pub panic: Vec<bool>,
}

impl Loads {
    /// The priority that a number draws, and whether from its degraded endpoints.
    pub(super) fn at(&self, number: u64) -> Option<(usize, bool)> {
        let point = (number % 100) as u32 + 1;
        let mut sum = 0;
        for (list, degraded) in [(&self.healthy, false), (&self.degraded, true)] {
            for (priority, load) in list.iter().enumerate() {
                sum += load;
                if point <= sum {
                    return Some((priority, degraded));
                }
            }
        }
        None
    }
}

/// Loads of priorities; `threshold` is the panic threshold in per cent.
#[must_use]
pub fn loads(availability: &[Availability], threshold: u8) -> Loads {
    let normal = availability.iter().map(|a| a.healthy + a.degraded).sum::<u32>().min(100);
    let mut left = 100;
    let mut distribute = |shares: &dyn Fn(&Availability) -> u32| -> Vec<u32> {
        let mut load = |a: &Availability| {
            let load = (shares(a) * 100).checked_div(normal).unwrap_or(0).min(left);
            left -= load;
            load
        };
        availability.iter().map(&mut load).collect()
    };
    let mut healthy = distribute(&|a| a.healthy);
    let mut degraded = distribute(&|a| a.degraded);
    // What is left over comes from rounding.
    let first = |list: &mut Vec<u32>, share: &dyn Fn(&Availability) -> u32| {
        let place = availability.iter().position(|a| share(a) > 0)?;
        list.get_mut(place).map(|load| *load += left)
    };
    if normal > 0 && left > 0 {
        first(&mut healthy, &|a| a.healthy).or_else(|| first(&mut degraded, &|a| a.degraded));
    }
    let panic: Vec<bool> =
        availability.iter().map(|a| normal < 100 && threshold > 0 && a.is_below(threshold)).collect();
    if !panic.is_empty() && panic.iter().all(|p| *p) {
        let all: usize = availability.iter().map(|a| a.all).sum();
        healthy = availability.iter().map(|a| (a.all * 100).checked_div(all).unwrap_or(0) as u32).collect();
        let rest = 100u32.saturating_sub(healthy.iter().sum());
        if let Some(place) = availability.iter().position(|a| a.all > 0) {
            healthy.iter_mut().skip(place).take(1).for_each(|load| *load += rest);
        }
        degraded = vec![0; availability.len()];
    }
    Loads { healthy, degraded, panic }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(healthy: &[usize], threshold: u8) -> Loads {
        let list: Vec<Availability> = healthy.iter().map(|h| Availability::new(*h, 0, 100, 140)).collect();
        loads(&list, threshold)
    }

    /// The tables of Envoy's documentation.
    #[test]
    fn priorities_take_over_from_each_other() {
        for (healthy, load) in [(100, 100), (72, 100), (71, 99), (50, 70), (25, 35), (0, 0)] {
            assert_eq!(of(&[healthy, 100], 50).healthy, [load, 100 - load], "{healthy} %");
        }
        assert_eq!(of(&[25, 25], 0).healthy, [50, 50]);
        assert_eq!(of(&[25, 25, 100], 0).healthy, [35, 35, 30]);
        assert_eq!(
            of(&[25, 25, 20], 0).healthy,
            [37, 35, 28],
            "rounding goes to the first: the documentation says 36, 36, 28"
        );
    }

    #[test]
    fn panic_is_for_when_all_together_have_too_little() {
        assert_eq!(of(&[25, 100], 50).panic, [false, false]);
        assert_eq!(of(&[25, 25], 50).panic, [true, true]);
        assert_eq!(of(&[25, 25], 50).healthy, [50, 50]);
        let uneven = of(&[5, 65], 50);
        assert_eq!((uneven.panic, uneven.healthy), (vec![true, false], vec![8, 92]));
        assert_eq!(of(&[0, 0], 0), Loads { healthy: vec![0, 0], degraded: vec![0, 0], panic: vec![false, false] });
    }

    #[test]
    fn degraded_endpoints_come_after_all_healthy_ones() {
        let list = [Availability::new(50, 50, 100, 140), Availability::new(0, 100, 100, 140)];
        let loads = loads(&list, 50);
        assert_eq!((loads.healthy, loads.degraded), (vec![70, 0], vec![30, 0]));
    }

    #[test]
    fn a_draw_goes_through_all_loads() {
        let loads = Loads { healthy: vec![70, 0], degraded: vec![0, 30], panic: vec![false; 2] };
        assert_eq!(loads.at(69), Some((0, false)));
        assert_eq!(loads.at(70), Some((1, true)));
        assert_eq!(Loads::default().at(0), None);
    }
}
