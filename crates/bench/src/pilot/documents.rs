//! The documents of a mesh: one file a service with its endpoints and subsets, and one with its weighted routes.
//!
//! The services are in the namespace `default`. Everything is text of Istio's API that other pilots can read too.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::clients::now;

/// The size of a mesh.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) services: usize,
    /// Endpoints of a service.
    pub(crate) endpoints: usize,
    /// Versions of a service; each is a subset.
    pub(crate) versions: usize,
}

/// Addresses that are kept for a service.
pub(crate) const ADDRESSES: usize = 256;

/// The state of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) index: usize,
    /// Percent that go to the second version.
    pub(crate) weight: usize,
    pub(crate) endpoints: usize,
    pub(crate) versions: usize,
    /// Subsets in addition to the versions.
    pub(crate) subsets: usize,
    /// Limit on pending requests, where there is a traffic policy.
    pub(crate) pending: Option<usize>,
}

impl Service {
    fn new(index: usize, shape: Shape) -> Self {
        let Shape { endpoints, versions, .. } = shape;
        Self { index, weight: 10, endpoints, versions, subsets: 0, pending: None }
    }

    /// Returns its ServiceEntry and its DestinationRule.
    pub(crate) fn text(&self) -> String {
        let Self { index, endpoints, versions, subsets, pending, .. } = self;
        let mut text = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: s{index}, namespace: default}}\nspec:\n  \
             hosts: [s{index}.default.svc.cluster.local]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  \
             ports: [{{number: 80, name: http, protocol: HTTP}}]\n  endpoints:\n"
        );
        for endpoint in 0..*endpoints {
            let address = Ipv4Addr::from_bits(0x0a00_0000 + (index * ADDRESSES + endpoint + 1) as u32);
            // The formatting of a String cannot fail.
            let _ = writeln!(text, "  - {{address: {address}, labels: {{version: v{}}}}}", endpoint % versions + 1);
        }
        let _ = write!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: s{index}, namespace: default}}\n\
             spec:\n  host: s{index}.default.svc.cluster.local\n"
        );
        if let Some(pending) = pending {
            let _ =
                writeln!(text, "  trafficPolicy: {{connectionPool: {{http: {{http1MaxPendingRequests: {pending}}}}}}}");
        }
        text.push_str("  subsets:\n");
        for version in 1..=*versions {
            let _ = writeln!(text, "  - {{name: v{version}, labels: {{version: v{version}}}}}");
        }
        for subset in 1..=*subsets {
            let _ = writeln!(text, "  - {{name: extra{subset}, labels: {{version: v1}}}}");
        }
        text
    }

    /// Returns its VirtualService.
    pub(crate) fn routes(&self) -> String {
        let Self { index, weight, .. } = self;
        let host = format!("s{index}.default.svc.cluster.local");
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: s{index}, namespace: default}}\nspec:\n  \
             hosts: [{host}]\n  http:\n  - route:\n    \
             - {{destination: {{host: {host}, subset: v1}}, weight: {}}}\n    \
             - {{destination: {{host: {host}, subset: v2}}, weight: {weight}}}\n",
            100 - weight
        )
    }
}

/// The folder of documents, with the state of every service in it.
pub(crate) struct Folder {
    path: PathBuf,
    shape: Shape,
    services: Vec<Service>,
}

impl Folder {
    /// Writes all documents into an empty folder.
    pub(crate) fn write(path: &Path, shape: Shape) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let services: Vec<Service> = (0..shape.services).map(|index| Service::new(index, shape)).collect();
        for service in &services {
            std::fs::write(path.join(format!("s{}.yaml", service.index)), service.text())?;
            std::fs::write(path.join(format!("v{}.yaml", service.index)), service.routes())?;
        }
        Ok(Self { path: path.to_owned(), shape, services })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the service of an edit; edits that follow each other change services that are far apart.
    pub(crate) fn service(&mut self, edit: usize) -> &mut Service {
        let count = self.services.len();
        &mut self.services[(edit * 7 + 3) % count]
    }

    /// Returns another service than [`Folder::service`] does.
    pub(crate) fn service_of_other_half(&mut self, edit: usize) -> &mut Service {
        let count = self.services.len();
        &mut self.services[(edit * 7 + 3 + count / 2) % count]
    }

    /// Replaces the routes of a service; returns the time of the change.
    pub(crate) fn replace_routes(&self, service: &Service) -> anyhow::Result<u64> {
        self.replace(&format!("v{}.yaml", service.index), &service.routes())
    }

    /// Replaces the endpoints and subsets of a service; returns the time of the change.
    pub(crate) fn replace_service(&self, service: &Service) -> anyhow::Result<u64> {
        self.replace(&format!("s{}.yaml", service.index), &service.text())
    }

    /// Adds a service with its rules, in one file; returns the time of the change.
    pub(crate) fn add(&self, number: usize) -> anyhow::Result<u64> {
        let service = Service::new(self.shape.services + number, self.shape);
        self.replace(&format!("n{number}.yaml"), &format!("{}---\n{}", service.text(), service.routes()))
    }

    /// Removes an added service.
    pub(crate) fn remove(&self, number: usize) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.path.join(format!("n{number}.yaml")))?)
    }

    /// Writes a hidden file and renames it, so that nobody reads half of it.
    fn replace(&self, name: &str, text: &str) -> anyhow::Result<u64> {
        let hidden = self.path.join(".edit");
        std::fs::write(&hidden, text)?;
        let started = now();
        std::fs::rename(&hidden, self.path.join(name))?;
        Ok(started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { services: 3, endpoints: 4, versions: 2 };

    #[test]
    fn a_service_is_one_valid_file() {
        let service = Service { subsets: 1, pending: Some(7), ..Service::new(1, SHAPE) };
        let text = service.text();
        let documents: Vec<&str> = text.split("---\n").collect();
        assert_eq!(documents.len(), 2);
        let value: serde_json::Value = serde_saphyr::from_str(documents[0]).unwrap();
        assert_eq!(value["spec"]["endpoints"].as_array().unwrap().len(), 4);
        assert_eq!(value["spec"]["endpoints"][1]["labels"]["version"], "v2");
        let value: serde_json::Value = serde_saphyr::from_str(documents[1]).unwrap();
        assert_eq!(value["spec"]["subsets"].as_array().unwrap().len(), 3);
        assert_eq!(value["spec"]["trafficPolicy"]["connectionPool"]["http"]["http1MaxPendingRequests"], 7);
        let value: serde_json::Value = serde_saphyr::from_str(&service.routes()).unwrap();
        assert_eq!(value["spec"]["http"][0]["route"][0]["weight"], 90);
    }

    #[test]
    fn no_two_services_share_an_address() {
        let added = |index| Service { endpoints: 5, ..Service::new(index, SHAPE) };
        let addresses = |text: String| -> Vec<String> {
            let lines = text.lines().filter_map(|line| line.trim().strip_prefix("- {address: ").map(str::to_owned));
            lines.map(|line| line.split(',').next().unwrap().to_owned()).collect()
        };
        let mut all: Vec<String> = (0..300).flat_map(|index| addresses(added(index).text())).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!((count, all.len()), (1500, 1500));
    }

    #[test]
    fn an_edit_leaves_no_hidden_file() {
        let scratch = tempfile::tempdir().unwrap();
        let mut folder = Folder::write(&scratch.path().join("mesh"), SHAPE).unwrap();
        let service = folder.service(1);
        service.weight = 30;
        let service = service.clone();
        folder.replace_routes(&service).unwrap();
        folder.add(0).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["n0.yaml", "s0.yaml", "s1.yaml", "s2.yaml", "v0.yaml", "v1.yaml", "v2.yaml"]);
        assert!(std::fs::read_to_string(folder.path().join("v1.yaml")).unwrap().contains("weight: 70"));
    }
}
