//! `setenv.sh`: the one file that is the same on both hosts, and from which `linkspan init` makes each side's files.
//!
//! Nothing in it is executed (`config::shell` says what is understood). Every mistake is reported in one run. A side's files hold only what that
//! side needs: the source never gets credentials of the destination.

mod read;
mod render;
mod write;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use super::error::ConfigErrors;
use super::{Secret, load as loader};
use crate::net::HostPort;

pub use render::{Content, FileEntry, Files};
pub use write::{Action, WriteError, WrittenFile};

/// The template with every key explained; its placeholders are refused.
pub const TEMPLATE: &str = include_str!("../../../setenv.sh.template");

/// Which host the files are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Beside the cluster whose topics are copied.
    Source,
    /// Beside the cluster that the copies go to.
    Destination,
}

impl Side {
    /// `source` or `destination`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }
}

/// What `setenv.sh` says, checked.
#[derive(Debug, Clone)]
pub struct SetEnv {
    /// Name of the link: `LINK_NAME`, or made of both cluster ids.
    pub link: String,
    /// The cluster that is read.
    pub source: ClusterEnv,
    /// The cluster that is written.
    pub destination: ClusterEnv,
    /// `REPLICA_TOPICS_SOURCE_REGEX`.
    pub topics: String,
    /// `REPLICA_TOPICS_EXCLUDE_REGEX`; `None` for the default.
    pub exclude: Option<String>,
    /// `REPLICA_TOPICS_DEST_SUFFIX`; empty keeps the names.
    pub suffix: String,
    /// The tunnel's port.
    pub tunnel_port: u16,
    /// Which side opens it.
    pub listen_side: Side,
    /// How both sides prove who they are.
    pub transport: Transport,
    /// How clients beside the destination reach the source's brokers.
    pub proxy: ProxyMode,
    /// `ADMIN_LISTEN`; `None` for the default.
    pub admin_listen: Option<String>,
    /// `EXPOSE_ALLOW`: what the destination may reach at the source, beside what the source cluster advertises.
    pub expose_allow: Vec<String>,
    /// `EXPOSE_RESOLVE`: fixed addresses of names at the source.
    pub expose_resolve: BTreeMap<String, Vec<IpAddr>>,
    /// `STATE_DIR`, relative to the written configuration.
    pub state_dir: String,
}

/// One cluster of `setenv.sh`.
#[derive(Debug, Clone)]
pub struct ClusterEnv {
    /// `…_CLUSTER_ID`.
    pub id: String,
    /// `…_BROKER_SERVERS`.
    pub servers: Vec<HostPort>,
    /// `…_SECURITY_PROTOCOL`.
    pub protocol: String,
    /// `…_SASL_MECHANISM`.
    pub mechanism: String,
    /// `…_API_KEY` and `…_API_SECRET`.
    pub credentials: Option<(String, Secret)>,
    /// The text of `…_CA_FILE`.
    pub ca: Option<String>,
    /// `…_SIDE_TUNNEL_IP`: address of the host beside this cluster, as the other network sees it.
    pub tunnel_ip: String,
}

/// `TUNNEL_TRANSPORT`.
#[derive(Debug, Clone)]
pub enum Transport {
    /// By `SHARED_SECRET`.
    Noise(Secret),
    /// By certificates that `linkspan certs` makes.
    Tls,
}

/// `PROXY_MODE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// Under their own names.
    Names,
    /// Under local addresses.
    Rewrite,
    /// Not at all.
    Off,
}

/// Reads and checks a file. Relative paths in it begin at its directory.
///
/// # Errors
/// Every mistake of the file at once, also that it cannot be read.
pub fn load(path: &Path) -> Result<SetEnv, ConfigErrors> {
    parse(&loader::read_text(path)?, path)
}

/// Checks a text as if it stood in the file `file_name`, which need not exist.
///
/// # Errors
/// Every mistake at once.
pub fn parse(text: &str, file_name: &Path) -> Result<SetEnv, ConfigErrors> {
    read::read(text, file_name)
}

impl SetEnv {
    /// The cluster beside `side`.
    #[must_use]
    pub const fn cluster(&self, side: Side) -> &ClusterEnv {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }

    /// The files of one side, with nothing in them that this side does not need.
    #[must_use]
    pub fn render(&self, side: Side) -> Files {
        render::render(self, side)
    }
}

/// Keys that must be there, in the order of the template.
pub const REQUIRED: &[&str] = &[
    "SOURCE_CLUSTER_ID",
    "SOURCE_BROKER_SERVERS",
    "SOURCE_API_KEY",
    "SOURCE_API_SECRET",
    "DESTINATION_CLUSTER_ID",
    "DESTINATION_BROKER_SERVERS",
    "DESTINATION_API_KEY",
    "DESTINATION_API_SECRET",
    "REPLICA_TOPICS_SOURCE_REGEX",
    "REPLICA_TOPICS_DEST_SUFFIX",
    "SOURCE_SIDE_TUNNEL_IP",
    "DESTINATION_SIDE_TUNNEL_IP",
    "SHARED_SECRET",
];

/// Keys that may be there.
pub const OPTIONAL: &[&str] = &[
    "LINK_NAME",
    "TUNNEL_PORT",
    "TUNNEL_LISTEN_SIDE",
    "TUNNEL_TRANSPORT",
    "SOURCE_SECURITY_PROTOCOL",
    "SOURCE_SASL_MECHANISM",
    "SOURCE_CA_FILE",
    "DESTINATION_SECURITY_PROTOCOL",
    "DESTINATION_SASL_MECHANISM",
    "DESTINATION_CA_FILE",
    "REPLICA_TOPICS_EXCLUDE_REGEX",
    "PROXY_MODE",
    "EXPOSE_ALLOW",
    "EXPOSE_RESOLVE",
    "ADMIN_LISTEN",
    "STATE_DIR",
];
