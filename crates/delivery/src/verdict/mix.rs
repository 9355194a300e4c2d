//! Classes of statuses: whether a candidate answers otherwise, whatever counts as a failure.

use serde::{Deserialize, Serialize};
use serin_model::{Analysis, OnMix};

use super::report::share_of;
use super::{Judgement, TOLERATED};
use crate::evidence::{Arm, Class};
use crate::judge::{Regression, Window, shifted};

/// Responses of a class among all. Earlier pilots wrote a pair, which is read too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfClass {
    /// Responses of the class.
    pub of_class: u64,
    /// All requests meanwhile.
    pub requests: u64,
}

impl OfClass {
    fn add(&mut self, of_class: u64, requests: u64) {
        self.of_class += of_class;
        self.requests += requests;
    }
}

/// Evidence that one class of statuses has another share of the candidate's requests than of the others'.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// The candidate's responses of this class, and all its requests meanwhile.
    pub candidate: OfClass,
    /// The others'.
    pub others: OfClass,
    more: Regression,
    fewer: Regression,
}

impl Mix {
    fn is_much(&self) -> bool {
        self.candidate.of_class + self.others.of_class >= MIX_ANSWERS
    }
}

/// Responses of a class that it takes to speak of a difference.
const MIX_ANSWERS: u64 = 10;

impl Judgement {
    pub(super) fn compare_classes(&mut self, own: &Arm, others: &Arm) {
        for class in Class::ALL {
            let (hits, misses) = (own.of_class(class), others.of_class(class));
            if hits + misses == 0 && !self.mix.contains_key(&class) {
                continue;
            }
            let mix = self.mix.entry(class).or_default();
            mix.candidate.add(hits, own.requests);
            mix.others.add(misses, others.requests);
            // Responses may be told apart from requests, so all requests so far say which share is whose.
            let share = mix.candidate.requests as f64 / (mix.candidate.requests + mix.others.requests).max(1) as f64;
            if share <= 0.0 || share >= 1.0 {
                continue;
            }
            let (hits, misses) = (hits as f64, misses as f64);
            mix.more.add(Window { candidate: hits, others: misses, share: shifted(TOLERATED, share) });
            mix.fewer.add(Window { candidate: misses, others: hits, share: shifted(TOLERATED, 1.0 - share) });
        }
    }

    /// The sentences about classes of statuses that differ.
    pub(crate) fn mixed(&self, analysis: &Analysis) -> Vec<String> {
        if analysis.on_mix == OnMix::Ignore {
            return Vec::new();
        }
        let needed = (1.0 / analysis.rollback_alpha).ln();
        let differs = |mix: &Mix| mix.is_much() && mix.more.ln_evidence().max(mix.fewer.ln_evidence()) >= needed;
        // Where the release does not say what fails, these are failures, and judged as such.
        let is_told = |class: Class| class != Class::ServerErrors || analysis.failures.is_some();
        let found = self.mix.iter().filter(|(class, mix)| is_told(**class) && differs(mix));
        found
            .map(|(class, mix)| {
                format!(
                    "different mix of status classes: {} of the candidate's requests were answered {}, {} of the stable version's",
                    share_of(mix.candidate.of_class, mix.candidate.requests),
                    class.words(),
                    share_of(mix.others.of_class, mix.others.requests)
                )
            })
            .collect()
    }

    /// The sentence about responses that the candidate gives more often, that fail anywhere else and that the release does not call failures.
    pub(super) fn overlooked(&self, analysis: &Analysis) -> Option<String> {
        let list = analysis.failures.as_ref().filter(|_| analysis.on_mix != OnMix::Ignore)?;
        let needed = (1.0 / analysis.rollback_alpha).ln();
        let counted = |key: &u32| list.iter().any(|f| f.means(*key));
        let answers = |class: Class| self.candidate.answers.iter().filter(move |(key, _)| class.has(**key));
        let mut found = self.mix.iter().filter(|(class, mix)| {
            class.fails()
                && mix.is_much()
                && mix.more.ln_evidence() >= needed
                && answers(**class).any(|(key, _)| !counted(key))
        });
        found.next().map(|(class, mix)| {
            format!(
                "{} of the candidate's requests were answered {}, {} of the stable version's, and analysis.failures does not count all of these: a person must decide",
                share_of(mix.candidate.of_class, mix.candidate.requests),
                class.words(),
                share_of(mix.others.of_class, mix.others.requests)
            )
        })
    }
}
