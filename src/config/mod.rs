//! The operator's file, parsed once into one typed [`Config`] that cannot be wrong.
//!
//! Rules kept here: every mistake of a file is reported in one run, with line, column and the nearest valid name; secrets are
//! read from files or the environment and never shown; each domain gets its own struct and sees no other.

mod env;
mod error;
pub mod firewall;
mod load;
mod raw;
mod secret;
pub mod setenv;
mod shell;
mod value;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use env::{Env, MapEnv, ProcessEnv, SecretFile, WithoutSecrets};
pub use error::{ConfigErrors, ErrorCode, Finding, Source};
pub use load::{Loaded, Origin, Setting, keys, load, parse};
pub use secret::Secret;

use crate::net::HostPort;

/// Everything one endpoint was told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of the link, the same on both sides: `[a-z0-9-]{1,63}`.
    pub link: String,
    /// The cluster beside this process.
    pub local: ClusterConfig,
    /// The cluster at the other end.
    pub peer: ClusterConfig,
    /// How the two endpoints reach and recognise each other.
    pub tunnel: TunnelConfig,
    /// What the peer may reach here.
    pub expose: ExposeConfig,
    /// How local clients reach the peer's brokers.
    pub proxy: ProxyConfig,
    /// What is copied from the peer's cluster into the local one.
    pub replicate: Vec<FlowConfig>,
    /// The local admin port.
    pub admin: AdminConfig,
    /// Where the endpoint keeps what must survive a restart (local addresses, ports). Created when missing.
    pub state_dir: PathBuf,
}

/// One Kafka cluster, as this endpoint knows it.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The operator's name for it, for example `orange`.
    pub cluster: String,
    /// Bootstrap servers by the names they have in their own network; at least one.
    pub bootstrap: Vec<HostPort>,
    /// How to talk to it; `None` where this side never does (no credentials needed on this side).
    pub security: Option<Security>,
}

/// Kafka's `security.protocol` with what it needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// TLS towards the brokers (`SSL`, `SASL_SSL`).
    pub tls: Option<TlsClient>,
    /// SASL towards the brokers (`SASL_PLAINTEXT`, `SASL_SSL`).
    pub sasl: Option<Sasl>,
}

/// TLS as a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsClient {
    /// PEM bundle of trusted CAs; `None` for the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM certificate chain and key of this client, both or neither.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether the certificate must be for the broker's host name. Only ever false where the operator wrote so.
    pub verify_hostname: bool,
}

/// SASL credentials, by mechanism.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sasl {
    /// PLAIN and SCRAM.
    Password {
        /// Which.
        mechanism: SaslMechanism,
        /// The user or API key.
        username: String,
        /// The password or API secret.
        password: Secret,
    },
    /// OAUTHBEARER.
    OauthBearer(OauthBearer),
    /// AWS_MSK_IAM.
    AwsMskIam(AwsMskIam),
}

impl Sasl {
    /// Kafka's name of the mechanism.
    #[must_use]
    pub const fn mechanism(&self) -> &'static str {
        match self {
            Self::Password { mechanism: SaslMechanism::Plain, .. } => "PLAIN",
            Self::Password { mechanism: SaslMechanism::ScramSha256, .. } => "SCRAM-SHA-256",
            Self::Password { mechanism: SaslMechanism::ScramSha512, .. } => "SCRAM-SHA-512",
            Self::OauthBearer(_) => "OAUTHBEARER",
            Self::AwsMskIam(_) => "AWS_MSK_IAM",
        }
    }
}

/// A bearer token, and what is said beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthBearer {
    /// Where tokens come from.
    pub origin: TokenOrigin,
    /// SASL extensions (KIP-342), such as a logical cluster; names of letters, values without control characters.
    pub extensions: Vec<(String, String)>,
}

/// Where bearer tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenOrigin {
    /// A file that somebody else keeps fresh; read for each conversation.
    File(PathBuf),
    /// An identity provider, by client credentials.
    Endpoint(TokenEndpoint),
}

/// An identity provider (RFC 6749 section 4.4), dialled from this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEndpoint {
    /// `https` anywhere, `http` on this host only.
    pub url: String,
    /// This client's id there.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// What is asked for, where the provider wants it said.
    pub scope: Option<String>,
    /// For whom, where the provider wants it said.
    pub audience: Option<String>,
    /// PEM bundle of the provider's CA; `None` for the system's.
    pub ca_file: Option<PathBuf>,
}

/// IAM credentials as AWS's own tools find them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsMskIam {
    /// The region, where the brokers' names do not tell it.
    pub region: Option<String>,
    /// A profile of `~/.aws`, instead of the usual chain.
    pub profile: Option<String>,
}

/// SASL mechanisms that prove a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SaslMechanism {
    /// RFC 4616.
    Plain,
    /// RFC 5802 with SHA-256.
    ScramSha256,
    /// RFC 5802 with SHA-512.
    ScramSha512,
}

/// How the two endpoints reach and recognise each other.
#[derive(Debug, Clone)]
pub struct TunnelConfig {
    /// Whether this side listens or dials.
    pub role: TunnelRole,
    /// How both sides prove who they are.
    pub auth: TunnelAuth,
    /// Number of carriers the dialling side keeps.
    pub carriers: Carriers,
    /// Congestion control of this side's sending on the carriers.
    pub congestion: Congestion,
    /// This side's address as the other network sees it, for the printed firewall rules.
    pub public_address: Option<String>,
    /// The peer's address as this network sees it: the `from` of the firewall rule.
    pub peer_address: Option<String>,
    /// Bounds.
    pub limits: TunnelLimits,
}

/// Whether this side opens the port or dials it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelRole {
    /// Opens this port: the one inbound rule.
    Listen(SocketAddr),
    /// Dials the peer's port.
    Dial(HostPort),
}

/// How both sides prove who they are.
#[derive(Debug, Clone)]
pub enum TunnelAuth {
    /// Noise with a pre-shared key made from the shared secret.
    Noise {
        /// The shared secret, known to be strong.
        secret: Secret,
    },
    /// TLS 1.3, mutual.
    Tls {
        /// PEM chain of this endpoint.
        cert: PathBuf,
        /// PEM key of this endpoint.
        key: PathBuf,
        /// Whom to trust at the other end.
        peer: TlsPeer,
    },
}

/// Whom to trust at the other end of a TLS tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsPeer {
    /// Any certificate of this CA with this name among its subject alternative names.
    Ca {
        /// PEM bundle.
        ca: PathBuf,
        /// Expected DNS name, for example `source.linkspan`.
        name: String,
    },
    /// Exactly this certificate: SHA-256 over its DER form.
    Pin([u8; 32]),
}

/// Number of carriers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carriers {
    /// The program decides, 1 to 16, beginning with 2.
    Auto,
    /// Always this many, 1 to 16.
    Fixed(u8),
}

/// Congestion control of the carriers' TCP connections, which each side chooses for what it sends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Congestion {
    /// BBR where the way is long and the kernel lets us have it, else the system's.
    #[default]
    Auto,
    /// The system's own.
    System,
    /// This one, by the kernel's name for it: 1 to 15 of a-z, 0-9, `-` and `_`.
    Named(String),
}

/// Bounds of a tunnel. Defaults are in [`TunnelLimits::default`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelLimits {
    /// Streams open at once, both directions together.
    pub streams: u32,
    /// New streams a second that the peer may open here.
    pub opens_per_second: u32,
    /// Handshakes in progress at once.
    pub handshakes: u32,
    /// Bytes of all streams held in memory for the peer (sent and unacknowledged, received and undelivered).
    pub buffered_bytes: u64,
    /// How long streams live without any carrier before they are reset.
    pub park: Duration,
}

impl Default for TunnelLimits {
    fn default() -> Self {
        Self {
            streams: 16_384,
            opens_per_second: 50_000,
            handshakes: 64,
            buffered_bytes: 256 << 20,
            park: Duration::from_secs(60),
        }
    }
}

/// What the peer may reach here. Everything else is refused before any look-up or dial.
#[derive(Debug, Clone, Default)]
pub struct ExposeConfig {
    /// `host:port` patterns: `*` stands for one or more whole labels at the left, or for any port.
    pub allow: Vec<String>,
    /// Names with fixed addresses at the exit, instead of the resolver's answer.
    pub resolve: BTreeMap<String, Vec<IpAddr>>,
}

/// How local clients reach the peer's brokers.
#[derive(Debug, Clone)]
pub enum ProxyConfig {
    /// Not at all; the embedded replicator needs no proxy.
    Off,
    /// Under their own names.
    Names(NamesConfig),
    /// Under local addresses, rewritten in every Kafka API that carries one.
    Rewrite(Box<RewriteConfig>),
}

/// Mode `names`.
#[derive(Debug, Clone)]
pub struct NamesConfig {
    /// Where the DNS server listens, UDP and TCP.
    pub dns_listen: Vec<SocketAddr>,
    /// Zones answered here (lower case, no dots at the ends); from the peer's bootstrap names unless set.
    pub zones: Vec<String>,
    /// What names are answered with.
    pub addresses: AddressPlan,
    /// Ports to listen on at each address; those of the peer's bootstrap servers unless set.
    pub ports: Vec<u16>,
    /// What becomes of questions outside the zones.
    pub forward: Forward,
}

/// What names of the peer's zones are answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressPlan {
    /// Each name its own address out of this network (address and prefix length), for clients on this host.
    PerName(Ipv4Addr, u8),
    /// All names this one address of this host; TLS SNI tells them apart. For clients on other hosts.
    Shared(IpAddr),
}

/// What becomes of DNS questions outside the zones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// Refused.
    Refuse,
    /// Asked of the servers in the system's configuration.
    System,
    /// Asked of these servers.
    Servers(Vec<SocketAddr>),
}

/// Mode `rewrite`.
#[derive(Debug, Clone)]
pub struct RewriteConfig {
    /// Where the bootstrap listener binds; brokers' listeners bind the same address.
    pub listen: SocketAddr,
    /// Host name or address that clients are told; that of `listen` unless set.
    pub advertise: String,
    /// Ports for brokers, each given to one node for ever.
    pub ports: RangeInclusive<u16>,
    /// TLS towards the brokers, where they want it; clients speak plaintext to the proxy.
    pub upstream_tls: Option<TlsClient>,
    /// Who the proxy is towards the brokers; `None` where clients authenticate themselves.
    pub auth: Option<Sasl>,
    /// What is asked of clients.
    pub clients: ClientsConfig,
}

/// What the proxy asks of clients. By default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientsConfig {
    /// TLS, on every listener.
    pub tls: Option<TlsServer>,
    /// File of users with hashed passwords: clients authenticate by SASL, at the proxy.
    pub users_file: Option<PathBuf>,
    /// Whether every connection begins with a PROXY header, from a load balancer in front.
    pub proxy_protocol: bool,
    /// Whether everything is denied that writes.
    pub read_only: bool,
    /// Keys of APIs that are denied.
    pub deny: Vec<i16>,
    /// Connections that one client may have at once.
    pub connections: Option<u32>,
    /// Bytes a second that one client may send to brokers.
    pub bytes_in_per_second: Option<NonZeroU64>,
    /// Bytes a second that brokers may send to one client.
    pub bytes_out_per_second: Option<NonZeroU64>,
}

/// TLS as a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsServer {
    /// PEM certificate chain.
    pub cert: PathBuf,
    /// PEM key.
    pub key: PathBuf,
    /// PEM bundle of CAs of which clients must have a certificate; `None` asks for none.
    pub client_ca: Option<PathBuf>,
}

/// One flow: topics of the peer's cluster copied into the local one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FlowConfig {
    /// Name of the flow, unique on this side: `[a-z0-9-]{1,63}`; `<peer cluster>-<local cluster>` unless set.
    pub name: String,
    /// Regular expressions that a topic must match one of, whole.
    pub topics: Vec<String>,
    /// Regular expressions that a topic must match none of, whole.
    pub exclude: Vec<String>,
    /// Target name: `${topic}` stands for the source's name.
    pub rename: String,
    /// Regular expressions of groups whose offsets follow: a group must match one of them, whole.
    pub groups: Vec<String>,
    /// Regular expressions that a group must match none of, whole.
    pub groups_exclude: Vec<String>,
    /// What becomes of a target group whose source goes back.
    pub group_rewinds: GroupRewinds,
    /// Whether MirrorMaker 2's topics are written at the target.
    pub mm2_topics: bool,
    /// Replication factor of created topics; `None` for the target's default.
    pub replication_factor: Option<i16>,
    /// Whether aborted and open transactions stay behind.
    pub read_committed: bool,
    /// What becomes of a record whose place at the target cannot be told.
    pub delivery: Delivery,
    /// Whether configs of existing target topics follow the source.
    pub sync_configs: bool,
    /// Regular expressions of configs that are never copied, beside those that speak of brokers and replicas.
    pub exclude_configs: Vec<String>,
    /// Regular expressions of configs that are the target's own once the topic is created.
    pub pin_configs: Vec<String>,
    /// Whether the ACLs of copies follow those of their source topics.
    pub sync_acls: bool,
    /// Principals at the target, by those at the source; others keep their names.
    pub principals: BTreeMap<String, String>,
    /// What becomes of things that no copying can undo.
    pub policies: Policies,
    /// How often topics and partitions of the source are looked at.
    pub refresh: Duration,
}

/// What becomes of things at the source that no copying can undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// Of a copy whose source topic was deleted.
    pub deletes: Deletes,
    /// How long such a copy is kept before it is deleted.
    pub delete_after: Duration,
    /// Of a copy whose source topic was deleted and created again under its name.
    pub on_recreate: OnRecreate,
    /// Of a partition whose source lost records before they were copied.
    pub on_gap: OnGap,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            deletes: Deletes::default(),
            delete_after: Duration::from_secs(24 * 3600),
            on_recreate: OnRecreate::default(),
            on_gap: OnGap::default(),
        }
    }
}

/// What becomes of a copy whose source topic was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deletes {
    /// It stays.
    #[default]
    Keep,
    /// It is deleted after a grace.
    Delete,
}

/// What becomes of a copy whose source topic was deleted and created again under its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRecreate {
    /// Nothing more is copied until the operator deletes the copy.
    #[default]
    Stop,
    /// The new topic's records are appended behind the old ones'.
    Append,
    /// The copy is deleted and made anew.
    Replace,
}

/// What becomes of a partition whose source lost records before they were copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    /// Copying goes on behind the gap, which is named.
    #[default]
    Continue,
    /// Nothing more is copied until the operator resumes the topic.
    Stop,
}

/// What becomes of a target group whose source goes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupRewinds {
    /// It goes back too, and an event tells.
    #[default]
    Follow,
    /// It stays, and an event tells.
    Refuse,
}

/// What a flow promises of each record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// It arrives once. A partition for which that cannot be told stands still, with its reason.
    #[default]
    ExactlyOnce,
    /// It arrives once or, after failures, more than once. Nothing stands still for want of certainty.
    AtLeastOnce,
}

/// The local admin port.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Where it listens; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// What every change must prove; without it changes are taken from this host alone.
    pub token: Option<Secret>,
}
