//! The table of failures: one entry feeds `check`, `status`, logs, metrics and `docs/errors.md`.
//!
//! A number is never given another meaning. LS0xx configuration and this process, LS1xx tunnel, LS2xx Kafka clusters,
//! LS3xx names and ports of this host, LS4xx replication, LS5xx proxy, LS6xx exit, LS9xx the program itself.

use std::fmt;
use std::str::FromStr;

/// The stable name of a failure: `LS` and three digits.
///
/// A code that this version does not know (a newer process answers an older command) is kept as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(u16);

/// What is known about a [`Code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The code.
    pub code: Code,
    /// What holds when all is well, as `check` prints it; at most 40 characters.
    pub title: &'static str,
    /// What it means when it does not hold.
    pub meaning: &'static str,
    /// The usual cause.
    pub cause: &'static str,
    /// What to do.
    pub fix: &'static str,
}

macro_rules! codes {
    ($($name:ident = $number:literal { $title:literal, meaning: $meaning:literal, cause: $cause:literal, fix: $fix:literal })*) => {
        impl Code {
            $(
                #[doc = concat!($title, ".")]
                pub const $name: Self = Self($number);
            )*
        }

        const TABLE: &[Entry] = &[
            $(Entry { code: Code::$name, title: $title, meaning: $meaning, cause: $cause, fix: $fix },)*
        ];
    };
}

codes! {
    CONFIG_LOADS = 1 {
        "configuration loads",
        meaning: "The configuration file cannot be read, is not UTF-8, or is over 1 MiB. Nothing was started.",
        cause: "the file is not there, or this user may not read it",
        fix: "name the file with --config, or write one with `linkspan init`"
    }
    CONFIG_SYNTAX = 2 {
        "configuration is well-formed",
        meaning: "The file is not TOML (or, for setenv.sh, not lines of NAME=value) at the line and column that are named.",
        cause: "a quote, a bracket or an equals sign is missing or too many",
        fix: "correct the line that is named, then linkspan config validate"
    }
    CONFIG_KEY = 3 {
        "every key is known",
        meaning: "A key is read by nobody.",
        cause: "the key is misspelt, or stands in the wrong table",
        fix: "use the nearest valid name, which the message gives; docs/reference/configuration.md lists all"
    }
    CONFIG_TYPE = 4 {
        "every value has its type",
        meaning: "A value is of another type than its key takes.",
        cause: "a number is quoted, a text is not, or a list is written as one value",
        fix: "write the type that the message names"
    }
    CONFIG_MISSING = 5 {
        "every needed key is there",
        meaning: "A key that must be there is not.",
        cause: "the key was left out or commented out",
        fix: "add the key that the message names"
    }
    CONFIG_VALUE = 6 {
        "every value is possible",
        meaning: "A value cannot be: an address without a port, a pattern that is no regular expression, a number outside its bounds.",
        cause: "the value is mistyped",
        fix: "write what the message says is allowed"
    }
    CONFIG_CONFLICT = 7 {
        "no two keys exclude each other",
        meaning: "Two keys exclude each other, or exactly one of several is needed.",
        cause: "for example both `listen` and `dial` under [tunnel], or neither",
        fix: "keep the one that is meant"
    }
    CONFIG_UNUSED = 8 {
        "every value has an effect",
        meaning: "A value would have no effect, so what was meant is not what would happen.",
        cause: "the value belongs to another mode",
        fix: "take it out, or switch to the mode it belongs to"
    }
    CONFIG_SECRET = 9 {
        "secrets and key files can be read",
        meaning: "A file or variable that should hold a secret or a key is missing, unreadable or empty.",
        cause: "the file was not copied to this host, or this user may not read it",
        fix: "put the secret where the message says, readable by the user that runs linkspan"
    }
    CONFIG_DUPLICATE = 10 {
        "names are unique",
        meaning: "The same name is given twice.",
        cause: "two flows, or two entries, have the same name",
        fix: "rename one of them"
    }
    CONFIG_PLACEHOLDER = 11 {
        "no placeholder is left",
        meaning: "A placeholder or a published example stands where a real value must be. The endpoint refuses to start with it.",
        cause: "the template was not filled in",
        fix: "write the real value; for a shared secret: linkspan secret new"
    }
    CONFIG_RELOADED = 12 {
        "the file on disk is in effect",
        meaning: "The configuration, or a file that it names, was changed, and what is written there cannot be used. The endpoint goes on with what it had.",
        cause: "the change has a mistake, which the message names",
        fix: "correct it; it is read again when it is saved, or on SIGHUP"
    }
    CONFIG_OPEN_SECRET = 51 {
        "secrets are private",
        meaning: "A warning: a secret can be read by other users of this host.",
        cause: "the file's mode is too wide",
        fix: "run chmod 600 on the file that is named"
    }
    CONFIG_WEAKENED = 52 {
        "no protection is switched off",
        meaning: "A warning: a check or a bound is switched off.",
        cause: "the operator wrote so",
        fix: "remove the setting that is named, unless it is needed for a test"
    }
    CONFIG_NO_EFFECT = 53 {
        "every setting is used",
        meaning: "A warning: a value is allowed but has no effect here.",
        cause: "another setting overrules it",
        fix: "remove the setting that is named"
    }
    SECRET_STRONG = 71 {
        "shared secret is strong",
        meaning: "The shared secret is missing, is a published example, or could be guessed (below 128 bits by estimate). The endpoint refuses to start.",
        cause: "the secret was typed by a person or copied from an example",
        fix: "linkspan secret new, and put the same value on both sides"
    }
    ADMIN_ANSWERS = 72 {
        "admin port answers",
        meaning: "No endpoint answers on the admin port, so nothing can be said about the running link.",
        cause: "the endpoint is not running on this host, or its admin port is another one",
        fix: "linkspan run, or name the port with --admin host:port"
    }
    SAME_PROCESS = 73 {
        "the running process serves this link",
        meaning: "Something else answers on this link's admin port.",
        cause: "two endpoints on this host are configured with the same admin port",
        fix: "give each endpoint its own [admin] listen"
    }
    STARTING = 74 {
        "start is finished",
        meaning: "The endpoint is still starting: it has not yet learned what its local cluster looks like.",
        cause: "it was started a moment ago",
        fix: "wait a few seconds; linkspan check names what it waits for"
    }
    CERTIFICATE_VALID = 75 {
        "tunnel certificate is valid",
        meaning: "This endpoint's certificate cannot be read, has expired, or expires within 14 days.",
        cause: "the certificate was not renewed",
        fix: "linkspan certs --force on one side, copy each side its files, restart both"
    }
    PEER_NAME = 101 {
        "peer name resolves",
        meaning: "The name of the peer's tunnel address has no address here.",
        cause: "the name in [tunnel] dial is misspelt, or this host's resolver does not know it",
        fix: "correct [tunnel] dial, or use the peer's IP address"
    }
    PEER_REACHABLE = 102 {
        "peer's tunnel port answers",
        meaning: "A TCP connection to the peer's tunnel port could not be made.",
        cause: "the peer is not running, or the one firewall rule of the link is missing",
        fix: "start the peer, then apply the rule that `linkspan firewall` prints"
    }
    PEER_PROVED = 103 {
        "peer proves who it is",
        meaning: "The peer's tunnel port answers, but the proof of identity failed: nothing was sent through it.",
        cause: "the shared secret differs, or a certificate is not the expected one",
        fix: "put the same secret on both sides, or exchange the certificates again with `linkspan certs`"
    }
    SAME_LINK = 104 {
        "both sides name the same link",
        meaning: "The peer serves other links, not this one, or another endpoint already holds this link there.",
        cause: "`link` differs between the two files, or two peers use the same link name",
        fix: "write the same `link` on both sides, and another one for each other pair"
    }
    SAME_TRANSPORT = 105 {
        "both sides speak the same transport",
        meaning: "What answers on the peer's tunnel port does not speak this link's transport.",
        cause: "one side is set to a shared secret (noise) and the other to certificates (tls), or the port belongs to another program",
        fix: "use the same kind of authentication under [tunnel] on both sides, and check the port"
    }
    TUNNEL_UP = 107 {
        "session with the peer is up",
        meaning: "There is no session with the peer now: streams wait, and are reset when the wait is over.",
        cause: "the peer is not running or cannot be reached; with both sides set to listen, nobody dials",
        fix: "start the peer; exactly one side has [tunnel] listen, the other [tunnel] dial"
    }
    BOOTSTRAP_ANSWERS = 201 {
        "bootstrap answers",
        meaning: "No bootstrap server of the cluster answered as a Kafka broker.",
        cause: "the address is wrong, the cluster is down, or a network rule is in the way",
        fix: "check `bootstrap`, and that this host may connect to it"
    }
    BROKER_TLS = 202 {
        "TLS with the brokers works",
        meaning: "A broker was reached, but TLS with it failed.",
        cause: "the listener speaks no TLS, or its certificate is not trusted or is for another name",
        fix: "set security.protocol to what the listener speaks, and ca_file to the cluster's CA"
    }
    BROKER_SASL = 203 {
        "the brokers accept the credentials",
        meaning: "A broker refused the user, the password or the mechanism.",
        cause: "wrong user or password, or a mechanism that the listener does not offer",
        fix: "correct username, password_file and mechanism under [local] security or [peer] security"
    }
    BROKERS_REACHABLE = 204 {
        "every advertised broker reachable",
        meaning: "The cluster answers, but some of the brokers it advertises cannot be reached. Partitions led by them are stuck.",
        cause: "a network rule allows some brokers only, or a broker is down",
        fix: "allow this host to connect to every broker that is named, or start the broker"
    }
    CLUSTER_NAMES = 206 {
        "bootstrap names resolve",
        meaning: "A bootstrap server's name has no address here.",
        cause: "the name is misspelt, or this host's resolver does not know the cluster's zone",
        fix: "correct `bootstrap`, or give the name its addresses in [expose] resolve"
    }
    PEER_ALLOWS = 208 {
        "the peer allows these targets",
        meaning: "The peer's exit refuses to dial a broker of its cluster.",
        cause: "the name is neither a bootstrap server there, nor advertised by that cluster, nor in its [expose] allow",
        fix: "on the peer, add it to [expose] allow"
    }
    PROBED = 209 {
        "cluster was examined",
        meaning: "The cluster could not be examined, so nothing is known about it.",
        cause: "what is needed for it is not there yet",
        fix: "follow the reason in the line, then run linkspan check again"
    }
    TUNNEL_PORT = 301 {
        "tunnel port can be opened",
        meaning: "The port under [tunnel] listen cannot be opened.",
        cause: "another program holds it, or the address is not one of this host",
        fix: "choose another port (and change the firewall rule), or stop the other program: ss -ltnp"
    }
    DNS_PORT = 302 {
        "DNS port can be opened",
        meaning: "A port under [proxy] dns_listen cannot be opened.",
        cause: "another name server holds it, or the port is below 1024 and this user may not open it",
        fix: "choose another address or port, for example 127.0.0.1:5353"
    }
    PROXY_PORT = 303 {
        "proxy ports can be opened",
        meaning: "A port under [proxy] cannot be opened.",
        cause: "another program holds it, often a broker of this host on 9092, or the address is not one of this host",
        fix: "choose another address or port, or stop the other program: ss -ltnp"
    }
    ADMIN_PORT = 304 {
        "admin port can be opened",
        meaning: "The port under [admin] listen cannot be opened.",
        cause: "another program holds it, or the address is not one of this host",
        fix: "choose another port under [admin] listen"
    }
    FLOW_SOURCE = 401 {
        "source cluster can be read",
        meaning: "A flow cannot read the peer's cluster. It waits and tries again; nothing is lost while the source keeps its records.",
        cause: "the tunnel is down, the source cluster is unreachable, or it refuses the credentials",
        fix: "linkspan check --only peer"
    }
    FLOW_TARGET = 402 {
        "target cluster can be written",
        meaning: "A flow cannot write the local cluster. It waits and tries again.",
        cause: "the local cluster is unreachable or refuses the credentials",
        fix: "linkspan check --only local"
    }
    TOPIC_NAME = 403 {
        "target topic names are legal",
        meaning: "The renamed topic is no legal Kafka topic name, or two source topics would become one. The topic is not copied.",
        cause: "`rename` makes a name with other characters than letters, digits, `.`, `_`, `-`, over 249 characters, or the same for two topics",
        fix: "change `rename` of the flow, or exclude the topic"
    }
    TOPIC_PARTITIONS = 404 {
        "target topics have enough partitions",
        meaning: "The target topic exists with fewer partitions than the source and could not be extended. The topic is not copied.",
        cause: "the topic was made by someone else before",
        fix: "add partitions to the target topic, or rename the copy"
    }
    TOPIC_ALLOWED = 405 {
        "topics may be read and written",
        meaning: "A cluster's ACLs refuse a topic to this link's user. The topic is not copied.",
        cause: "the user lacks Read and Describe on the source topic, or Create, Write and Describe on the target topic",
        fix: "grant the operation that the line names to the user of this link"
    }
    TOPIC_COPIES = 406 {
        "topics are copied",
        meaning: "A topic of a flow is not being copied.",
        cause: "the line names what the broker said",
        fix: "act on the broker's error; the flow tries again by itself"
    }
    TOPIC_GAP = 407 {
        "no record was lost before it was copied",
        meaning: "The source deleted records before they could be copied, or was truncated. The copy has a gap, which is named in the log.",
        cause: "the link was down longer than the source topic's retention, or the source topic was recreated",
        fix: "raise retention.ms of the source topic; the copy goes on at the oldest record that is left"
    }
    FLOW_DELIVERY = 408 {
        "each record is copied once",
        meaning: "The target cannot give what `delivery` demands: what it has of a partition cannot be asked, or appends at their place alone are not allowed. The partitions named stand still rather than repeat records.",
        cause: "the target does not let linkspan read the copies, or write under a producer id",
        fix: "allow Read on the target topics and IdempotentWrite on the target cluster, or set delivery = \"at_least_once\""
    }
    FLOW_PRODUCERS = 409 {
        "whose records the source holds is known",
        meaning: "The source's registry of producers, the topic __linkspan-producers, is gone, is another one, or cannot be read. Without it records that came from here could not be told from the source's own, and would come back; so the flow copies nothing.",
        cause: "the topic was deleted at the source, or the source does not let linkspan read it",
        fix: "allow Describe and Read on __linkspan-producers at the source; for a topic that was deleted see \"Both ways at once\" in docs/reference/configuration.md"
    }
    GROUPS_FOLLOW = 420 {
        "consumer groups follow",
        meaning: "A consumer group of the source does not follow at the target: after a switch it would not go on where it was.",
        cause: "the line says what: an offset older than the offset map, a group that went back while group_rewinds is \"refuse\", or a refusal of a broker, mostly for want of Read on the group and Describe on its topics",
        fix: "grant what the broker refused; a group that is held is set by hand at the target with kafka-consumer-groups, and follows again from its next commit"
    }
    TOPIC_RECREATED = 421 {
        "source topics are what they were",
        meaning: "A source topic was deleted, or deleted and created again under its name, while its copy holds the old one's records.",
        cause: "somebody deleted the topic at the source",
        fix: "delete the copy so that it is made anew, or set `on_recreate` and `deletes` of the flow to what shall happen"
    }
    GAP_STOPS = 422 {
        "no topic waits at a gap",
        meaning: "The source lost records before they were copied, and `on_gap` of the flow is \"stop\": the topic waits for the operator.",
        cause: "the link was down longer than the source topic's retention, or the source lost acknowledged records",
        fix: "linkspan resume --topic with the topic's name goes on without them; raise retention.ms of the source topic"
    }
    OPERATOR_PAUSED = 423 {
        "nothing is paused",
        meaning: "A flow or a topic was paused by the operator. Nothing of it is copied, and the lag grows.",
        cause: "linkspan pause",
        fix: "linkspan resume"
    }
    CHANGE_ALLOWED = 424 {
        "changes over the admin port are allowed",
        meaning: "The admin port refused a change: it came from another host without the token, or from a web page.",
        cause: "the command ran on another host, or [admin] token_file is set and the command did not read it",
        fix: "run the command on the endpoint's own host with its configuration file, as a user who may read token_file"
    }
    ACLS_FOLLOW = 425 {
        "ACLs of copies follow",
        meaning: "`sync_acls` is on, and the ACLs of the copies cannot be kept in step with those of their source topics. Copying goes on.",
        cause: "a cluster has no authorizer, or this link's user may not Describe (source) or Describe and Alter (target) the cluster",
        fix: "grant what the line names to the user of this link, or set sync_acls = false"
    }
    PARTITION_STALLED = 426 {
        "every partition moves while records wait",
        meaning: "Records of a partition wait, no failure is known, and none was copied for some seconds.",
        cause: "a broker accepts connections and does not answer, or it throttles this link's user",
        fix: "look at the brokers that lead the partition on both sides, and at their quotas for this link's user"
    }
    PROXY_LISTENS = 501 {
        "proxy listens",
        meaning: "Local clients cannot reach the peer's brokers: a listener of the proxy is not there.",
        cause: "no local address or port is left in the configured range",
        fix: "widen the range under [proxy]"
    }
    PROXY_PROTOCOL = 502 {
        "clients speak Kafka to the proxy",
        meaning: "Something connected to a proxy port and spoke another protocol. It was disconnected.",
        cause: "a client set to TLS on a plain port, a web browser, or a port scan",
        fix: "set the client's security.protocol as docs/reference/configuration.md says for this mode"
    }
    PROXY_AUTH = 503 {
        "brokers accept the proxy's credentials",
        meaning: "A broker did not accept what the proxy authenticates with for its clients. Their connections are refused.",
        cause: "the credentials under proxy.auth are wrong or expired, or the listener takes another mechanism",
        fix: "correct proxy.auth (or peer.security, where proxy.auth = true) as the message says, and restart"
    }
    PROXY_DENIED = 504 {
        "clients ask for what they may",
        meaning: "A client asked the proxy for an API that proxy.clients denies. It was refused in Kafka's words, and no broker was asked. Told once for each client and API; status lists who it was.",
        cause: "`read_only` or `deny` under [proxy.clients], and a client that is set to do more, for example a producer behind a read-only listener",
        fix: "nothing, where the refusal is meant; else take the API out of `deny`, or give writers an endpoint without `read_only`"
    }
    EXIT_REFUSED = 601 {
        "the peer asks for allowed targets only",
        meaning: "The peer asked this side to dial something that it may not reach. It was refused.",
        cause: "a broker that is not advertised by the local cluster is used over there, or the peer is misused",
        fix: "if it is wanted, add it to [expose] allow here"
    }
    INTERNAL = 901 {
        "the program works",
        meaning: "The program contradicts itself. This is a bug.",
        cause: "a bug in linkspan",
        fix: "report it with the text of the message and `linkspan version`"
    }
}

/// All entries, by rising code.
#[must_use]
pub const fn table() -> &'static [Entry] {
    TABLE
}

impl Code {
    /// The hundreds of its number: which part of linkspan it is about.
    #[must_use]
    pub const fn group(self) -> u16 {
        self.0 / 100
    }

    /// The entry of this code; `None` for codes of another version.
    #[must_use]
    pub fn entry(self) -> Option<&'static Entry> {
        TABLE.iter().find(|entry| entry.code == self)
    }

    /// What holds when all is well; empty for codes of another version.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.entry().map_or("", |entry| entry.title)
    }

    /// The usual cause; empty for codes of another version.
    #[must_use]
    pub fn cause(self) -> &'static str {
        self.entry().map_or("", |entry| entry.cause)
    }

    /// What to do; empty for codes of another version.
    #[must_use]
    pub fn fix(self) -> &'static str {
        self.entry().map_or("", |entry| entry.fix)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LS{:03}", self.0)
    }
}

/// A text is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no code; codes are LS and three digits")]
pub struct NoCode(String);

impl FromStr for Code {
    type Err = NoCode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("LS")
            .filter(|digits| digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| NoCode(text.chars().take(16).collect()))
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_rises_and_every_line_fits() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].code < pair[1].code, "{}", pair[1].code);
        }
        for entry in TABLE {
            assert!(entry.title.chars().count() <= 40, "{}: {}", entry.code, entry.title);
            assert!(
                !entry.title.ends_with('.') && !entry.cause.ends_with('.') && !entry.fix.ends_with('.'),
                "{}",
                entry.code
            );
            assert!(entry.meaning.ends_with('.'), "{}", entry.code);
        }
    }

    #[test]
    fn a_code_reads_as_it_writes() {
        for entry in TABLE {
            assert_eq!(entry.code.to_string().parse(), Ok(entry.code));
            assert_eq!(entry.code.entry(), Some(entry));
        }
        assert_eq!(Code::CONFIG_LOADS.to_string(), "LS001");
        for text in ["", "LS", "LS1", "LS0001", "ls001", "LS-01", "LS+01", "XX001", "LS００1"] {
            assert!(text.parse::<Code>().is_err(), "{text:?}");
        }
        let unknown: Code = "LS777".parse().expect("a code of another version");
        assert_eq!((unknown.entry(), unknown.fix()), (None, ""));
    }

    #[test]
    fn every_code_has_its_section_in_the_error_pages() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md");
        let rendered = render_page();
        if std::env::var_os("LINKSPAN_WRITE_DOCS").is_some() {
            std::fs::write(page, &rendered).expect("docs/errors.md is written");
        }
        let stored = std::fs::read_to_string(page).expect("docs/errors.md is there");
        assert!(stored == rendered, "docs/errors.md is stale: LINKSPAN_WRITE_DOCS=1 cargo test --lib control::codes");
    }

    /// `docs/errors.md`, whole.
    fn render_page() -> String {
        use std::fmt::Write as _;
        let mut page = String::from(
            "# Errors\n\nEach failure that linkspan reports has a code, the same in `check`, `status`, the log and the metric\n\
             `linkspan_errors_total`. The text here is made from the table in `src/control/codes.rs`.\n",
        );
        let mut group = "";
        for entry in TABLE {
            let next = match entry.code.group() {
                0 => "Configuration and this process",
                1 => "Tunnel",
                2 => "Kafka clusters",
                3 => "Ports of this host",
                4 => "Replication",
                5 => "Proxy",
                6 => "Exit",
                _ => "The program itself",
            };
            if next != group {
                group = next;
                let _ = write!(page, "\n## {group}\n");
            }
            let Entry { code, title, meaning, cause, fix } = entry;
            let _ = write!(
                page,
                "\n### {code}\n\nExpected: {title}.\n\n**Meaning.** {meaning}\n\n**Usual cause.** {}.\n\n**Fix.** {}.\n",
                capital(cause),
                capital(fix)
            );
        }
        page
    }

    /// First letter in upper case, but a command stays as it is typed.
    fn capital(text: &str) -> String {
        if let Some(rest) = text.strip_prefix("linkspan ") {
            let end = rest.find([',', ';']).unwrap_or(rest.len());
            let end = rest[..end].find(" on one").unwrap_or(end);
            return format!("Run `linkspan {}`{}", &rest[..end], &rest[end..]);
        }
        let mut letters = text.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    }
}
