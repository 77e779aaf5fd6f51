//! What is fuzzed: each target a function over arbitrary bytes that panics at a finding. `tests/fuzz.rs` includes this file too.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use linkspan::config::{self, ConfigErrors, Env, Secret, SecretFile, setenv};
use linkspan::net::HostPort;
use linkspan::proxy::names::dns::{Answer, Examined, Transport, examine};
use linkspan::proxy::names::sni;
use linkspan::replicator::decide::offset_map::{self, Chunk, Found, Loader};
use linkspan::replicator::decide::progress::{Key, Progress};

/// One target.
pub(crate) struct Target {
    /// Its name on the command line; its seeds lie in `fuzz/corpus-seeds/NAME`.
    pub(crate) name: &'static str,
    /// Runs it once.
    pub(crate) run: fn(&[u8]),
    /// Bytes that one run may have allocated at once: so many, and so many for each byte of the input.
    pub(crate) memory: (usize, usize),
}

const fn target(name: &'static str, run: fn(&[u8]), memory: (usize, usize)) -> Target {
    Target { name, run, memory }
}

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    target("frame", frames, (8 << 10, 4)),
    target("handshake", linkspan::tunnel::carrier::fuzz_handshake, (64 << 10, 4)),
    target("records", linkspan::tunnel::carrier::fuzz_records, (512 << 10, 64)),
    target("session", super::session::run, (16 << 20, 64)),
    target("walkers", linkspan::kafka::walk::fuzz_walkers, (4 << 10, 4)),
    target("readers", kafka_readers, (4 << 10, 4)),
    target("refusals", kafka_refusals, (9 << 20, 4)),
    target("rewrite", linkspan::proxy::rewrite::fuzz_session, (64 << 10, 4)),
    target("proxy-header", linkspan::proxy::proxy_header::fuzz_proxy_header, (4 << 10, 4)),
    target("sasl-server", linkspan::sasl::server::fuzz_dialogue, (16 << 10, 16)),
    target("batches", linkspan::kafka::batch::fuzz_batches, (160 << 20, 4)),
    target("answers", linkspan::client::fuzz_answer, (16 << 10, 300)),
    target("sni", client_hello, (1 << 10, 4)),
    target("dns", dns, (64 << 10, 64)),
    target("linkspan-toml", linkspan_toml, (1 << 20, 2000)),
    target("setenv", set_env, (1 << 20, 2000)),
    target("host-port", host_port, (4 << 10, 8)),
    target("progress", progress, (4 << 10, 8)),
    target("offset-map", offset_map, (16 << 10, 16)),
];

fn frames(data: &[u8]) {
    linkspan::tunnel::session::frame::fuzz_decode(data);
}

fn kafka_readers(data: &[u8]) {
    linkspan::kafka::frame::fuzz_splitter(data);
    linkspan::kafka::header::fuzz_request_header(data);
    linkspan::kafka::primitives::fuzz_primitives(data);
    linkspan::kafka::walk::fuzz_readers(data);
    linkspan::kafka::sasl::fuzz_sasl(data);
}

/// Each refusal may be as large as its bound.
fn kafka_refusals(data: &[u8]) {
    linkspan::kafka::refusal::fuzz_refusals(data);
}

/// A verdict must not change when more bytes come.
fn client_hello(data: &[u8]) {
    let whole = sni::read(data);
    if let sni::Hello::Sni(name) = &whole {
        assert_eq!(HostPort::new(name, 1).expect("a name that is served is a host").host(), name);
    }
    let cut = data.len() / 2;
    match sni::read(&data[..cut]) {
        sni::Hello::NeedMore | sni::Hello::NotTls(_) => {}
        // Which of its mistakes is named may change.
        sni::Hello::Malformed(_) => assert!(matches!(whole, sni::Hello::Malformed(_)), "half of it was malformed"),
        early => assert_eq!(early, whole, "half of it gave another verdict"),
    }
}

/// Every answer to every question is a message, short enough for its transport.
fn dns(data: &[u8]) {
    let question = match examine(data) {
        Examined::Ask(question) => question,
        Examined::Refuse(reply) => return assert!((12..=512).contains(&reply.len())),
        Examined::Drop => return,
    };
    let _ = (question.kind(), question.host(), question.reverse());
    let zone = || "orange.example".to_owned();
    let address = |address| Answer::Address { address, zone: zone() };
    let answers = [
        address(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        address(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        Answer::NoData { zone: zone() },
        Answer::Soa { zone: zone() },
        Answer::NoName { zone: zone() },
        Answer::Pointer(Some("b0.orange.example".to_owned())),
        Answer::Pointer(None),
        Answer::Refused,
        Answer::Failed,
    ];
    for (answer, recursion) in answers.iter().zip([true, false].into_iter().cycle()) {
        let udp = question.answer(answer, Transport::Udp, recursion);
        let tcp = question.answer(answer, Transport::Tcp, recursion);
        assert!((12..=1232).contains(&udp.len()) && (12..=65_535).contains(&tcp.len()), "{answer:?}");
        assert_eq!((&udp[..2], &tcp[..2]), (&data[..2], &data[..2]), "an answer has the id of its question");
    }
}

/// Every file is there, every variable is not.
struct AllFiles;

impl Env for AllFiles {
    fn var(&self, _: &str) -> Option<String> {
        None
    }

    fn secret_file(&self, _: &Path) -> io::Result<SecretFile> {
        Ok(SecretFile { secret: Secret::new("hidden-s3cret-of-32-bytes-0123456789".to_owned()), world_readable: false })
    }

    fn probe_file(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

fn linkspan_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    report(config::parse(text, Path::new("linkspan.toml"), &AllFiles));
}

fn set_env(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(env) = report(setenv::parse(text, Path::new("setenv.sh"))) {
        for side in [setenv::Side::Source, setenv::Side::Destination] {
            let _ = env.render(side);
        }
    }
}

/// A refusal can be shown, and shows something.
fn report<T>(outcome: Result<T, ConfigErrors>) -> Option<T> {
    outcome.inspect_err(|errors| assert!(!errors.to_string().is_empty())).ok()
}

/// What is read is written so that it is read again as the same.
fn host_port(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(target) = text.parse::<HostPort>()
    {
        assert_eq!(target.to_string().parse(), Ok(target.clone()));
        assert_eq!(HostPort::new(target.host(), target.port()), Ok(target));
    }
}

fn progress(data: &[u8]) {
    if let Ok(progress) = Progress::decode(data) {
        assert_eq!(Progress::decode(&progress.encode()), Ok(progress));
    }
    if let Ok(key) = Key::decode(data) {
        assert_eq!(Key::decode(&key.encode()), Ok(key));
    }
}

/// What is read is written so that it is read again as the same, and a map made of it answers.
fn offset_map(data: &[u8]) {
    if let Ok(key) = offset_map::Key::decode(data) {
        assert_eq!(offset_map::Key::decode(&key.encode()), Ok(key));
    }
    let Ok((chunk, about)) = Chunk::decode(data) else { return };
    assert_eq!(Chunk::decode(&chunk.encode(&about)), Ok((chunk.clone(), about)));
    // Twice, as if the second followed the first: mostly it does not fit.
    let mut loader = Loader::default();
    for number in [about.first, about.first.saturating_add(1)] {
        loader.take(number, i64::from(number), Some(data)).expect("it was read before");
    }
    let mut map = loader.finish().expect("it has a chunk");
    for segment in chunk.segments.iter().take(8) {
        for offset in [segment.source, segment.source.saturating_sub(1), i64::MAX] {
            assert!(!matches!(map.target_of(offset), Found::Empty { .. }), "a map with a segment is not empty");
            let _ = map.source_of(offset);
        }
    }
    map.add(chunk.next.saturating_add(3) >> 1, 5, 1);
    map.prune(chunk.target);
    assert!(!map.changes().is_empty());
}
