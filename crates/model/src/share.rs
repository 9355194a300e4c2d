//! A share of requests as parts of a million: an integer, so that equal shares are equal values.

/// Parts of a million, 0 to 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// Everything.
    pub const ALL: Self = Self(1_000_000);

    /// From per cent; `None` outside 0 to 100 or below a ten-thousandth of a per cent.
    #[must_use]
    pub fn from_percent(percent: f64) -> Option<Self> {
        let parts = (percent * 10_000.0).round();
        let fine_enough = percent == 0.0 || parts >= 1.0;
        ((0.0..=100.0).contains(&percent) && fine_enough).then_some(Self(parts as u32))
    }

    /// Nothing.
    pub const NONE: Self = Self(0);

    /// From parts of a million; more than all of them is all.
    #[must_use]
    pub fn from_parts(parts: u32) -> Self {
        Self(parts.min(1_000_000))
    }

    /// In per cent.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Parts of a million.
    #[must_use]
    pub fn parts(self) -> u32 {
        self.0
    }
}
