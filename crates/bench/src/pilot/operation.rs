//! The changes that are measured.

use clap::ValueEnum;

use super::documents::Folder;
use super::fleet::OneOf;
use super::session::Kind;

/// A change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Operation {
    /// Another weight in a VirtualService
    Weight,
    /// An endpoint added to a ServiceEntry, or removed
    Endpoint,
    /// A new service with its rules
    Service,
    /// A new subset in a DestinationRule
    Subset,
    /// Another traffic policy in a DestinationRule
    Rule,
    /// All proxies disconnect, and connect again with nothing
    Reconnect,
    /// A proxy of a new class connects
    Class,
}

/// Everything that a proxy needs: once it has clusters and listeners, it asks for the rest by name and waits for it.
pub(crate) const EVERYTHING: &[OneOf] = &[&[Kind::Clusters], &[Kind::Listeners]];

const ROUTES: OneOf = &[Kind::Routes, Kind::VirtualHosts];

impl Operation {
    /// Returns its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Endpoint => "endpoint",
            Self::Service => "service",
            Self::Subset => "subset",
            Self::Rule => "rule",
            Self::Reconnect => "reconnect",
            Self::Class => "class",
        }
    }

    /// Returns how often it is done for a number of edits: reconnecting costs far more than an edit.
    pub(crate) fn times(self, edits: usize) -> usize {
        if self == Self::Reconnect { edits.div_ceil(10) } else { edits }
    }

    /// Returns the types of which every proxy must get one each.
    pub(crate) fn expected(self) -> &'static [OneOf] {
        match self {
            Self::Weight => &[ROUTES],
            Self::Endpoint => &[&[Kind::Endpoints]],
            Self::Service => &[&[Kind::Clusters], ROUTES],
            Self::Subset | Self::Rule => &[&[Kind::Clusters]],
            Self::Reconnect | Self::Class => EVERYTHING,
        }
    }

    /// Makes an edit in the folder; returns its time.
    pub(crate) fn edit(self, folder: &mut Folder, number: usize) -> anyhow::Result<u64> {
        match self {
            Self::Weight => {
                let service = folder.service(number);
                service.weight = service.weight % 90 + 1;
                let service = service.clone();
                folder.replace_routes(&service)
            }
            Self::Service => folder.add(number),
            _ => {
                let service = match self {
                    // The same service gets an endpoint and loses it.
                    Self::Endpoint => folder.service(number / 2),
                    // Services that have no subset more than the others, where there are enough of them.
                    Self::Rule => folder.service_of_other_half(number),
                    _ => folder.service(number),
                };
                match self {
                    Self::Endpoint if number % 2 == 1 => service.endpoints -= 1,
                    Self::Endpoint => service.endpoints += 1,
                    Self::Subset => service.subsets += 1,
                    _ => service.pending = Some(service.pending.unwrap_or(100) + 1),
                }
                let service = service.clone();
                folder.replace_service(&service)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::documents::Shape;
    use super::*;

    #[test]
    fn every_edit_changes_the_documents() {
        let scratch = tempfile::tempdir().unwrap();
        let shape = Shape { services: 5, endpoints: 2, versions: 2 };
        let mut folder = Folder::write(&scratch.path().join("mesh"), shape).unwrap();
        let read = |folder: &Folder| {
            let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
            let mut files: Vec<_> = files.collect();
            files.sort();
            files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect::<String>()
        };
        let mut text = read(&folder);
        for operation in
            [Operation::Weight, Operation::Endpoint, Operation::Subset, Operation::Rule, Operation::Service]
        {
            for number in 0..12 {
                operation.edit(&mut folder, number).unwrap();
                let changed = read(&folder);
                assert_ne!(changed, text, "{} {number}", operation.name());
                text = changed;
            }
        }
    }

    #[test]
    fn the_endpoints_are_the_same_after_an_even_number_of_edits() {
        let scratch = tempfile::tempdir().unwrap();
        let shape = Shape { services: 5, endpoints: 2, versions: 2 };
        let mut folder = Folder::write(&scratch.path().join("mesh"), shape).unwrap();
        for number in 0..8 {
            Operation::Endpoint.edit(&mut folder, number).unwrap();
        }
        assert!((0..5).all(|edit| folder.service(edit).endpoints == 2));
    }
}
