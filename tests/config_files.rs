//! What `linkspan init` writes and prints for each side, what the examples and the documentation say, and how the loader
//! treats secrets, overrides and origins.
//!
//! `UPDATE_EXPECTED=1 cargo test --test config_files` writes the golden files anew; read the difference before it is committed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use linkspan::config::setenv::{self, Action, Content, Files, SetEnv, Side, WriteError};
use linkspan::config::{
    self, ErrorCode, MapEnv, Origin, ProxyConfig, TunnelAuth, TunnelRole, WithoutSecrets, firewall,
};

const SETENV: &str = "
export SOURCE_CLUSTER_ID=orange
export SOURCE_BROKER_SERVERS=b0.orange.test:9092
export SOURCE_API_KEY=srckey
export SOURCE_API_SECRET='source-s3cret'
export DESTINATION_CLUSTER_ID=grape
export DESTINATION_BROKER_SERVERS='b0.grape.test:9092, b1.grape.test:9092'
export DESTINATION_API_KEY=dstkey
export DESTINATION_API_SECRET='destination-s3cret'
export REPLICA_TOPICS_SOURCE_REGEX='eu[.]xaz\\..*'
export REPLICA_TOPICS_DEST_SUFFIX=.copy
export SOURCE_SIDE_TUNNEL_IP=203.0.113.7
export DESTINATION_SIDE_TUNNEL_IP=198.51.100.9
export SHARED_SECRET='tunnel-s3cret'
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn set_env(more: &str) -> SetEnv {
    setenv::parse(&format!("{SETENV}{more}"), Path::new("setenv.sh")).unwrap_or_else(|errors| panic!("{errors}"))
}

fn golden(name: &str, text: &str) {
    let path = root().join("tests/golden/config").join(name);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, text).expect("writable");
    }
    assert_eq!(text, fs::read_to_string(&path).unwrap_or_default(), "{name}");
}

fn secrets(files: &Files) -> BTreeMap<PathBuf, String> {
    let secret = |content: &Content| match content {
        Content::Secret(secret) => Some(secret.expose().to_owned()),
        Content::Text(_) => None,
    };
    files.entries.iter().filter_map(|entry| Some((entry.path.clone(), secret(&entry.content)?))).collect()
}

#[test]
fn each_side_gets_the_expected_files() {
    for side in [Side::Source, Side::Destination] {
        let files = set_env("").render(side);
        golden(&format!("{}.toml", side.as_str()), files.text("linkspan.toml").expect("there"));
        golden(&format!("{}.env", side.as_str()), files.text(".env").expect("there"));
        let loaded =
            config::parse(files.text("linkspan.toml").expect("there"), Path::new("linkspan.toml"), &WithoutSecrets)
                .unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(loaded.warnings, []);
    }
    let destination = set_env("").render(Side::Destination);
    let text = destination.text("linkspan.toml").expect("there");
    let config = config::parse(text, Path::new("f"), &WithoutSecrets).expect("valid").config;
    assert_eq!(
        (config.replicate[0].topics[0].as_str(), config.replicate[0].rename.as_str()),
        (r"eu[.]xaz\..*", "${topic}.copy")
    );
    assert!(
        matches!(config.proxy, ProxyConfig::Names(names) if names.zones == ["orange.test"] && names.ports == [9092])
    );
}

#[test]
fn each_side_holds_only_what_it_needs() {
    let env = set_env("");
    let source = env.render(Side::Source);
    let destination = env.render(Side::Destination);
    let held = |files: &Files| secrets(files).into_values().collect::<Vec<_>>();
    assert_eq!(held(&source), ["source-s3cret", "tunnel-s3cret"]);
    assert_eq!(held(&destination), ["destination-s3cret", "source-s3cret", "tunnel-s3cret"]);
    for files in [&source, &destination] {
        assert!(!format!("{files:?}").contains("s3cret"), "a secret shows in Debug or in a text file");
        for entry in &files.entries {
            if let Content::Text(text) = &entry.content {
                assert!(!text.contains("s3cret"), "{}", entry.path.display());
            }
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    source.write(dir.path(), false).expect("written");
    for file in walk(dir.path()) {
        let text = fs::read_to_string(&file).expect("text");
        assert!(!text.contains("destination-s3cret") && !text.contains("dstkey"), "{}", file.display());
    }
    assert!(!format!("{env:?}").contains("s3cret"));
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in dir.read_dir().expect("a directory") {
        let path = entry.expect("readable").path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn writing_is_idempotent_closed_to_others_and_never_overwrites_unasked() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = set_env("").render(Side::Destination);
    let actions = |force| files.write(dir.path(), force).map(|w| w.into_iter().map(|f| f.action).collect::<Vec<_>>());
    assert!(actions(false).expect("written").iter().all(|action| *action == Action::Created));
    let mode = |path: &str| fs::metadata(dir.path().join(path)).expect(path).permissions().mode() & 0o777;
    for (path, expected) in [
        ("secrets", 0o700),
        ("secrets/tunnel", 0o600),
        ("secrets/destination-cluster", 0o600),
        ("linkspan.toml", 0o644),
    ] {
        assert_eq!(mode(path), expected, "{path}");
    }
    fs::set_permissions(dir.path().join("secrets/tunnel"), fs::Permissions::from_mode(0o644)).expect("changed");
    assert!(actions(false).expect("written").iter().all(|action| *action == Action::Unchanged));
    assert_eq!(mode("secrets/tunnel"), 0o600);

    fs::write(dir.path().join("linkspan.toml"), "mine").expect("written");
    fs::remove_file(dir.path().join(".env")).expect("removed");
    match files.write(dir.path(), false) {
        Err(WriteError::Differ(paths)) => assert_eq!(paths, [dir.path().join("linkspan.toml")]),
        other => panic!("{other:?}"),
    }
    assert!(!dir.path().join(".env").exists(), "nothing is written where something differs");
    assert!(actions(true).expect("written").contains(&Action::Replaced));
    config::load(&dir.path().join("linkspan.toml"), &MapEnv::default()).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn the_firewall_has_one_rule_in_total_and_it_is_at_the_side_that_listens() {
    for (more, listener) in [("", Side::Source), ("TUNNEL_LISTEN_SIDE=destination\n", Side::Destination)] {
        for side in [Side::Source, Side::Destination] {
            let files = set_env(more).render(side);
            let text = files.text("linkspan.toml").expect("there");
            let role = config::parse(text, Path::new("f"), &WithoutSecrets).expect("valid").config.tunnel.role;
            let plan = files.firewall();
            assert_eq!(matches!(role, TunnelRole::Listen(_)), side == listener);
            assert_eq!((plan.inbound.len(), plan.peer_inbound.len()), if side == listener { (1, 0) } else { (0, 1) });
            assert_eq!(plan.inbound_total, 1);
            assert_eq!(files.text("docker-compose.override.yml").is_some(), side == listener);
            let rule = plan.inbound.iter().chain(&plan.peer_inbound).next().expect("one rule");
            let (on, from) = match listener {
                Side::Source => ("203.0.113.7", "198.51.100.9/32"),
                Side::Destination => ("198.51.100.9", "203.0.113.7/32"),
            };
            assert_eq!((rule.on.as_str(), rule.from.as_deref(), rule.port), (on, Some(from), 7443));
        }
    }
    for side in [Side::Source, Side::Destination] {
        let plan = set_env("").render(side).firewall();
        golden(&format!("{}.firewall.txt", side.as_str()), &plan.table());
        golden(&format!("{}.firewall.json", side.as_str()), &plan.json());
        golden(&format!("{}.firewall.nft", side.as_str()), &plan.nft());
    }
}

#[test]
fn a_rule_without_an_address_is_said_and_not_opened() {
    let text = fs::read_to_string(root().join("examples/source-listens.toml")).expect("there");
    for (written, said) in
        [("peer_address = \"grape-host.example\"", "grape-host.example"), ("", "tunnel.peer_address is not set")]
    {
        let text = text.replace("peer_address = \"198.51.100.9\"", written);
        let plan = firewall::rules(&config::parse(&text, Path::new("f"), &WithoutSecrets).expect("valid").config);
        assert_eq!(plan.inbound[0].from, None);
        assert!(plan.notes.iter().any(|note| note.contains(said)), "{:?}", plan.notes);
        assert!(plan.table().contains("from UNKNOWN"));
        assert!(!plan.nft().contains("accept comment"), "{}", plan.nft());
    }
}

#[test]
fn the_template_explains_every_key_and_is_refused_as_it_is() {
    for key in setenv::REQUIRED.iter().chain(setenv::OPTIONAL) {
        assert!(setenv::TEMPLATE.contains(&format!("export {key}=")), "{key}");
    }
    let errors = setenv::parse(setenv::TEMPLATE, Path::new("setenv.sh")).expect_err("placeholders").errors;
    assert!(errors.iter().all(|error| error.code == ErrorCode::Placeholder), "{errors:?}");
    let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
    let expected: Vec<&str> =
        setenv::REQUIRED.iter().copied().filter(|key| *key != "REPLICA_TOPICS_DEST_SUFFIX").collect();
    assert_eq!(paths, expected);
}

#[test]
fn options_of_setenv_reach_the_files() {
    let config = |env: &SetEnv, side: Side| {
        let files = env.render(side);
        let text = files.text("linkspan.toml").expect("there").to_owned();
        config::parse(&text, Path::new("f"), &WithoutSecrets).unwrap_or_else(|errors| panic!("{errors}\n{text}")).config
    };
    let env = set_env(
        "LINK_NAME=l\nTUNNEL_PORT=8443\nTUNNEL_TRANSPORT=tls\nSOURCE_SASL_MECHANISM=SCRAM-SHA-256\nPROXY_MODE=rewrite\n\
         EXPOSE_ALLOW='*.orange.test:9092'\nEXPOSE_RESOLVE='b0.orange.test=10.0.0.11,b0.orange.test=10.0.0.12'\n\
         ADMIN_LISTEN=off\nSTATE_DIR=/var/lib/linkspan\nREPLICA_TOPICS_EXCLUDE_REGEX='.*[.]tmp'\n",
    );
    assert!(secrets(&env.render(Side::Source)).keys().all(|path| !path.ends_with("tunnel")));
    let source = config(&env, Side::Source);
    assert_eq!(
        (source.link.as_str(), source.tunnel.role),
        ("l", TunnelRole::Listen("0.0.0.0:8443".parse().expect("one")))
    );
    assert!(matches!(source.tunnel.auth, TunnelAuth::Tls { .. }) && source.admin.listen.is_none());
    assert_eq!(source.expose.allow, ["*.orange.test:9092"]);
    assert_eq!(source.expose.resolve["b0.orange.test"].len(), 2);
    let destination = config(&env, Side::Destination);
    assert!(matches!(destination.proxy, ProxyConfig::Rewrite(ref rewrite) if rewrite.upstream_tls.is_some()));
    assert_eq!(destination.replicate[0].exclude, [".*[.]tmp"]);
    assert_eq!(destination.state_dir, Path::new("/var/lib/linkspan"));

    let bare = SETENV
        .replace("srckey", "")
        .replace("'source-s3cret'", "")
        .replace("=.copy", "=")
        .replace("orange.test", "grape.test");
    let env = setenv::parse(&bare, Path::new("setenv.sh")).unwrap_or_else(|errors| panic!("{errors}"));
    let destination = config(&env, Side::Destination);
    let security = destination.peer.security.expect("replication talks to it");
    assert!(security.tls.is_none() && security.sasl.is_none(), "no key: PLAINTEXT");
    assert_eq!(destination.replicate[0].rename, "${topic}");
    assert!(
        matches!(destination.proxy, ProxyConfig::Rewrite(_)),
        "names of both clusters in one domain cannot be told apart"
    );
}

#[test]
fn examples_and_documentation_are_valid_and_complete() {
    let mut seen = 0;
    for entry in root().join("examples").read_dir().expect("there") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            let loaded = config::load(&path, &WithoutSecrets).unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(loaded.warnings, [], "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 3);
    let reference = fs::read_to_string(root().join("docs/reference/configuration.md")).expect("there");
    for (section, keys) in config::keys() {
        for key in *keys {
            assert!(reference.contains(&format!("`{key}`")), "{key} of {section} is not documented");
        }
    }
    for key in setenv::REQUIRED.iter().chain(setenv::OPTIONAL) {
        assert!(reference.contains(&format!("`{key}`")), "{key} is not documented");
    }
    for page in ["docs/reference/configuration.md", "README.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap_or_default();
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            config::parse(block, Path::new(page), &WithoutSecrets).unwrap_or_else(|errors| panic!("{page}: {errors}"));
        }
    }
}

#[test]
fn secrets_are_trimmed_overridable_and_never_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("secrets")).expect("made");
    for (name, mode) in [("source-cluster", 0o600), ("tunnel", 0o644)] {
        let path = dir.path().join("secrets").join(name);
        fs::write(&path, format!("{name}-s3cret \r\n\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
    }
    let path = dir.path().join("linkspan.toml");
    fs::copy(root().join("examples/source-listens.toml"), &path).expect("copied");
    let secret = |auth: &TunnelAuth| match auth {
        TunnelAuth::Noise { secret } => secret.expose().to_owned(),
        TunnelAuth::Tls { .. } => panic!("noise"),
    };

    let loaded = config::load(&path, &MapEnv::default()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(secret(&loaded.config.tunnel.auth), "tunnel-s3cret ");
    let codes: Vec<_> = loaded.warnings.iter().map(|w| (w.code, w.path.as_str(), w.line)).collect();
    assert_eq!(codes, [(ErrorCode::OpenSecret, "tunnel.secret_file", 15)]);
    assert!(!format!("{loaded:?}").contains("s3cret"));

    let env = MapEnv(BTreeMap::from([("LINKSPAN_TUNNEL_SECRET".to_owned(), "other-s3cret".to_owned())]));
    let loaded = config::load(&path, &env).expect("valid");
    assert_eq!(secret(&loaded.config.tunnel.auth), "other-s3cret");
    let origin = |key: &str| loaded.origins.iter().find(|s| s.path == key).expect(key).origin.clone();
    assert_eq!(origin("tunnel.secret"), Origin::Env("LINKSPAN_TUNNEL_SECRET".to_owned()));
    assert_eq!(origin("tunnel.listen"), Origin::File { line: 14, column: 10 });
    assert_eq!(origin("tunnel.park"), Origin::Default);
    assert!(!format!("{loaded:?}").contains("s3cret"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("linkspan.toml");
    let first = |path: &Path| config::load(path, &MapEnv::default()).expect_err("unreadable").errors.remove(0);
    assert_eq!((first(&path).code, first(&path).file), (ErrorCode::Unreadable, path.display().to_string()));
    fs::write(&path, [0x61, 0xff]).expect("written");
    assert_eq!(first(&path).problem, "it is no UTF-8 text at byte 1");
    fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("written");
    assert_eq!(first(&path).problem, "it has 1048577 bytes, at most 1048576 are read");
}

#[test]
fn compose_reserves_nothing_and_gives_nothing_away() {
    let text = fs::read_to_string(root().join("docker-compose.yml")).expect("there");
    let said: String =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect();
    for forbidden in ["version:", "ipam", "subnet", "ipv4_address", "container_name", "privileged: true", "ports:"] {
        assert!(!said.contains(forbidden), "{forbidden}");
    }
    for needed in [
        "read_only: true",
        "cap_drop: [ALL]",
        "no-new-privileges:true",
        "\"/linkspan\", \"healthcheck\"",
        "profiles: [demo]",
    ] {
        assert!(text.contains(needed), "{needed}");
    }
    for name in ["demo_orange", "demo_grape"] {
        let block = text.split(&format!("  {name}:\n    content: |\n")).nth(1).expect(name);
        let lines = block.lines().take_while(|line| line.starts_with("      "));
        // Compose writes a dollar twice.
        let toml = lines.map(|line| format!("{}\n", line.trim_start())).collect::<String>().replace("$$", "$");
        config::parse(&toml, Path::new(name), &WithoutSecrets).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

#[test]
fn the_prepare_scripts_only_find_the_binary_and_hand_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let fake = dir.path().join("linkspan");
    fs::write(&fake, "#!/bin/sh\necho \"$@\"\n").expect("written");
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).expect("changed");
    fs::write(dir.path().join("my.sh"), SETENV).expect("written");
    let run = |script: &str, args: &[&str]| {
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        let mut command = std::process::Command::new("bash");
        command.arg(root().join("bin").join(script)).args(args).env("PATH", path).current_dir(dir.path());
        let output = command.output().expect("bash is there");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    for (script, side) in [("prepare_src_config.sh", "source"), ("prepare_dest_config.sh", "destination")] {
        let (code, out, _) = run(script, &["--setenv", "my.sh", "--out", "o", "--force"]);
        assert_eq!((code, out), (Some(0), format!("init {side} --from-env my.sh --out o --force\n")));
        let (code, _, err) = run(script, &[]);
        assert!(code == Some(2) && err.contains("error: setenv.sh is not there"), "{err}");
        let (code, _, err) = run(script, &["--bogus"]);
        assert!(code == Some(2) && err.contains("unknown argument: --bogus"), "{err}");
        let (code, out, _) = run(script, &["--help"]);
        assert!(code == Some(0) && out.contains(&format!("Usage: bin/{script}")), "{out}");
    }
}
