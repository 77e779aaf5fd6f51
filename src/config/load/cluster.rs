//! `[local]` and `[peer]`, and the secrets they name.

use super::super::error::{ErrorCode, looks_like_variable};
use super::super::raw::{Node, Reader, Section};
use super::super::{
    AwsMskIam, ClusterConfig, OauthBearer, Origin, Sasl, SaslMechanism, Secret, Security, Setting, TlsClient,
    TokenEndpoint, TokenOrigin, value,
};
use super::file;

pub(super) const CLUSTER: &[&str] = &["cluster", "bootstrap", "security"];
pub(super) const SECURITY: &[&str] = &[
    "protocol",
    "mechanism",
    "username",
    "username_env",
    "password_file",
    "password_env",
    "token_endpoint",
    "token_file",
    "client_id",
    "client_secret_file",
    "client_secret_env",
    "scope",
    "audience",
    "token_ca_file",
    "extensions",
    "region",
    "profile",
    "ca_file",
    "cert_file",
    "key_file",
    "verify_hostname",
];
pub(super) const SASL_KEYS: &[&str] = &[
    "mechanism",
    "username",
    "username_env",
    "password_file",
    "password_env",
    "token_endpoint",
    "token_file",
    "client_id",
    "client_secret_file",
    "client_secret_env",
    "scope",
    "audience",
    "token_ca_file",
    "extensions",
    "region",
    "profile",
];
const PASSWORD_KEYS: &[&str] = &["username", "username_env", "password_file", "password_env"];
const OAUTH_KEYS: &[&str] = &[
    "token_endpoint",
    "token_file",
    "client_id",
    "client_secret_file",
    "client_secret_env",
    "scope",
    "audience",
    "token_ca_file",
    "extensions",
];
const ENDPOINT_KEYS: &[&str] =
    &["client_id", "client_secret_file", "client_secret_env", "scope", "audience", "token_ca_file"];
const IAM_KEYS: &[&str] = &["region", "profile"];
const TLS_KEYS: &[&str] = &["ca_file", "cert_file", "key_file", "verify_hostname"];
const PROTOCOLS: &[&str] = &["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
const MECHANISMS: &[&str] = &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"];

/// Reads `[local]` or `[peer]`. `password_override` is the variable that wins over the file's password.
pub(super) fn read(
    reader: &mut Reader<'_>,
    root: &Section<'_>,
    key: &str,
    password_override: &str,
    replicates: bool,
) -> Option<ClusterConfig> {
    let section =
        root.required(reader, key, "{ cluster = …, bootstrap = […] }, written as a section")?.table(reader, CLUSTER)?;
    let cluster = section.required(reader, "cluster", "\"orange\"");
    let cluster = cluster.and_then(|node| node.parse(reader, value::CLUSTER, value::cluster));
    let bootstrap = section.required(reader, "bootstrap", "[\"b0.orange.example:9092\"]");
    let bootstrap = bootstrap.and_then(|node| {
        let servers = node.full_list(reader, value::HOST_PORT, value::host_port)?;
        (!servers.is_empty()).then_some(servers)
    });
    let security = match section.get("security") {
        // Kafka's clients take PLAINTEXT where nothing is said; without flows nobody here talks to the cluster.
        None if replicates => {
            reader.default(format!("{key}.security.protocol"), "\"PLAINTEXT\"");
            Some(Some(Security::default()))
        }
        None => Some(None),
        Some(node) => security(reader, &node, password_override).map(Some),
    };
    Some(ClusterConfig { cluster: cluster?, bootstrap: bootstrap?, security: security? })
}

fn security(reader: &mut Reader<'_>, node: &Node<'_>, password_override: &str) -> Option<Security> {
    let section = node.table(reader, SECURITY)?;
    let protocol = section.required(reader, "protocol", "\"SASL_SSL\"").and_then(|node| node.word(reader, PROTOCOLS));
    let protocol = PROTOCOLS[protocol?];
    let with_tls = matches!(protocol, "SSL" | "SASL_SSL");
    let with_sasl = matches!(protocol, "SASL_PLAINTEXT" | "SASL_SSL");
    let tls = if with_tls {
        tls_client(reader, &section).map(Some)
    } else {
        section.unused(reader, TLS_KEYS, &format!("protocol {protocol} has no TLS"));
        Some(None)
    };
    let sasl = if with_sasl {
        sasl(reader, &section, password_override).map(Some)
    } else {
        section.unused(reader, SASL_KEYS, &format!("protocol {protocol} has no SASL"));
        Some(None)
    };
    Some(Security { tls: tls?, sasl: sasl? })
}

/// The keys of TLS as a client, wherever they stand.
pub(super) fn tls_client(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<TlsClient> {
    let ca_file = match section.get("ca_file") {
        None => {
            reader.default(section.key_path("ca_file"), "the system's CAs");
            Some(None)
        }
        Some(node) => file(reader, &node).map(Some),
    };
    let identity = match (section.get("cert_file"), section.get("key_file")) {
        (None, None) => Some(None),
        (Some(cert), Some(key)) => {
            let (cert, key) = (file(reader, &cert), file(reader, &key));
            cert.zip(key).map(Some)
        }
        (Some(one), None) | (None, Some(one)) => {
            let at = one.key_place();
            reader.report(
                ErrorCode::Conflict,
                &at,
                "a certificate needs its key",
                "`cert_file` and `key_file`: both or neither",
            );
            None
        }
    };
    let verify_hostname = match section.get("verify_hostname") {
        None => {
            reader.default(section.key_path("verify_hostname"), "true");
            Some(true)
        }
        Some(node) => node.bool(reader).inspect(|verify| {
            if !verify {
                let hint = "anyone with a certificate of that CA can pose as a broker; true is the default";
                reader.report(ErrorCode::Weakened, &node.at, "host names of brokers are not checked", hint);
            }
        }),
    };
    Some(TlsClient { ca_file: ca_file?, identity: identity?, verify_hostname: verify_hostname? })
}

/// The keys of SASL as a client, wherever they stand.
pub(super) fn sasl(reader: &mut Reader<'_>, section: &Section<'_>, password_override: &str) -> Option<Sasl> {
    let mechanism = match section.get("mechanism") {
        None => {
            reader.default(section.key_path("mechanism"), "\"PLAIN\"");
            "PLAIN"
        }
        Some(node) => MECHANISMS[node.word(reader, MECHANISMS)?],
    };
    for (others, keys) in [("PLAIN", PASSWORD_KEYS), ("OAUTHBEARER", OAUTH_KEYS), ("AWS_MSK_IAM", IAM_KEYS)] {
        if others != family(mechanism) {
            section.unused(reader, keys, &format!("it belongs to another mechanism than {mechanism}"));
        }
    }
    match mechanism {
        "OAUTHBEARER" => oauth(reader, section, password_override).map(Sasl::OauthBearer),
        "AWS_MSK_IAM" => {
            let region = optional_word(reader, section, "region", "an AWS region, for example \"eu-west-1\"");
            let profile = optional_word(reader, section, "profile", "a profile of ~/.aws/credentials or ~/.aws/config");
            Some(Sasl::AwsMskIam(AwsMskIam { region: region?, profile: profile? }))
        }
        _ => {
            let mechanism = match mechanism {
                "SCRAM-SHA-256" => SaslMechanism::ScramSha256,
                "SCRAM-SHA-512" => SaslMechanism::ScramSha512,
                _ => SaslMechanism::Plain,
            };
            let username = named(reader, section, "username", "username_env", "the user or API key");
            let password = secret(reader, section, "password_file", "password_env", password_override);
            Some(Sasl::Password { mechanism, username: username?, password: password? })
        }
    }
}

/// The mechanism that stands for all with the same keys.
fn family(mechanism: &'static str) -> &'static str {
    if mechanism.starts_with("SCRAM") { "PLAIN" } else { mechanism }
}

/// A text, or the variable that holds it.
fn named(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    key: &'static str,
    env_key: &'static str,
    what: &str,
) -> Option<String> {
    match section.one_of(reader, &[key, env_key], false)? {
        (found, node) if found == env_key => variable(reader, &node),
        (_, node) => filled(reader, &node, what),
    }
}

/// A text that is not empty.
fn filled(reader: &mut Reader<'_>, node: &Node<'_>, what: &str) -> Option<String> {
    let text = node.text(reader, what)?;
    if text.is_empty() {
        reader.report(ErrorCode::Invalid, &node.at, "this is empty", what);
        return None;
    }
    Some(text.to_owned())
}

/// A text that may be left out. Outer `None`: a mistake.
#[allow(clippy::option_option, reason = "a mistake is not an absence")]
fn optional_word(reader: &mut Reader<'_>, section: &Section<'_>, key: &str, what: &str) -> Option<Option<String>> {
    match section.get(key) {
        None => Some(None),
        Some(node) => filled(reader, &node, what).map(Some),
    }
}

fn oauth(reader: &mut Reader<'_>, section: &Section<'_>, secret_override: &str) -> Option<OauthBearer> {
    let extensions = match section.get("extensions") {
        None => Some(Vec::new()),
        Some(node) => extensions(reader, &node),
    };
    let origin = match section.one_of(reader, &["token_endpoint", "token_file"], false)? {
        ("token_file", node) => {
            section.unused(reader, ENDPOINT_KEYS, "the token comes from a file");
            filled(reader, &node, "the path of a file that holds the token")
                .map(|text| TokenOrigin::File(reader.path(&text)))
        }
        (_, node) => {
            let url = node.parse(reader, "for example \"https://login.example/oauth2/token\"", token_url);
            let client_id = section.required(reader, "client_id", "\"linkspan\"");
            let client_id = client_id.and_then(|node| filled(reader, &node, "this client's id at the provider"));
            let client_secret = secret(reader, section, "client_secret_file", "client_secret_env", secret_override);
            let scope = optional_word(reader, section, "scope", "what is asked for");
            let audience = optional_word(reader, section, "audience", "for whom the token is");
            let ca_file = match section.get("token_ca_file") {
                None => Some(None),
                Some(node) => file(reader, &node).map(Some),
            };
            Some(TokenOrigin::Endpoint(TokenEndpoint {
                url: url?,
                client_id: client_id?,
                client_secret: client_secret?,
                scope: scope?,
                audience: audience?,
                ca_file: ca_file?,
            }))
        }
    };
    Some(OauthBearer { origin: origin?, extensions: extensions? })
}

/// A secret goes there: in the clear only within this host.
fn token_url(text: &str) -> Result<String, String> {
    let uri: hyper::Uri = text.parse().map_err(|_| format!("`{text}` is no address"))?;
    let host = uri.host().unwrap_or_default();
    let loopback = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(text.to_owned()),
        Some("http") if loopback => Ok(text.to_owned()),
        Some("http") => Err("the client's secret would go there unprotected; use https".to_owned()),
        _ => Err(format!("`{text}` is no https address")),
    }
}

fn extensions(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Vec<(String, String)>> {
    let wanted = "a table such as { logicalCluster = \"lkc-1\" }";
    let mut found = Vec::new();
    for (name, entry) in node.entries(reader, wanted)? {
        let value = entry.text(reader, wanted)?;
        let plain = |text: &str| text.chars().all(|c| (' '..='~').contains(&c));
        // KIP-342: names of letters; `auth` is the token itself.
        if name == "auth" || !name.bytes().all(|b| b.is_ascii_alphabetic()) || value.is_empty() || !plain(value) {
            let allowed = "names of letters, other than `auth`, with texts of printable ASCII";
            reader.report(ErrorCode::Invalid, &entry.at, format!("`{name}` is no SASL extension"), allowed);
            return None;
        }
        found.push((name.to_owned(), value.to_owned()));
    }
    Some(found)
}

/// A secret from the overriding variable, from a file, or from a named variable.
pub(super) fn secret(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    file_key: &'static str,
    env_key: &'static str,
    override_name: &str,
) -> Option<Secret> {
    let overriding = reader.env.var(override_name).filter(|value| !value.is_empty());
    let chosen = section.one_of(reader, &[file_key, env_key], overriding.is_some());
    if let Some(value) = overriding {
        let origin = Origin::Env(override_name.to_owned());
        let path = section.key_path(file_key.trim_end_matches("_file"));
        reader.settings.push(Setting { path, value: "***".to_owned(), origin });
        return Some(Secret::new(value));
    }
    match chosen? {
        (key, node) if key == env_key => variable(reader, &node).map(Secret::new),
        (_, node) => secret_file(reader, &node),
    }
}

/// The value of a variable that the file names. The name is repeated only where it looks like one: some write the secret itself
/// here.
fn variable(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<String> {
    let allowed = "the name of an environment variable that is set";
    let name = node.text(reader, allowed)?;
    let shown =
        if looks_like_variable(name) { format!("the environment variable {name}") } else { "this variable".to_owned() };
    let problem = match reader.env.var(name) {
        Some(value) if !value.is_empty() => return Some(value),
        Some(_) => format!("{shown} is empty"),
        None => format!("{shown} is not set"),
    };
    reader.report(ErrorCode::SecretUnread, &node.at, problem, allowed);
    None
}

/// A secret that is the whole of a file.
pub(super) fn secret_file(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Secret> {
    let allowed = "a file that holds the secret alone; relative paths begin at the directory of this file";
    let text = node.text(reader, "the path of a file that holds the secret")?;
    let path = reader.path(text);
    let shown = path.display();
    match reader.env.secret_file(&path) {
        Ok(file) if file.secret.expose().trim().is_empty() => {
            reader.report(ErrorCode::SecretUnread, &node.at, format!("{shown} is empty"), allowed);
            None
        }
        Ok(file) => {
            if file.world_readable {
                let problem = format!("everyone on this host can read {shown}");
                reader.report(ErrorCode::OpenSecret, &node.at, problem, format!("chmod 600 {shown}"));
            }
            Some(file.secret)
        }
        Err(error) => {
            reader.report(ErrorCode::SecretUnread, &node.at, format!("{shown} cannot be read: {error}"), allowed);
            None
        }
    }
}
