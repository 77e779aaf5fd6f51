//! ApiVersions responses: clients are told to stay within what can be walked, and nothing else is touched.

use super::rules::Rules;
use crate::kafka::api;
use crate::kafka::primitives::{Malformed, put_count};
use crate::kafka::walk::api_versions;

/// Caps the highest versions of the APIs in [`api::WALKABLE`] in what follows the correlation id; an API that begins above its
/// cap is left out, as is one that this connection does not have by its `rules`; of one that is denied, those versions are left that can
/// be refused. Other keys, unknown ones included, lowest versions and tagged fields stay as they are. `None` when nothing changes.
pub(super) fn cap(body: &[u8], version: i16, rules: &Rules) -> Result<Option<Vec<u8>>, Malformed> {
    let mut entries = api_versions::entries(body, version)?;
    let Some(count) = entries.count else { return Ok(None) };
    let mut list = Vec::with_capacity(body.len());
    let (mut left_out, mut changed) = (0, false);
    while let Some(entry) = entries.next_entry()? {
        let most = api::walkable_to(entry.api_key).unwrap_or(i16::MAX);
        let capped = entry.max.min(most);
        let shown = if entry.min > most || rules.hides(entry.api_key) {
            None
        } else {
            rules.policy.shows(entry.api_key, entry.min, capped)
        };
        let Some((min, max)) = shown else {
            left_out += 1;
            continue;
        };
        changed |= (min, max) != (entry.min, entry.max);
        for number in [entry.api_key, min, max] {
            list.extend_from_slice(&number.to_be_bytes());
        }
        list.extend_from_slice(entry.after);
    }
    // A list that only says which versions of ApiVersions there are stays one.
    let added = if entries.before == [0, 0] { rules.adds() } else { &[] };
    if !changed && left_out == 0 && added.is_empty() {
        return Ok(None);
    }
    for (key, min, max) in added {
        for number in [key, min, max] {
            list.extend_from_slice(&number.to_be_bytes());
        }
        if entries.flexible {
            list.push(0);
        }
    }
    let mut out = Vec::with_capacity(body.len() + 4);
    out.extend_from_slice(entries.before);
    put_count(&mut out, entries.flexible, Some(count - left_out + added.len()));
    out.extend_from_slice(&list);
    out.extend_from_slice(entries.rest());
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_the_walkable_and_leaves_the_rest() {
        // Error 0; Fetch 4-99, key 30000 1-7 with a tagged field, Metadata 0-13; throttle 1; a tagged field.
        let body =
            b"\0\0\x04\0\x01\0\x04\0\x63\0\x75\x30\0\x01\0\x07\x01\x05\x02ab\0\x03\0\0\0\x0d\0\0\0\0\x01\x01\x00\x01!";
        let capped =
            b"\0\0\x04\0\x01\0\x04\0\x12\0\x75\x30\0\x01\0\x07\x01\x05\x02ab\0\x03\0\0\0\x0d\0\0\0\0\x01\x01\x00\x01!";
        for version in [3, 4, 5] {
            assert_eq!(cap(body, version, &Rules::default()), Ok(Some(capped.to_vec())));
        }
        assert_eq!(cap(capped, 5, &Rules::default()), Ok(None), "nothing to do");
    }

    #[test]
    fn reads_error_35_in_the_form_of_version_0() {
        let body = b"\0\x23\0\0\0\x01\0\x12\0\0\0\x09";
        assert_eq!(cap(body, 9, &Rules::default()), Ok(Some(b"\0\x23\0\0\0\x01\0\x12\0\0\0\x05".to_vec())));
        assert_eq!(cap(b"\0\x23", 3, &Rules::default()), Ok(None), "brokers before 2.4");
        assert_eq!(cap(b"\0\x23\0\0\0\0", 3, &Rules::default()), Ok(None));
    }

    #[test]
    fn leaves_out_what_begins_above_its_cap() {
        let body = b"\0\0\0\0\0\x02\0\x4e\0\x03\0\x05\0\x02\0\0\0\x0b";
        assert_eq!(cap(body, 0, &Rules::default()), Ok(Some(b"\0\0\0\0\0\x01\0\x02\0\0\0\x0b".to_vec())));
    }

    #[test]
    fn leaves_out_sasl_where_the_proxy_speaks_it() {
        let body = b"\0\0\0\0\0\x03\0\x11\0\0\0\x01\0\x02\0\0\0\x0b\0\x24\0\0\0\x02";
        let masked = b"\0\0\0\0\0\x01\0\x02\0\0\0\x0b".to_vec();
        assert_eq!(cap(body, 0, &Rules { offload: true, ..Rules::default() }), Ok(Some(masked)));
        assert_eq!(cap(body, 0, &Rules::default()), Ok(None));
    }

    #[test]
    fn tells_of_our_own_sasl_where_clients_prove_who_they_are() {
        let users = crate::sasl::users::Users::parse("").expect("none");
        let rules = Rules { offload: true, users: Some(std::sync::Arc::new(users)), ..Rules::default() };
        let body = b"\0\0\x03\0\x11\0\0\0\x09\0\0\x02\0\0\0\x0b\0\0\0\0\x01\0";
        let ours = b"\0\0\x04\0\x02\0\0\0\x0b\0\0\x11\0\0\0\x01\0\0\x24\0\0\0\x02\0\0\0\0\x01\0";
        assert_eq!(cap(body, 3, &rules), Ok(Some(ours.to_vec())));
        let unsupported = b"\0\x23\0\0\0\x01\0\x12\0\0\0\x04";
        assert_eq!(cap(unsupported, 9, &rules), Ok(None));
    }

    #[test]
    fn tells_of_no_version_of_a_denied_api_that_cannot_be_refused() {
        // Produce 3-99, CreateTopics 8-9, Metadata 0-13, Fetch 4-18, key 30000 0-7.
        let body =
            b"\0\0\0\0\0\x05\0\0\0\x03\0\x63\0\x13\0\x08\0\x09\0\x03\0\0\0\x0d\0\x01\0\x04\0\x12\x75\x30\0\0\0\x07";
        let rules = Rules { policy: super::super::Policy::read_only(), ..Rules::default() };
        let shown = b"\0\0\0\0\0\x03\0\0\0\x03\0\x0d\0\x03\0\x04\0\x0d\0\x01\0\x04\0\x12";
        assert_eq!(cap(body, 0, &rules), Ok(Some(shown.to_vec())));
    }

    #[test]
    fn refuses_counts_beyond_the_body() {
        assert!(cap(b"\0\0\x7f\xff\xff\xff", 0, &Rules::default()).is_err());
        assert!(cap(b"\0\0\xff\xff\xff\xff\x0f", 3, &Rules::default()).is_err());
        assert!(cap(b"\0\0\0\0\0\x03\0\x01\0\0", 0, &Rules::default()).is_err());
    }
}
