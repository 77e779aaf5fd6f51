//! Which local port stands for which node: given once, kept on disk, never given to another node.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::net::HostPort;

/// Name of the file in the state directory.
const FILE: &str = "rewrite-ports.json";

/// Largest file that is read: 65,535 ports with the longest names fit.
const MAX_FILE: u64 = 64 << 20;

/// One node's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Its local port.
    pub(super) port: u16,
    /// Where it was last known to be.
    pub(super) target: HostPort,
    /// Ports it had before, which stay its own.
    former: Vec<u16>,
}

/// All places of one cluster, and the ports that other clusters have.
#[derive(Debug)]
pub(super) struct PortTable {
    path: PathBuf,
    cluster: String,
    range: RangeInclusive<u16>,
    reserved: u16,
    nodes: BTreeMap<i32, Place>,
    others: BTreeMap<String, Vec<Entry>>,
    owners: BTreeMap<u16, Owner>,
}

/// Whose a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Node(i32),
    OtherCluster,
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    clusters: BTreeMap<String, Vec<Entry>>,
}

/// A node in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    node_id: i32,
    port: u16,
    target: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<u16>,
}

impl PortTable {
    /// Opens the state directory, makes it where it is missing, and reads the file, if there is one. A damaged file is set aside;
    /// its new name comes back.
    ///
    /// # Errors
    /// What the system says of directory or file, with its path.
    pub(super) fn open(
        state_dir: &Path,
        cluster: &str,
        range: RangeInclusive<u16>,
        reserved: u16,
    ) -> Result<(Self, Option<PathBuf>), (PathBuf, io::Error)> {
        let path = state_dir.join(FILE);
        fs::create_dir_all(state_dir).map_err(|error| (state_dir.to_owned(), error))?;
        let mut table = Self {
            path,
            cluster: cluster.to_owned(),
            range,
            reserved,
            nodes: BTreeMap::new(),
            others: BTreeMap::new(),
            owners: BTreeMap::new(),
        };
        let mut bytes = Vec::new();
        match fs::File::open(&table.path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((table, None)),
            Err(error) => return Err((table.path, error)),
        }
        if table.load(&bytes) {
            return Ok((table, None));
        }
        let aside = table.path.with_extension("json.damaged");
        fs::rename(&table.path, &aside).map_err(|error| (aside.clone(), error))?;
        Ok((table, Some(aside)))
    }

    /// Takes over what a file says; false, and nothing taken, when it is damaged.
    fn load(&mut self, bytes: &[u8]) -> bool {
        let Ok(mut file) = serde_json::from_slice::<File>(bytes) else { return false };
        let own = file.clusters.remove(&self.cluster).unwrap_or_default();
        let (mut nodes, mut owners) = (BTreeMap::new(), BTreeMap::new());
        for entry in file.clusters.values().flatten() {
            owners.extend(entry.ports().map(|port| (port, Owner::OtherCluster)));
        }
        for entry in own {
            let Ok(target) = entry.target.parse() else { return false };
            for port in entry.ports() {
                if owners.insert(port, Owner::Node(entry.node_id)).is_some() {
                    return false;
                }
            }
            let place = Place { port: entry.port, target, former: entry.former };
            if entry.node_id < 0 || nodes.insert(entry.node_id, place).is_some() {
                return false;
            }
        }
        (self.nodes, self.owners, self.others) = (nodes, owners, file.clusters);
        true
    }

    /// Nodes that have a place whose port may still be used.
    pub(super) fn usable(&self) -> impl Iterator<Item = (i32, &Place)> {
        self.nodes.iter().filter(|(_, place)| self.may_use(place.port)).map(|(&node_id, place)| (node_id, place))
    }

    /// Ports to try for a node: its own, then free ones from the lowest on.
    pub(super) fn candidates(&self, node_id: i32) -> Vec<u16> {
        let own = self.nodes.get(&node_id).map(|place| place.port);
        let free = self.range.clone().filter(|port| match self.owners.get(port) {
            None => true,
            Some(owner) => *owner == Owner::Node(node_id),
        });
        own.into_iter().chain(free.filter(|port| Some(*port) != own)).filter(|port| self.may_use(*port)).collect()
    }

    fn may_use(&self, port: u16) -> bool {
        port != 0 && port != self.reserved && self.range.contains(&port)
    }

    /// Notes where a node is to be found, here and there. The caller saves.
    pub(super) fn assign(&mut self, node_id: i32, port: u16, target: &HostPort) {
        let place =
            self.nodes.entry(node_id).or_insert_with(|| Place { port, target: target.clone(), former: Vec::new() });
        place.target = target.clone();
        if place.port != port {
            place.former.retain(|former| *former != port);
            place.former.push(place.port);
            place.port = port;
        }
        self.owners.insert(port, Owner::Node(node_id));
    }

    /// Replaces the file. It is on the disk when this returns, so that a port that a client knows is known after a kill as well.
    ///
    /// # Errors
    /// What the system says; the old file is then still there.
    pub(super) fn save(&self) -> io::Result<()> {
        let mut file = File { clusters: self.others.clone() };
        let entries = self.nodes.iter().map(|(&node_id, place)| Entry {
            node_id,
            port: place.port,
            target: place.target.to_string(),
            former: place.former.clone(),
        });
        file.clusters.insert(self.cluster.clone(), entries.collect());
        let partial = self.path.with_extension("json.new");
        let mut out = fs::File::create(&partial)?;
        out.write_all(&serde_json::to_vec_pretty(&file)?)?;
        out.sync_all()?;
        fs::rename(&partial, &self.path)?;
        // The rename is on the disk when its directory is.
        fs::File::open(self.path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
    }

    /// The file, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Entry {
    fn ports(&self) -> impl Iterator<Item = u16> {
        std::iter::once(self.port).chain(self.former.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, cluster: &str) -> (PortTable, Option<PathBuf>) {
        PortTable::open(dir, cluster, 20_000..=20_004, 20_001).expect("opened")
    }

    fn target(text: &str) -> HostPort {
        text.parse().expect("a target")
    }

    #[test]
    fn gives_each_node_its_own_port_for_ever() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut table, _) = open(dir.path(), "orange");
        assert_eq!(table.candidates(7), [20_000, 20_002, 20_003, 20_004], "without the bootstrap listener's");
        table.assign(7, 20_000, &target("b7:9092"));
        table.assign(i32::MAX, 20_003, &target("b8:9092"));
        assert_eq!(table.candidates(9), [20_002, 20_004]);
        table.assign(7, 20_004, &target("b7:9093"));
        assert_eq!(table.candidates(9), [20_002], "a former port stays its node's");
        assert_eq!(table.candidates(7), [20_004, 20_000, 20_002]);
        table.save().expect("saved");

        let (table, damaged) = open(dir.path(), "orange");
        assert_eq!(damaged, None);
        let usable: Vec<_> = table.usable().map(|(id, place)| (id, place.port, place.target.to_string())).collect();
        assert_eq!(usable, [(7, 20_004, "b7:9093".to_owned()), (i32::MAX, 20_003, "b8:9092".to_owned())]);
        assert_eq!(table.candidates(9), [20_002]);
    }

    #[test]
    fn keeps_other_clusters_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut orange, _) = open(dir.path(), "orange");
        orange.assign(1, 20_000, &target("b1:9092"));
        orange.save().expect("saved");
        let (mut grape, _) = open(dir.path(), "grape");
        assert_eq!(grape.candidates(1), [20_002, 20_003, 20_004]);
        grape.assign(1, 20_002, &target("g1:9092"));
        grape.save().expect("saved");
        assert_eq!(open(dir.path(), "orange").0.candidates(1), [20_000, 20_003, 20_004]);
    }

    #[test]
    fn sets_a_damaged_file_aside() {
        let entry = r#"{"node_id":1,"port":20000,"target":"b1:9092"}"#;
        let twice = format!(r#"{{"clusters":{{"orange":[{entry},{}]}}}}"#, entry.replace(":1,", ":2,"));
        let negative = format!(r#"{{"clusters":{{"orange":[{}]}}}}"#, entry.replace(":1,", ":-1,"));
        for text in [
            "",
            "{",
            "[]",
            r#"{"clusters":{"orange":[{"node_id":1,"port":99999,"target":"b1:1"}]}}"#,
            &twice,
            &negative,
        ] {
            let dir = tempfile::tempdir().expect("a directory");
            fs::write(dir.path().join(FILE), text).expect("written");
            let (table, damaged) = open(dir.path(), "orange");
            let damaged = damaged.expect("set aside");
            assert_eq!(fs::read_to_string(damaged).expect("kept"), *text);
            assert_eq!(table.usable().count(), 0);
        }
    }

    #[test]
    fn a_port_outside_the_range_is_not_used_and_not_given_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut table, _) = open(dir.path(), "orange");
        table.assign(1, 20_000, &target("b1:9092"));
        table.save().expect("saved");
        let (mut moved, _) = PortTable::open(dir.path(), "orange", 20_003..=20_004, 1).expect("opened");
        assert_eq!(moved.usable().count(), 0);
        assert_eq!(moved.candidates(1), [20_003, 20_004]);
        moved.assign(1, 20_003, &target("b1:9092"));
        moved.save().expect("saved");
        assert_eq!(open(dir.path(), "orange").0.candidates(2), [20_002, 20_004]);
    }
}
