//! The TLS of clusters.

use std::sync::Arc;

use serin_resources::cluster::Cluster;
use serin_resources::tls::UpstreamTls;

use super::Store;
use crate::error::Error;
use crate::tls::{ClientSlot, TlsStore};

impl Store {
    /// Checks what the TLS of a cluster of the bootstrap is made of.
    pub(super) fn check_fixed(&self, cluster: &Cluster) -> Result<(), Error> {
        for settings in tls_of(cluster) {
            self.sockets.tls.client(settings, &cluster.names)?;
        }
        Ok(())
    }

    /// The same for one of discovery, whose files may come later.
    pub(super) fn check_cluster(&self, cluster: &Cluster) -> Result<(), Error> {
        for settings in tls_of(cluster) {
            self.sockets.tls.client(settings, &cluster.names).map(drop).or_else(|p| p.refuses(&cluster.name))?;
        }
        Ok(())
    }
}

/// All TLS settings of a cluster.
pub(super) fn tls_of(cluster: &Cluster) -> impl Iterator<Item = &UpstreamTls> {
    cluster.tls_matches.iter().filter_map(|matching| matching.tls.as_ref()).chain(&cluster.tls)
}

/// Returns true when both speak to the same endpoints in the same way. Connections of other TLS are not used again: the endpoints are
/// others then.
pub(super) fn has_same_tls(one: &Cluster, other: &Cluster) -> bool {
    one.tls == other.tls && one.tls_matches == other.tls_matches && one.names == other.names
}

/// The TLS of a cluster's matches, in their order, and that of all other endpoints. What could be used when the cluster
/// was accepted, and cannot be any more, makes no connections.
pub(super) fn slots(tls: &TlsStore, cluster: &Cluster) -> Vec<Option<Arc<ClientSlot>>> {
    let slot = |settings: Option<&UpstreamTls>| Some(tls.client_anyway(settings?, &cluster.names).0);
    let matching = cluster.tls_matches.iter().map(|matching| slot(matching.tls.as_ref()));
    matching.chain([slot(cluster.tls.as_ref())]).collect()
}

#[cfg(test)]
mod tests {
    use serin_resources::cluster::Discovery;
    use serin_resources::tls::{CommonTls, DataSource, Validation, ValidationSource};

    use super::*;

    #[test]
    fn what_cannot_be_read_any_more_is_not_spoken_to_in_plain_text() {
        let mut cluster = Cluster::new("a".to_owned(), Discovery::Eds("a".to_owned()));
        let trusted = Some(DataSource::File("/none/ca.pem".to_owned()));
        let given = Some(Validation { trusted, ..Validation::default() });
        let validation = Some(ValidationSource { given, secret: None });
        cluster.tls =
            Some(UpstreamTls { common: CommonTls { validation, ..CommonTls::default() }, ..UpstreamTls::default() });
        let slots = slots(&TlsStore::default(), &cluster);
        assert!(matches!(slots.as_slice(), [Some(slot)] if slot.current().is_none()), "no slot means plain text");
    }
}
