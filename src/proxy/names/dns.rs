//! DNS questions and answers as bytes. Pure: which name has which address is for the caller to say.
//!
//! Only messages with one question and no records but OPT and a signature get as far as the decoder, so that no count in a header
//! is ever believed. What is not a question at all is dropped: an answer to it would feed reflection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::net::HostPort;

/// How long an answer may be kept, in seconds. Short, so that a client which learned nothing asks again soon; addresses
/// themselves are stable.
pub const TTL: u32 = 10;

/// Largest UDP answer, and what OPT says we take: fits an unfragmented IPv6 packet (the size of DNS flag day 2020).
pub const MAX_UDP: u16 = 1232;

/// Largest question taken, in bytes. A question with a 255-byte name and EDNS options stays below 1 KiB.
pub const MAX_QUESTION: usize = 4096;

/// How a message came, which bounds its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Answers of 512 bytes, or what OPT allows.
    Udp,
    /// Answers of up to 64 KiB.
    Tcp,
}

/// What a message is.
#[derive(Debug)]
pub enum Examined {
    /// No question: nothing is answered.
    Drop,
    /// A question that has one answer whatever is known here: these bytes.
    Refuse(Vec<u8>),
    /// A question.
    Ask(Box<Question>),
}

/// One well-formed question of class IN.
#[derive(Debug, Clone)]
pub struct Question {
    message: Message,
    query: Query,
    /// The name asked for: lower case, no trailing dot, odd bytes escaped.
    pub name: String,
}

/// What is asked, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A, or ANY, which is answered alike (RFC 8482).
    A,
    /// AAAA.
    Aaaa,
    /// SOA.
    Soa,
    /// PTR.
    Ptr,
    /// All else.
    Other,
}

/// What a question is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The name's address; where the question wants the other family, no data.
    Address {
        /// The address.
        address: IpAddr,
        /// The zone of the name.
        zone: String,
    },
    /// The name exists and has no such record.
    NoData {
        /// The zone of the name.
        zone: String,
    },
    /// The SOA of the zone.
    Soa {
        /// The zone.
        zone: String,
    },
    /// No host can have this name.
    NoName {
        /// The zone of the name.
        zone: String,
    },
    /// The name at an address; `None` where the address is ours to give and was not given.
    Pointer(Option<String>),
    /// Not answered here.
    Refused,
    /// Could not be answered now.
    Failed,
}

/// Looks at a message.
#[must_use]
pub fn examine(bytes: &[u8]) -> Examined {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Examined::Drop };
    if header[2] & RESPONSE != 0 {
        return Examined::Drop;
    }
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let opcode = header[2] >> 3 & 0xf;
    if opcode != u8::from(OpCode::Query) {
        return Examined::Refuse(bare(header, ResponseCode::NotImp));
    }
    if count(4) != 1 || count(6) != 0 || count(8) != 0 || count(10) > 2 || bytes.len() > MAX_QUESTION {
        return Examined::Refuse(bare(header, ResponseCode::FormErr));
    }
    let message = match Message::from_vec(bytes) {
        Ok(message) if message.queries.len() == 1 => message,
        _ => return Examined::Refuse(bare(header, ResponseCode::FormErr)),
    };
    let query = message.queries[0].clone();
    let mut name = query.name().to_ascii().to_ascii_lowercase();
    if name.ends_with('.') {
        name.pop();
    }
    let class = query.query_class();
    let question = Question { message, query, name };
    if question.message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Examined::Refuse(question.respond(ResponseCode::BADVERS, None, None, Transport::Udp, false));
    }
    if class != DNSClass::IN {
        return Examined::Refuse(question.respond(ResponseCode::Refused, None, None, Transport::Udp, false));
    }
    Examined::Ask(Box::new(question))
}

impl Question {
    /// What is asked.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.query.query_type() {
            RecordType::A | RecordType::ANY => Kind::A,
            RecordType::AAAA => Kind::Aaaa,
            RecordType::SOA => Kind::Soa,
            RecordType::PTR => Kind::Ptr,
            _ => Kind::Other,
        }
    }

    /// The name, if a host can have it; an address written as a name is none.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        HostPort::new(&self.name, 1).is_ok_and(|host| host.ip().is_none()).then_some(&*self.name)
    }

    /// The IPv4 address that a reverse name (`4.3.2.1.in-addr.arpa`) stands for.
    #[must_use]
    pub fn reverse(&self) -> Option<Ipv4Addr> {
        let mut octets = self.name.strip_suffix(".in-addr.arpa")?.rsplit('.').map(str::parse::<u8>);
        let mut next = || octets.next()?.ok();
        let address = Ipv4Addr::new(next()?, next()?, next()?, next()?);
        octets.next().is_none().then_some(address)
    }

    /// The bytes of an answer. `recursion` says whether other names are forwarded.
    #[must_use]
    pub fn answer(&self, answer: &Answer, transport: Transport, recursion: bool) -> Vec<u8> {
        let any = self.query.query_type() == RecordType::ANY;
        let (code, record, soa) = match answer {
            Answer::Address { address, zone } => match (self.kind(), address) {
                (Kind::A, IpAddr::V4(address)) => (ResponseCode::NoError, Some(RData::A(A(*address))), None),
                (Kind::Aaaa, IpAddr::V6(address)) => (ResponseCode::NoError, Some(aaaa(*address)), None),
                (Kind::A, IpAddr::V6(address)) if any => (ResponseCode::NoError, Some(aaaa(*address)), None),
                _ => (ResponseCode::NoError, None, Some(zone)),
            },
            Answer::NoData { zone } => (ResponseCode::NoError, None, Some(zone)),
            Answer::Soa { zone } => (ResponseCode::NoError, soa(zone).map(RData::SOA), None),
            Answer::NoName { zone } => (ResponseCode::NXDomain, None, Some(zone)),
            Answer::Pointer(name) => {
                let name = name.as_ref().and_then(|name| Name::from_ascii(format!("{name}.")).ok());
                (ResponseCode::NoError, name.map(|name| RData::PTR(PTR(name))), None)
            }
            Answer::Refused => (ResponseCode::Refused, None, None),
            Answer::Failed => (ResponseCode::ServFail, None, None),
        };
        self.respond(code, record, soa.map(String::as_str), transport, recursion)
    }

    fn respond(
        &self,
        code: ResponseCode,
        record: Option<RData>,
        zone: Option<&str>,
        transport: Transport,
        recursion: bool,
    ) -> Vec<u8> {
        let asked = &self.message;
        let mut reply = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
        reply.metadata.response_code = code;
        reply.metadata.authoritative = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        reply.metadata.recursion_desired = asked.metadata.recursion_desired;
        reply.metadata.recursion_available = recursion;
        reply.metadata.checking_disabled = asked.metadata.checking_disabled;
        reply.add_query(self.query.clone());
        if let Some(record) = record {
            reply.add_answer(Record::from_rdata(self.query.name().clone(), TTL, record));
        }
        if let Some((apex, soa)) = zone.and_then(|zone| Some((Name::from_ascii(format!("{zone}.")).ok()?, soa(zone)?)))
        {
            reply.add_authority(Record::from_rdata(apex, TTL, RData::SOA(soa)));
        }
        let mut limit = usize::from(u16::MAX);
        if transport == Transport::Udp {
            limit = 512;
        }
        if let Some(theirs) = &asked.edns {
            // RFC 6891: an answer has an OPT exactly when the question had one; below 512 means 512.
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP).set_version(0).set_dnssec_ok(theirs.flags().dnssec_ok);
            reply.set_edns(edns);
            if transport == Transport::Udp {
                limit = usize::from(theirs.max_payload().clamp(512, MAX_UDP));
            }
        }
        let bytes = reply.to_vec().unwrap_or_default();
        if bytes.len() <= limit && !bytes.is_empty() {
            return bytes;
        }
        reply.take_all_sections().for_each(drop);
        reply.metadata.truncation = true;
        reply.to_vec().unwrap_or_default()
    }
}

/// The SOA record of a zone here; `minimum` bounds how long a "no" is kept (RFC 2308).
fn soa(zone: &str) -> Option<SOA> {
    let apex = Name::from_ascii(format!("{zone}.")).ok()?;
    let mailbox = apex.prepend_label("hostmaster").unwrap_or_else(|_| apex.clone());
    Some(SOA::new(apex, mailbox, 1, 3600, 600, 86_400, TTL))
}

fn aaaa(address: Ipv6Addr) -> RData {
    RData::AAAA(AAAA(address))
}

/// A header alone, for what cannot be decoded.
fn bare(header: &[u8; HEADER], code: ResponseCode) -> Vec<u8> {
    let mut reply = vec![0; HEADER];
    reply[..2].copy_from_slice(&header[..2]);
    // QR, the opcode and RD of the question; then the code.
    reply[2] = RESPONSE | header[2] & 0x79;
    reply[3] = code.low();
    reply
}

/// Bytes of a DNS header.
pub const HEADER: usize = 12;
/// The QR bit in the third byte.
const RESPONSE: u8 = 0x80;

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A question as a resolver sends it; `edns` is the size it says it takes.
    pub(in crate::proxy::names) fn question(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
        let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        let labels = name.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
        message.add_query(Query::query(Name::from_labels(labels).unwrap(), kind));
        if let Some(size) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size).set_dnssec_ok(true);
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    }

    fn ask(bytes: &[u8]) -> Box<Question> {
        match examine(bytes) {
            Examined::Ask(question) => question,
            other => panic!("{other:?}"),
        }
    }

    fn refused(bytes: &[u8]) -> ResponseCode {
        match examine(bytes) {
            Examined::Refuse(reply) => {
                assert_eq!(reply[..2], bytes[..2], "the id comes back");
                Message::from_vec(&reply).unwrap().metadata.response_code
            }
            other => panic!("{other:?}"),
        }
    }

    fn address() -> Answer {
        Answer::Address { address: "127.77.0.1".parse().unwrap(), zone: "grape.test".to_owned() }
    }

    #[test]
    fn an_address_is_answered_byte_for_byte() {
        let asked = question("B0.Grape.test.", RecordType::A, None);
        let asked = ask(&asked);
        assert_eq!((asked.name.as_str(), asked.kind()), ("b0.grape.test", Kind::A));
        let mut expected = b"\x12\x34\x85\x80\0\x01\0\x01\0\0\0\0\x02B0\x05Grape\x04test\0\0\x01\0\x01".to_vec();
        expected.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x0a\0\x04\x7f\x4d\0\x01");
        assert_eq!(asked.answer(&address(), Transport::Udp, true), expected);
    }

    #[test]
    fn other_types_are_no_data_with_soa_and_never_nxdomain() {
        for kind in
            [RecordType::AAAA, RecordType::HTTPS, RecordType::SVCB, RecordType::TXT, RecordType::NS, RecordType::SRV]
        {
            let asked = ask(&question("b0.grape.test.", kind, Some(4096)));
            let reply = Message::from_vec(&asked.answer(&address(), Transport::Udp, false)).unwrap();
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{kind}");
            assert!(reply.metadata.authoritative && !reply.metadata.recursion_available);
            assert!(reply.answers.is_empty());
            assert_eq!(reply.authorities.len(), 1);
            assert_eq!(reply.authorities[0].name.to_ascii(), "grape.test.");
            let RData::SOA(soa) = &reply.authorities[0].data else { panic!("no SOA") };
            assert_eq!((soa.minimum, reply.authorities[0].ttl), (10, 10));
            let edns = reply.edns.expect("OPT comes back");
            assert_eq!((edns.max_payload(), edns.version(), edns.flags().dnssec_ok), (1232, 0, true));
        }
        let any = ask(&question("b0.grape.test.", RecordType::ANY, None));
        let reply = Message::from_vec(&any.answer(&address(), Transport::Udp, false)).unwrap();
        assert_eq!(reply.answers[0].data, RData::A(A("127.77.0.1".parse().unwrap())));
        assert!(reply.edns.is_none());
    }

    #[test]
    fn a_shared_address_of_the_sixth_kind_answers_aaaa() {
        let v6 = Answer::Address { address: "2001:db8::7".parse().unwrap(), zone: "grape.test".to_owned() };
        for (kind, answers) in [(RecordType::AAAA, 1), (RecordType::A, 0), (RecordType::ANY, 1)] {
            let asked = ask(&question("b0.grape.test.", kind, None));
            let reply = Message::from_vec(&asked.answer(&v6, Transport::Udp, false)).unwrap();
            assert_eq!(reply.answers.len(), answers, "{kind}");
        }
    }

    #[test]
    fn soa_pointer_refusal_and_failure_are_what_they_say() {
        let reply = |kind, answer: &Answer| {
            Message::from_vec(&ask(&question("1.0.77.127.in-addr.arpa.", kind, None)).answer(
                answer,
                Transport::Tcp,
                false,
            ))
            .unwrap()
        };
        let pointer = reply(RecordType::PTR, &Answer::Pointer(Some("b0.grape.test".to_owned())));
        assert_eq!(pointer.answers[0].data, RData::PTR(PTR(Name::from_ascii("b0.grape.test.").unwrap())));
        assert!(reply(RecordType::PTR, &Answer::Pointer(None)).answers.is_empty());
        let soa = reply(RecordType::SOA, &Answer::Soa { zone: "grape.test".to_owned() });
        assert_eq!(soa.answers[0].record_type(), RecordType::SOA);
        assert_eq!(reply(RecordType::A, &Answer::Refused).metadata.response_code, ResponseCode::Refused);
        assert_eq!(reply(RecordType::A, &Answer::Failed).metadata.response_code, ResponseCode::ServFail);
        let zone = "grape.test".to_owned();
        assert_eq!(reply(RecordType::A, &Answer::NoName { zone }).metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn names_are_read_as_hosts_and_as_addresses() {
        for (name, host, reverse) in [
            ("b0.grape.test.", true, None),
            ("kafka_1.grape.test.", true, None),
            ("a\\b.grape.test.", false, None),
            ("a b.grape.test.", false, None),
            ("a\0b.grape.test.", false, None),
            ("*.grape.test.", false, None),
            ("10.0.0.1.", false, None),
            ("1.0.77.127.in-addr.arpa.", true, Some(Ipv4Addr::new(127, 77, 0, 1))),
            ("9.1.0.77.127.in-addr.arpa.", true, None),
            ("0.77.127.in-addr.arpa.", true, None),
            ("256.0.77.127.in-addr.arpa.", true, None),
            (".", false, None),
        ] {
            let asked = ask(&question(name, RecordType::A, None));
            assert_eq!((asked.host().is_some(), asked.reverse()), (host, reverse), "{name}");
        }
    }

    #[test]
    fn the_longest_name_fits_and_what_does_not_is_truncated() {
        let long = format!("{0}.{0}.{0}.{1}.", "a".repeat(63), "b".repeat(61));
        assert_eq!(long.len(), 254);
        let asked = ask(&question(&long, RecordType::A, Some(0)));
        let zone = asked.name.clone();
        let reply = asked.answer(&Answer::NoData { zone: zone.clone() }, Transport::Udp, false);
        assert!(reply.len() <= 512, "{}", reply.len());
        // A zone that shares no byte with the name cannot be compressed away.
        let foreign = zone.replace('a', "c").replace('b', "d");
        let reply = asked.answer(&Answer::NoData { zone: foreign.clone() }, Transport::Udp, false);
        let reply = Message::from_vec(&reply).unwrap();
        assert!(reply.metadata.truncation && reply.authorities.is_empty() && reply.edns.is_some());
        let reply = Message::from_vec(&asked.answer(&Answer::NoData { zone: foreign }, Transport::Tcp, false)).unwrap();
        assert!(!reply.metadata.truncation && reply.authorities.len() == 1);
    }

    #[test]
    fn bad_messages_are_dropped_or_named() {
        let good = question("b0.grape.test.", RecordType::A, None);
        let edit = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            bytes
        };
        for short in 0..12 {
            assert!(matches!(examine(&good[..short]), Examined::Drop));
        }
        assert!(matches!(examine(&edit(2, 0x81)), Examined::Drop), "the response bit");
        assert_eq!(refused(&edit(5, 0)), ResponseCode::FormErr, "no question");
        assert_eq!(refused(&edit(5, 2)), ResponseCode::FormErr, "two questions");
        assert_eq!(refused(&edit(4, 0xff)), ResponseCode::FormErr, "65281 questions");
        assert_eq!(refused(&edit(7, 1)), ResponseCode::FormErr, "an answer in a question");
        assert_eq!(refused(&edit(10, 0xff)), ResponseCode::FormErr, "65280 additional records");
        assert_eq!(refused(&edit(11, 1)), ResponseCode::FormErr, "an additional record that is not there");
        assert_eq!(refused(&edit(2, 0x21)), ResponseCode::NotImp, "NOTIFY");
        assert_eq!(refused(&good[..good.len() - 1]), ResponseCode::FormErr, "cut");
        let mut looped = good[..12].to_vec();
        looped.extend(b"\x01a\xc0\x0c\0\x01\0\x01");
        assert_eq!(refused(&looped), ResponseCode::FormErr, "a compression loop");
        let mut ahead = good[..12].to_vec();
        ahead.extend(b"\xc0\x40\0\x01\0\x01");
        assert_eq!(refused(&ahead), ResponseCode::FormErr, "a pointer ahead");
        let last = good.len() - 1;
        assert_eq!(refused(&edit(last, 3)), ResponseCode::Refused, "class CHAOS");
        let mut version = question("b0.grape.test.", RecordType::A, Some(1232));
        let at = version.len() - 5;
        version[at] = 1;
        // The decoder calls number 16 by its other name, that of TSIG.
        assert_eq!(u16::from(refused(&version)), u16::from(ResponseCode::BADVERS));
        assert_eq!(refused(&[good.clone(), vec![0; MAX_QUESTION]].concat()), ResponseCode::FormErr, "too long");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_every_reply_is_a_response(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), query in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if query && bytes.len() > 12 {
                bytes[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            }
            match examine(&bytes) {
                Examined::Drop => {}
                Examined::Refuse(reply) => prop_assert!(reply.len() >= HEADER && reply[2] & RESPONSE != 0),
                Examined::Ask(asked) => {
                    let reply = asked.answer(&address(), Transport::Udp, false);
                    prop_assert!(reply.len() >= HEADER && reply[2] & RESPONSE != 0);
                }
            }
        }
    }
}
