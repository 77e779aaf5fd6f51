//! AWS_MSK_IAM: a request to the broker, signed and not sent (SigV4, <https://github.com/aws/aws-msk-iam-auth>).
//!
//! What is signed is the broker's own name, so a signature is of use with that broker alone, and for 15 minutes.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use reqsign_aws_core::{Credential, DefaultCredentialProvider, ProfileCredentialProvider};
use reqsign_core::{Context, FileRead, HttpSend, OsEnv, ProvideCredential as _};
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::SaslError;
use crate::config::AwsMskIam;
use crate::net::http::HttpClient;

/// How long a signature is taken, as AWS's own clients set it.
const VALID: Duration = Duration::from_secs(900);

/// How long credentials are used before their source is asked again: they may change where they have no end.
const FRESH: Duration = Duration::from_secs(300);

/// Credentials that end this soon are not used.
const MARGIN: Duration = Duration::from_secs(120);

/// Signs as whom the environment, a profile, a web identity, the container or the instance says, in this order.
pub(super) struct Signer {
    region: Option<String>,
    context: Context,
    chain: DefaultCredentialProvider,
    cached: Mutex<Option<(Credential, Instant)>>,
}

impl Signer {
    pub(super) fn new(config: &AwsMskIam) -> Self {
        let context = Context::new().with_env(OsEnv);
        Self::within(config, context)
    }

    /// With the environment of `context`.
    fn within(config: &AwsMskIam, context: Context) -> Self {
        let chain = DefaultCredentialProvider::builder().no_process().no_sso();
        let chain = match &config.profile {
            // Who names a profile means that one.
            Some(profile) => {
                let profile = ProfileCredentialProvider::new().with_profile(profile);
                chain.profile(profile).no_env().no_web_identity().no_ecs().no_imds()
            }
            None => chain,
        };
        let context = context.with_file_read(Files).with_http_send(Web(HttpClient::new(None)));
        Self { region: config.region.clone(), context, chain: chain.build(), cached: Mutex::default() }
    }

    /// The one message of a conversation with the broker `host`.
    pub(super) async fn message(&self, host: &str) -> Result<Zeroizing<Vec<u8>>, SaslError> {
        let region = self
            .region
            .clone()
            .or_else(|| region_of(host))
            .or_else(|| ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| self.context.env_var(name)));
        let region = region.ok_or_else(|| {
            SaslError(format!("the name of {host} tells no AWS region: set `region`, or the variable AWS_REGION"))
        })?;
        signed(&self.credential().await?, &region, host, SystemTime::now())
    }

    async fn credential(&self) -> Result<Credential, SaslError> {
        let mut cached = self.cached.lock().await;
        let ends_soon = |credential: &Credential| {
            credential.expires_in.is_some_and(|end| end.as_system_time() < SystemTime::now() + MARGIN)
        };
        if let Some((credential, _)) =
            cached.as_ref().filter(|(credential, until)| Instant::now() < *until && !ends_soon(credential))
        {
            return Ok(credential.clone());
        }
        let found = self.chain.provide_credential(&self.context).await;
        let found = found.map_err(|error| SaslError(format!("AWS credentials: {error}")))?;
        let Some(credential) = found else {
            return Err(SaslError(
                "AWS credentials: none in the environment, a profile, a web identity, the container or the instance"
                    .to_owned(),
            ));
        };
        *cached = Some((credential.clone(), Instant::now() + FRESH));
        Ok(credential)
    }
}

/// The region in the name of an MSK broker: `….kafka.REGION.amazonaws.com`, `….kafka-serverless.REGION.amazonaws.com`.
fn region_of(host: &str) -> Option<String> {
    let labels: Vec<&str> = host.split('.').collect();
    let at = labels.iter().position(|label| matches!(*label, "kafka" | "kafka-serverless"))?;
    let (region, rest) = labels.get(at + 1..)?.split_first()?;
    matches!(rest, ["amazonaws", "com"] | ["amazonaws", "com", "cn"]).then(|| (*region).to_owned())
}

/// The message: all that the signature covers, as JSON.
fn signed(credential: &Credential, region: &str, host: &str, now: SystemTime) -> Result<Zeroizing<Vec<u8>>, SaslError> {
    let failed = |error: &dyn std::fmt::Display| SaslError(format!("AWS signature: {error}"));
    let identity = Credentials::new(
        credential.access_key_id.clone(),
        credential.secret_access_key.clone(),
        credential.session_token.clone(),
        None,
        "linkspan",
    )
    .into();
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(VALID);
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("kafka-cluster")
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| failed(&error))?;
    let uri = format!("https://{host}/?Action=kafka-cluster%3AConnect");
    let request = SignableRequest::new("GET", uri, std::iter::empty(), SignableBody::Bytes(&[]))
        .map_err(|error| failed(&error))?;
    let (instructions, _) = sign(request, &params.into()).map_err(|error| failed(&error))?.into_parts();
    let mut message = serde_json::Map::new();
    for (key, value) in [
        ("version", "2020_10_22"),
        ("host", host),
        ("user-agent", concat!("linkspan/", env!("CARGO_PKG_VERSION"))),
        ("action", "kafka-cluster:Connect"),
    ] {
        message.insert(key.to_owned(), value.into());
    }
    for (key, value) in instructions.params() {
        message.insert(key.to_ascii_lowercase(), value.as_ref().into());
    }
    serde_json::to_vec(&message).map(Zeroizing::new).map_err(|error| failed(&error))
}

/// Files of profiles and web identities.
#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        tokio::fs::read(path).await.map_err(|error| reqsign_core::Error::unexpected(format!("{path}: {error}")))
    }
}

/// The services that give credentials.
#[derive(Debug)]
struct Web(HttpClient);

impl HttpSend for Web {
    async fn http_send(&self, request: hyper::Request<Bytes>) -> reqsign_core::Result<hyper::Response<Bytes>> {
        self.0.send(request).await.map_err(|error| reqsign_core::Error::unexpected(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{digest, hmac};

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// What is left of a text outside RFC 3986's unreserved characters is percent-encoded, as SigV4 wants it.
    fn encoded(text: &str) -> String {
        text.bytes()
            .map(|b| match b {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
                _ => format!("%{b:02X}"),
            })
            .collect()
    }

    /// Whether a service that knows the secret accepts the message, as AWS documents SigV4 for query strings.
    fn accepted(message: &[u8], secret: &str, host: &str) -> bool {
        let message: serde_json::Value = serde_json::from_slice(message).expect("JSON");
        let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
        let date_time = text("x-amz-date");
        let credential = text("x-amz-credential");
        let scope: Vec<&str> = credential.splitn(2, '/').collect();
        let [date, region, service, ending] = scope[1].split('/').collect::<Vec<_>>()[..] else { return false };
        if (service, ending) != ("kafka-cluster", "aws4_request") || !date_time.starts_with(date) {
            return false;
        }
        if text("host") != host || text("x-amz-signedheaders") != "host" || text("version") != "2020_10_22" {
            return false;
        }
        let mut query = vec![("Action".to_owned(), text("action"))];
        for (name, key) in [
            ("X-Amz-Algorithm", "x-amz-algorithm"),
            ("X-Amz-Credential", "x-amz-credential"),
            ("X-Amz-Date", "x-amz-date"),
            ("X-Amz-Expires", "x-amz-expires"),
            ("X-Amz-Security-Token", "x-amz-security-token"),
            ("X-Amz-SignedHeaders", "x-amz-signedheaders"),
        ] {
            if message.get(key).is_some() {
                query.push((name.to_owned(), text(key)));
            }
        }
        query.sort();
        let query: Vec<_> = query.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
        let empty = hex(digest::digest(&digest::SHA256, b"").as_ref());
        let canonical = format!("GET\n/\n{}\nhost:{host}\n\nhost\n{empty}", query.join("&"));
        let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let to_sign = format!("AWS4-HMAC-SHA256\n{date_time}\n{}\n{hash}", scope[1]);
        let mac = |key: &[u8], text: &str| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
        };
        let key = [date, region, service, ending]
            .iter()
            .fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part));
        hex(&mac(&key, &to_sign)) == text("x-amz-signature")
    }

    const HOST: &str = "b-1.orders.x1y2z3.c4.kafka.eu-west-1.amazonaws.com";

    fn credential(session_token: Option<&str>) -> Credential {
        Credential {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: session_token.map(str::to_owned),
            expires_in: None,
        }
    }

    #[test]
    fn the_service_accepts_the_signature_for_that_broker_alone() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for token in [None, Some("IQoJb3JpZ2lu//+a b=")] {
            let credential = credential(token);
            let message = signed(&credential, "eu-west-1", HOST, now).expect("a message");
            assert!(accepted(&message, &credential.secret_access_key, HOST), "{}", String::from_utf8_lossy(&message));
            assert!(!accepted(&message, "another secret", HOST));
            assert!(!accepted(
                &message,
                &credential.secret_access_key,
                "b-2.orders.x1y2z3.c4.kafka.eu-west-1.amazonaws.com"
            ));
            let text = String::from_utf8(message.to_vec()).expect("JSON");
            assert!(text.contains("\"x-amz-expires\":\"900\"") && text.contains("20270115T080000Z"), "{text}");
            assert!(!text.contains("wJalr"), "the secret is in the message");
        }
    }

    /// A signer in an environment of these variables.
    fn signer(config: &AwsMskIam, variables: &[(&str, &str)]) -> Signer {
        let envs = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let env = reqsign_core::StaticEnv { home_dir: Some("/nowhere".into()), envs };
        Signer::within(config, Context::new().with_env(env))
    }

    fn usual() -> AwsMskIam {
        AwsMskIam { region: None, profile: None }
    }

    #[tokio::test]
    async fn credentials_come_from_the_environment_or_the_named_profile() {
        let env =
            [("AWS_ACCESS_KEY_ID", "AKIDENV"), ("AWS_SECRET_ACCESS_KEY", "of-env"), ("AWS_SESSION_TOKEN", "token")];
        let message = signer(&usual(), &env).message(HOST).await.expect("a message");
        assert!(accepted(&message, "of-env", HOST));

        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("credentials");
        std::fs::write(&file, "[default]\naws_access_key_id = A\naws_secret_access_key = of-default\n\n[link]\naws_access_key_id = B\naws_secret_access_key = of-link\n").expect("written");
        let file = file.to_str().expect("UTF-8");
        let env = [env[0], env[1], ("AWS_SHARED_CREDENTIALS_FILE", file), ("AWS_REGION", "us-west-2")];
        let named = AwsMskIam { profile: Some("link".to_owned()), ..usual() };
        let message = signer(&named, &env).message("b0.own.example").await.expect("a message");
        assert!(accepted(&message, "of-link", "b0.own.example"));
        assert!(
            String::from_utf8_lossy(&message).contains("/us-west-2/kafka-cluster/"),
            "the region of the environment"
        );
        let error = signer(&named, &[("AWS_SHARED_CREDENTIALS_FILE", file)]).message("b0.own.example").await;
        assert!(error.expect_err("no region").to_string().contains("tells no AWS region"));
    }

    #[tokio::test]
    async fn a_containers_credentials_are_fetched_once_and_again_before_they_end() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}/v2/credentials", listener.local_addr().expect("bound"));
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    socket.read_buf(&mut request).await.expect("read");
                }
                let ends = if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                    SystemTime::now() + Duration::from_secs(60)
                } else {
                    SystemTime::now() + Duration::from_secs(3600)
                };
                let ends = reqsign_core::time::Timestamp::from_second(
                    ends.duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs() as i64,
                );
                let body = serde_json::json!({
                    "AccessKeyId": "AKIDTASK", "SecretAccessKey": "of-task", "Token": "session/token==",
                    "Expiration": ends.expect("a time").format_rfc3339_zulu(),
                })
                .to_string();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                socket.write_all(answer.as_bytes()).await.expect("written");
            }
        });
        let signer = signer(&usual(), &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)]);
        for seen in [1, 2, 2] {
            let message = signer.message(HOST).await.expect("a message");
            assert!(accepted(&message, "of-task", HOST));
            assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), seen, "the first end too soon");
        }
    }

    #[test]
    fn the_region_is_in_the_brokers_name() {
        for (host, region) in [
            (HOST, Some("eu-west-1")),
            ("boot-x1.c1.kafka-serverless.us-east-2.amazonaws.com", Some("us-east-2")),
            ("b-1.a.kafka.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("b-1.kafka.eu-west-1.amazonaws.com.evil.example", None),
            ("kafka.example.com", None),
            ("kafka", None),
        ] {
            assert_eq!(region_of(host).as_deref(), region, "{host}");
        }
    }
}
