//! Who may change something over the admin port. A judgement over a request's head; it has no password of its own, so it trusts
//! programs on this host alone, and no web page.
//!
//! * A request from another host needs the token of `[admin] token_file`. Where there is a token, every change needs it.
//! * A browser is recognised by what it cannot leave out: `Origin` and `Sec-Fetch-Site` of another site, a content type that forms
//!   can send, or a `Host` that is a name (another site's name may be made to point here: DNS rebinding).

use std::net::{IpAddr, SocketAddr};

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, ORIGIN};
use hyper::http::HeaderName;

use super::operate::{Refusal, RefusalKind};
use crate::config::Secret;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a request with these headers, from `peer`, may change something.
///
/// # Errors
/// Why not.
pub(super) fn judge(headers: &HeaderMap, peer: SocketAddr, token: Option<&Secret>) -> Result<(), Refusal> {
    let refuse = |what: &str| Err(Refusal::new(RefusalKind::Forbidden, what));
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"));
    let host = text(&HOST).unwrap_or_default();
    if text(&ORIGIN).is_some_and(|origin| origin.strip_prefix("http://") != Some(host)) {
        return refuse("requests of web pages of other sites are refused");
    }
    if text(&SEC_FETCH_SITE).is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return refuse("requests of web pages of other sites are refused");
    }
    if token.is_none() && !is_address(host) {
        return refuse("`Host` must be an address or localhost, so that no name of another site can be pointed here");
    }
    let json =
        text(&CONTENT_TYPE).is_some_and(|kind| kind.split(';').next().map(str::trim) == Some("application/json"));
    if !json {
        return Err(Refusal::new(RefusalKind::Invalid, "the request must be of content type application/json"));
    }
    match token {
        Some(token) => {
            let given = text(&AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
            if same(given.as_bytes(), token.expose().trim().as_bytes()) {
                return Ok(());
            }
            refuse("changes need the token of [admin] token_file: `Authorization: Bearer …`")
        }
        None if is_loopback(peer.ip()) => Ok(()),
        None => refuse("changes are taken from this host alone unless [admin] token_file is set"),
    }
}

/// Compares in a time that tells nothing about where two texts differ.
fn same(given: &[u8], token: &[u8]) -> bool {
    let differs = given.iter().zip(token).fold(0, |differs, (a, b)| differs | (a ^ b));
    given.len() == token.len() && !token.is_empty() && std::hint::black_box(differs) == 0
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether a `Host` is an address or `localhost`, with or without a port.
fn is_address(host: &str) -> bool {
    if host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let bare = host.rsplit_once(':').map_or(host, |(bare, port)| if port.parse::<u16>().is_ok() { bare } else { host });
    let inner = bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']'));
    bare.eq_ignore_ascii_case("localhost") || inner.is_some_and(|inner| inner.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(HOST, "127.0.0.1:9464".parse().expect("a value"));
        map.insert(CONTENT_TYPE, "application/json".parse().expect("a value"));
        for (name, value) in pairs {
            map.insert(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        map
    }

    const HERE: &str = "127.0.0.1:40000";
    const ELSEWHERE: &str = "192.0.2.7:40000";

    fn verdict(pairs: &[(&str, &str)], peer: &str, token: Option<&str>) -> Option<RefusalKind> {
        let token = token.map(|token| Secret::new(token.to_owned()));
        judge(&headers(pairs), peer.parse().expect("an address"), token.as_ref()).err().map(|refusal| refusal.kind)
    }

    #[test]
    fn programs_of_this_host_may_and_others_may_not() {
        assert_eq!(verdict(&[], HERE, None), None);
        assert_eq!(verdict(&[], "[::1]:40000", None), None);
        assert_eq!(verdict(&[], "[::ffff:127.0.0.1]:40000", None), None);
        assert_eq!(verdict(&[("host", "localhost:9464")], HERE, None), None);
        assert_eq!(verdict(&[("host", "[::1]:9464")], HERE, None), None);
        assert_eq!(verdict(&[], ELSEWHERE, None), Some(RefusalKind::Forbidden));
    }

    #[test]
    fn web_pages_may_not() {
        let no = Some(RefusalKind::Forbidden);
        assert_eq!(verdict(&[("origin", "http://evil.example")], HERE, None), no);
        assert_eq!(verdict(&[("origin", "null")], HERE, None), no);
        assert_eq!(verdict(&[("sec-fetch-site", "cross-site")], HERE, None), no);
        assert_eq!(verdict(&[("sec-fetch-site", "same-site")], HERE, None), no);
        // The name of another site that was pointed at this host: same origin, as the browser sees it.
        let rebound = [("host", "evil.example:9464"), ("origin", "http://evil.example:9464")];
        assert_eq!(verdict(&rebound, HERE, None), no);
        assert_eq!(verdict(&[("host", "127.0.0.1.evil.example")], HERE, None), no);
        for form in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            assert_eq!(verdict(&[("content-type", form)], HERE, None), Some(RefusalKind::Invalid));
        }
        // The endpoint's own page.
        let own = [("origin", "http://127.0.0.1:9464"), ("sec-fetch-site", "same-origin")];
        assert_eq!(verdict(&own, HERE, None), None);
    }

    #[test]
    fn where_there_is_a_token_everybody_needs_it() {
        let (token, no) = (Some("0123456789abcdef\n"), Some(RefusalKind::Forbidden));
        assert_eq!(verdict(&[], HERE, token), no);
        for wrong in ["Bearer ", "Bearer 0123456789abcdeF", "Bearer 0123456789abcde", "0123456789abcdef"] {
            assert_eq!(verdict(&[("authorization", wrong)], ELSEWHERE, token), no, "{wrong}");
        }
        let right = ("authorization", "Bearer 0123456789abcdef");
        assert_eq!(verdict(&[right], HERE, token), None);
        assert_eq!(verdict(&[right], ELSEWHERE, token), None);
        assert_eq!(verdict(&[right, ("origin", "http://evil.example")], ELSEWHERE, token), no);
        assert_eq!(verdict(&[("authorization", "Bearer ")], HERE, Some("")), no);
    }
}
