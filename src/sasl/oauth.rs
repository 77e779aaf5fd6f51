//! OAUTHBEARER (RFC 7628, KIP-255, KIP-768): a token of a file, or of an identity provider by client credentials (RFC 6749 4.4).

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use form_urlencoded::{Serializer, byte_serialize};
use hyper::Request;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::SaslError;
use crate::config::{OauthBearer, TokenEndpoint, TokenOrigin};
use crate::net::http::HttpClient;

/// Largest token, in bytes; brokers take 512 KiB of SASL message at most.
const MAX_TOKEN: usize = 64 << 10;

/// Lifetime of a token whose provider names none.
const USUAL: Duration = Duration::from_secs(300);

/// A token is replaced after this part of its lifetime, in per cent, and used this long before its end no more.
const REFRESH_PERCENT: u32 = 80;
const MARGIN: Duration = Duration::from_secs(5);

/// Where tokens come from.
pub(super) struct TokenSource {
    origin: Origin,
    extensions: Vec<(String, String)>,
}

enum Origin {
    /// Read each time: whoever writes it replaces it in time.
    File(PathBuf),
    Endpoint(Box<Provider>),
}

struct Provider {
    client: HttpClient,
    endpoint: TokenEndpoint,
    cached: Mutex<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    text: Zeroizing<String>,
    refresh_at: Instant,
    ends_at: Instant,
}

impl TokenSource {
    pub(super) fn new(config: &OauthBearer) -> Self {
        let origin = match &config.origin {
            TokenOrigin::File(path) => Origin::File(path.clone()),
            TokenOrigin::Endpoint(endpoint) => Origin::Endpoint(Box::new(Provider {
                client: HttpClient::new(endpoint.ca_file.clone()),
                endpoint: endpoint.clone(),
                cached: Mutex::default(),
            })),
        };
        Self { origin, extensions: config.extensions.clone() }
    }

    /// The first message of a conversation, with a token that is valid now.
    pub(super) async fn message(&self) -> Result<Zeroizing<Vec<u8>>, SaslError> {
        let token = match &self.origin {
            Origin::File(path) => {
                let text = tokio::fs::read_to_string(path).await.map(Zeroizing::new);
                let text = text.map_err(|error| SaslError(format!("token file {}: {error}", path.display())))?;
                checked(text.trim()).map_err(|why| SaslError(format!("token file {}: {why}", path.display())))?
            }
            Origin::Endpoint(provider) => provider.token().await?,
        };
        Ok(first(&token, &self.extensions))
    }
}

/// `n,,`, then key and value pairs, each ended by 0x01 (RFC 7628 3.1).
fn first(token: &str, extensions: &[(String, String)]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(token.len() + 1024));
    out.extend_from_slice(b"n,,\x01auth=Bearer ");
    out.extend_from_slice(token.as_bytes());
    out.push(1);
    for (key, value) in extensions {
        out.extend_from_slice(key.as_bytes());
        out.push(b'=');
        out.extend_from_slice(value.as_bytes());
        out.push(1);
    }
    out.push(1);
    out
}

impl Provider {
    /// The token in hand while it is young, else a new one; one fetch serves all who wait. An old one still serves when the provider
    /// does not answer.
    async fn token(&self) -> Result<Zeroizing<String>, SaslError> {
        let mut cached = self.cached.lock().await;
        if let Some(token) = cached.as_ref().filter(|token| Instant::now() < token.refresh_at) {
            return Ok(token.text.clone());
        }
        match fetch(&self.client, &self.endpoint).await {
            Ok(token) => Ok(cached.insert(token).text.clone()),
            Err(error) => match cached.as_ref().filter(|token| Instant::now() + MARGIN < token.ends_at) {
                Some(token) => {
                    tracing::warn!(endpoint = %self.endpoint.url, %error, "no new token yet, the old one still serves");
                    Ok(token.text.clone())
                }
                None => Err(error),
            },
        }
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<f64>,
}

#[derive(Deserialize)]
struct Denied {
    error: Option<String>,
    error_description: Option<String>,
}

async fn fetch(client: &HttpClient, endpoint: &TokenEndpoint) -> Result<Token, SaslError> {
    let failed = |why: String| SaslError(format!("token endpoint {}: {why}", endpoint.url));
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!(
        "{}:{}",
        encoded(&endpoint.client_id),
        *Zeroizing::new(encoded(endpoint.client_secret.expose()))
    ));
    let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    let request = Request::post(endpoint.url.as_str())
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(AUTHORIZATION, basic.as_str())
        .body(Bytes::from(asked(endpoint)))
        .map_err(|error| failed(error.to_string()))?;
    let asked_at = Instant::now();
    let answer = client.send(request).await.map_err(|error| SaslError(format!("token endpoint {error}")))?;
    if !answer.status().is_success() {
        let said = serde_json::from_slice::<Denied>(answer.body()).ok();
        let said =
            said.map(|denied| [denied.error, denied.error_description].into_iter().flatten().collect::<Vec<_>>());
        let said: String = said.unwrap_or_default().join(": ").chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(failed(format!("{} {said}", answer.status()).trim_end().to_owned()));
    }
    // What it is that cannot be read is not repeated: it may hold the token.
    let granted: Granted =
        serde_json::from_slice(answer.body()).map_err(|_| failed("the answer holds no access_token".to_owned()))?;
    if granted.token_type.as_ref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(failed("the token is no bearer token".to_owned()));
    }
    let text = checked(&Zeroizing::new(granted.access_token)).map_err(|why| failed(why.to_owned()))?;
    let lifetime = granted.expires_in.and_then(|s| Duration::try_from_secs_f64(s).ok()).unwrap_or(USUAL);
    let lifetime = lifetime.min(Duration::from_secs(365 * 86_400));
    Ok(Token { text, refresh_at: asked_at + lifetime * REFRESH_PERCENT / 100, ends_at: asked_at + lifetime })
}

/// The form of RFC 6749 4.4.2.
fn asked(endpoint: &TokenEndpoint) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    for (key, value) in [("scope", &endpoint.scope), ("audience", &endpoint.audience)] {
        if let Some(value) = value {
            form.append_pair(key, value);
        }
    }
    form.finish()
}

/// RFC 6750 2.1: what a token may consist of, so that it ends where it should.
fn checked(text: &str) -> Result<Zeroizing<String>, &'static str> {
    if text.is_empty() {
        return Err("the token is empty");
    }
    if text.len() > MAX_TOKEN {
        return Err("the token has over 64 KiB");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b)) {
        return Err("the token has characters that none may have");
    }
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Secret;

    /// An identity provider that gives each answer once, and then the last again; counts what it was asked and keeps the last request.
    async fn provider(answers: Vec<&'static str>) -> (String, Arc<AtomicUsize>, Arc<std::sync::Mutex<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}/oauth2/token", listener.local_addr().expect("bound"));
        let (asked, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::default()));
        let (count, keep) = (Arc::clone(&asked), Arc::clone(&last));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"client_credentials&scope=kafka") {
                    if socket.read_buf(&mut request).await.expect("read") == 0 {
                        break;
                    }
                }
                *keep.lock().expect("no panic") = String::from_utf8(request).expect("text");
                let at = count.fetch_add(1, Ordering::Relaxed);
                let answer = answers[at.min(answers.len() - 1)];
                socket.write_all(answer.as_bytes()).await.expect("written");
                socket.shutdown().await.expect("ended");
            }
        });
        (url, asked, last)
    }

    fn source(url: String) -> TokenSource {
        TokenSource::new(&OauthBearer {
            origin: TokenOrigin::Endpoint(TokenEndpoint {
                url,
                client_id: "link:span".to_owned(),
                client_secret: Secret::new("p&ss word".to_owned()),
                scope: Some("kafka".to_owned()),
                audience: None,
                ca_file: None,
            }),
            extensions: vec![("logicalCluster".to_owned(), "lkc-1".to_owned())],
        })
    }

    fn answer(status: &str, body: &str) -> &'static str {
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Box::leak(answer.into_boxed_str())
    }

    fn granted(body: &str) -> &'static str {
        answer("200 OK", body)
    }

    #[tokio::test]
    async fn one_token_serves_until_it_is_old() {
        let (url, asked, last) =
            provider(vec![granted(r#"{"access_token":"abc.def","token_type":"Bearer","expires_in":3600}"#)]).await;
        let source = source(url);
        for _ in 0..3 {
            let message = source.message().await.expect("a token");
            assert_eq!(message.as_slice(), b"n,,\x01auth=Bearer abc.def\x01logicalCluster=lkc-1\x01\x01");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let request = last.lock().expect("no panic").clone();
        assert!(request.starts_with("POST /oauth2/token HTTP/1.1\r\n"), "{request}");
        // RFC 6749 2.3.1: both are encoded as in a form, then joined.
        let basic = STANDARD.encode("link%3Aspan:p%26ss+word");
        assert!(request.contains(&format!("authorization: Basic {basic}\r\n")), "{request}");
        assert!(request.ends_with("\r\n\r\ngrant_type=client_credentials&scope=kafka"), "{request}");
    }

    #[tokio::test]
    async fn an_old_token_is_replaced_and_one_that_lives_outlasts_its_provider() {
        let (url, asked, _) = provider(vec![
            granted(r#"{"access_token":"first","expires_in":0}"#),
            granted(r#"{"access_token":"second","expires_in":60}"#),
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        ])
        .await;
        let source = source(url);
        for token in ["first", "second", "second"] {
            let message = source.message().await.expect("a token");
            assert!(message.starts_with(format!("n,,\u{1}auth=Bearer {token}\u{1}").as_bytes()));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        let Origin::Endpoint(provider) = &source.origin else { panic!("an endpoint") };
        provider.cached.lock().await.as_mut().expect("a token").refresh_at = Instant::now();
        assert!(source.message().await.expect("the old one").starts_with(b"n,,\x01auth=Bearer second"));
        provider.cached.lock().await.as_mut().expect("a token").ends_at = Instant::now();
        let error = source.message().await.expect_err("nothing is left").to_string();
        assert!(error.ends_with("/oauth2/token: 503 Service Unavailable"), "{error}");
    }

    #[tokio::test]
    async fn refusals_are_told_and_tokens_never() {
        for (answer, why) in [
            (
                answer("401 Unauthorized", r#"{"error":"invalid_client","error_description":"no such application"}"#),
                "401 Unauthorized invalid_client: no such application",
            ),
            (granted(r#"{"access_token":"to ken","expires_in":60}"#), "the token has characters that none may have"),
            (granted(r#"{"access_token":"","expires_in":60}"#), "the token is empty"),
            (granted(r#"{"access_token":"x","token_type":"mac"}"#), "the token is no bearer token"),
            (granted(r#"{"secret":"hidden"}"#), "the answer holds no access_token"),
            ("SSH-2.0-OpenSSH\r\n", "invalid HTTP version parsed"),
        ] {
            let (url, _, _) = provider(vec![answer]).await;
            let error = source(url).message().await.expect_err("a refusal").to_string();
            assert!(error.ends_with(why) && !error.contains("p&ss"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_file_is_read_each_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let source = TokenSource::new(&OauthBearer { origin: TokenOrigin::File(path.clone()), extensions: Vec::new() });
        assert!(source.message().await.is_err(), "no file");
        for token in ["one", "two"] {
            std::fs::write(&path, format!("{token}\n")).expect("written");
            let message = source.message().await.expect("a token");
            assert_eq!(message.as_slice(), format!("n,,\u{1}auth=Bearer {token}\u{1}\u{1}").as_bytes());
        }
        std::fs::write(&path, "one\u{1}auth=x").expect("written");
        assert!(source.message().await.is_err(), "a token cannot end before its end");
    }
}
