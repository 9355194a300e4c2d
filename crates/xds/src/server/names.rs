//! A set of names that takes as little memory as may be: each of thousands of clients has one, with thousands of names.

use std::sync::Arc;

/// Names in their order.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<Arc<str>>);

impl Names {
    /// Returns whether a name is there.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|known| (**known).cmp(name))
    }

    /// Takes names in.
    pub(super) fn extend(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        let before = self.0.len();
        self.0.extend(names);
        if self.0.len() > before {
            self.0.sort();
            self.0.dedup();
            self.0.shrink_to_fit();
        }
    }

    /// Takes a name out.
    pub(super) fn remove(&mut self, name: &str) {
        if let Ok(place) = self.find(name) {
            self.0.remove(place);
        }
    }

    /// Returns the names that `other` does not have.
    pub(super) fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Arc<str>> {
        self.0.iter().filter(|name| !other.contains(name))
    }
}

impl FromIterator<Arc<str>> for Names {
    fn from_iter<I: IntoIterator<Item = Arc<str>>>(names: I) -> Self {
        let mut all = Self::default();
        all.extend(names);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_set() {
        let mut names: Names = ["b", "a", "b", "d"].map(Arc::from).into_iter().collect();
        names.extend(["c", "a"].map(Arc::from));
        let other: Names = ["a", "x"].map(Arc::from).into_iter().collect();
        assert_eq!(names.without(&other).map(|name| &**name).collect::<Vec<_>>(), ["b", "c", "d"]);
        names.remove("b");
        names.remove("x");
        assert!(names.contains("a") && names.contains("d") && !names.contains("b") && !names.contains(""));
    }
}
