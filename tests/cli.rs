//! The built program as an operator meets it: exit codes, what goes to stdout and stderr, and that no secret ever does.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SECRET: &str = "kX9vQ2mB7rT4wY8zN3pL6sD1fG5hJ0cA2eU9iO4qW7";
const PASSWORD: &str = "pa55-of-orange-Zk3";

/// A directory with a configuration whose ports are free.
struct Place {
    dir: tempfile::TempDir,
    admin: SocketAddr,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().expect("a directory"), admin: free_port() };
        place.write("secrets/link", SECRET);
        place.write("secrets/orange", PASSWORD);
        place.write("linkspan.toml", &place.config());
        place
    }

    fn config(&self) -> String {
        format!(
            r#"
link = "orange-grape"
state_dir = "state"
[local]
cluster = "grape"
bootstrap = ["127.0.0.1:{closed}"]
security = {{ protocol = "SASL_PLAINTEXT", mechanism = "PLAIN", username = "srckey", password_file = "secrets/orange" }}
[peer]
cluster = "orange"
bootstrap = ["b0.orange.test:9092"]
[tunnel]
dial = "127.0.0.1:{closed}"
secret_file = "secrets/link"
[proxy]
mode = "off"
[admin]
listen = "{admin}"
"#,
            closed = free_port().port(),
            admin = self.admin
        )
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("the directory is made");
        std::fs::write(&path, text).expect("the file is written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("the mode is set");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn linkspan(&self, arguments: &[&str]) -> Command {
        linkspan(self.dir.path(), arguments)
    }

    fn run(&self, arguments: &[&str]) -> Done {
        Done::of(self.linkspan(arguments).output().expect("the program runs"))
    }

    /// Starts `linkspan run` and waits until it answers.
    fn start(&self) -> Running {
        let mut child =
            self.linkspan(&["run"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
        let log = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let mut running = Running { child, log };
        running.wait_for("endpoint started");
        running
    }
}

struct Running {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Running {
    /// Reads the log up to the line that has `text`.
    fn wait_for(&mut self, text: &str) -> String {
        let mut read = String::new();
        while !read.contains(text) {
            assert!(self.log.read_line(&mut read).expect("the log is text") > 0, "ended before {text:?}: {read}");
        }
        read
    }

    /// Sends a signal by its name.
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for the end; the exit code and the rest of the log.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).expect("the log is text");
        (self.child.wait().expect("it ends").code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let done = Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        for secret in [SECRET, PASSWORD] {
            assert!(
                !done.out.contains(secret) && !done.err.contains(secret),
                "a secret was shown:\n{}{}",
                done.out,
                done.err
            );
        }
        assert!(!done.out.contains('\x1b') && !done.err.contains('\x1b'), "colour without a terminal");
        done
    }

    #[track_caller]
    fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

fn linkspan(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linkspan"));
    command.args(arguments).current_dir(dir).env_remove("RUST_LOG").env_remove("LINKSPAN_LOG").stdin(Stdio::null());
    command
}

/// A port of loopback that nobody holds now.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

#[test]
fn usage_mistakes_are_2_and_help_is_0() {
    let place = Place::new();
    for arguments in [
        &[][..],
        &["nothing"],
        &["check", "--only", "everything"],
        &["status", "-o", "yaml"],
        &["check", "--wait", "x"],
    ] {
        let done = place.run(arguments);
        done.expect(2);
        assert!(done.out.is_empty() && !done.err.is_empty(), "{arguments:?}: {}{}", done.out, done.err);
    }
    for arguments in [&["--help"][..], &["-h"], &["--version"], &["run", "-h"], &["check", "--help"]] {
        let done = place.run(arguments);
        done.expect(0);
        assert!(!done.out.is_empty() && done.err.is_empty());
        assert!(done.out.lines().count() <= 40, "{arguments:?} does not fit one screen:\n{}", done.out);
    }
    assert!(place.run(&["-h"]).out.contains("Exit codes: 0 ok, 1 unhealthy"));
}

#[test]
fn version_is_text_or_json() {
    let place = Place::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(place.run(&["version"]).expect(0).out, format!("linkspan {version}\n"));
    let json: serde_json::Value =
        serde_json::from_str(&place.run(&["version", "-o", "json"]).expect(0).out).expect("JSON");
    assert_eq!((&json["schema"], &json["version"]), (&"linkspan/v1/Version".into(), &version.into()));
}

#[test]
fn a_new_secret_is_strong_and_never_the_same() {
    let place = Place::new();
    let make = || {
        let output = linkspan(place.dir.path(), &["secret", "new"]).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(!String::from_utf8_lossy(&output.stderr).contains(text.trim()), "the secret is on stdout only");
        text.strip_suffix('\n').expect("one line").to_owned()
    };
    let (one, two) = (make(), make());
    assert_ne!(one, two);
    for secret in [one, two] {
        assert!(
            secret.len() >= 43 && !secret.contains(char::is_whitespace),
            "256 bits need 43 letters: {}",
            secret.len()
        );
        place.write("secrets/link", &secret);
        place.run(&["config", "validate"]).expect(0);
        assert_eq!(place.run(&["check", "--only", "config"]).expect(0).err, "");
    }
}

#[test]
fn a_configuration_with_mistakes_is_2_and_names_them_all() {
    let place = Place::new();
    assert_eq!(place.run(&["config", "validate"]).expect(0).out, "linkspan.toml is valid: link orange-grape\n");
    let broken =
        place.config().replace("[proxy]", "heartbaet = 1\n[proxy]").replace("protocol = \"SASL", "protocol = \"SOSL");
    place.write("broken.toml", &broken);
    for arguments in [
        &["config", "validate", "--config", "broken.toml"][..],
        &["config", "show", "-c", "broken.toml"],
        &["run", "-c", "broken.toml"],
        &["firewall", "-c", "broken.toml"],
        &["status", "-c", "broken.toml"],
    ] {
        let done = place.run(arguments);
        done.expect(2);
        assert!(done.out.is_empty(), "{arguments:?}");
        assert!(done.err.contains("heartbaet") && done.err.contains("SOSL_PLAINTEXT"), "{arguments:?}: {}", done.err);
        assert!(done.err.contains("broken.toml:"), "{}", done.err);
    }
    let check = place.run(&["check", "-c", "broken.toml"]);
    check.expect(2);
    assert!(check.out.contains("× LS003") && check.out.contains("heartbaet"), "{}", check.out);
    let missing = place.run(&["config", "validate", "-c", "nowhere.toml"]);
    missing.expect(2);
    assert!(missing.err.contains("nowhere.toml"), "{}", missing.err);
    let empty = tempfile::tempdir().expect("a directory");
    let none = Done::of(linkspan(empty.path(), &["check"]).output().expect("the program runs"));
    none.expect(2);
    assert!(none.err.starts_with("error[LS001]: there is no linkspan.toml"), "{}", none.err);
    assert!(none.err.contains("\n  fix:   "), "{}", none.err);
}

#[test]
fn config_show_leaves_secrets_out_and_says_where_values_come_from() {
    let place = Place::new();
    let show = place.run(&["config", "show"]);
    show.expect(0);
    assert!(show.out.contains("link = \"orange-grape\""), "{}", show.out);
    let origin = place.run(&["config", "show", "--origin"]);
    origin.expect(0);
    assert!(
        origin.out.lines().any(|line| line.starts_with("link = ") && line.ends_with("linkspan.toml:2:8")),
        "{}",
        origin.out
    );
    assert!(origin.out.lines().any(|line| line.ends_with("  default")), "{}", origin.out);
}

#[test]
fn a_weak_secret_is_refused_at_start_with_the_command_that_makes_a_good_one() {
    let place = Place::new();
    for weak in [
        "the answer to life, the universe and everything",
        "changeme",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ] {
        place.write("secrets/link", weak);
        let done = place.run(&["run"]);
        done.expect(2);
        assert!(done.err.contains("linkspan secret new"), "{}", done.err);
        assert!(!done.err.contains(weak), "{}", done.err);
    }
    place.write("secrets/link", "");
    place.run(&["run"]).expect(2);
}

#[test]
fn certificates_are_written_once_and_not_replaced_without_force() {
    let place = Place::new();
    let first = place.run(&["certs", "--dir", "certs"]);
    first.expect(0);
    assert!(first.out.contains("ca.crt") && first.out.contains("source host only"), "{}", first.out);
    assert!(!first.out.contains("PRIVATE KEY") && !first.err.contains("PRIVATE KEY"));
    let ca = std::fs::read(place.path("certs/ca.crt")).expect("the CA is there");
    let again = place.run(&["certs", "--dir", "certs"]);
    again.expect(7);
    assert!(again.err.contains("--force"), "{}", again.err);
    assert_eq!(std::fs::read(place.path("certs/ca.crt")).expect("the CA is there"), ca);
    place.run(&["certs", "--dir", "certs", "--force"]).expect(0);
    assert_ne!(std::fs::read(place.path("certs/ca.crt")).expect("the CA is there"), ca);
}

#[test]
fn check_names_what_is_wrong_while_nothing_runs() {
    let place = Place::new();
    let begun = Instant::now();
    let done = place.run(&["check"]);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    done.expect(1);
    for line in ["√ LS001 ", "√ LS071 ", "- LS072 ", "√ LS304 ", "× LS102 ", "× LS201 ", "- LS209 "] {
        assert!(done.out.lines().any(|row| row.starts_with(line)), "no {line:?} in:\n{}", done.out);
    }
    assert!(done.out.ends_with(" s.   Check results are ×\n"), "{}", done.out);
    assert!(done.err.is_empty(), "{}", done.err);

    let json = place.run(&["check", "-o", "json"]);
    json.expect(1);
    let report: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!((&report["schema"], &report["success"]), (&"linkspan/v1/Check".into(), &false.into()));
    assert_eq!(report["link"], "orange-grape");
    for section in report["categories"].as_array().expect("categories") {
        for row in section["checks"].as_array().expect("checks") {
            let told = row["result"] == "failed" || row["result"] == "warning";
            assert!(!told || row["fix"].is_string(), "{row}");
        }
    }
    let only = place.run(&["check", "--only", "config", "--only", "ports"]);
    only.expect(0);
    assert!(!only.out.contains("tunnel\n------"), "{}", only.out);
    place.run(&["check", "--only", "tunnel", "--wait", "100ms"]).expect(6);
    place.run(&["check", "--only", "peer"]).expect(5);
}

#[test]
fn check_names_the_port_that_another_program_holds() {
    let place = Place::new();
    let _holder = TcpListener::bind(place.admin).expect("the admin port");
    let done = place.run(&["check", "--only", "ports", "--admin", &free_port().to_string()]);
    done.expect(1);
    assert!(done.out.contains(&format!("{}: another program holds it", place.admin)), "{}", done.out);
}

#[test]
fn asking_a_process_that_does_not_run_is_5_and_unhealthy_for_the_container() {
    let place = Place::new();
    let status = place.run(&["status"]);
    status.expect(5);
    assert!(status.err.starts_with(&format!("error[LS072]: no endpoint answers on {}", place.admin)), "{}", status.err);
    assert!(status.out.is_empty());
    place.run(&["healthcheck"]).expect(1);
    place.run(&["healthcheck", "--admin", &place.admin.to_string()]).expect(1);
    place.run(&["status", "--admin", "https://x:1"]).expect(2);
}

#[test]
fn a_running_endpoint_is_seen_and_drains_on_a_signal() {
    let place = Place::new();
    let running = place.start();
    let json = place.run(&["status", "-o", "json"]);
    assert!(json.code == Some(0) || json.code == Some(1), "{:?}", json.code);
    let status: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!((&status["schema"], &status["link"]), (&"linkspan/v1/Status".into(), &"orange-grape".into()));
    let admin = place.admin.to_string();
    for form in ["human", "wide"] {
        let done = place.run(&["status", "-o", form, "--admin", &format!("http://{admin}/")]);
        assert!(done.out.starts_with("link orange-grape   "), "{}", done.out);
    }
    let check = place.run(&["check", "--only", "config", "--only", "ports"]);
    assert!(check.out.contains("√ LS072 ") && check.out.contains("open in the running endpoint"), "{}", check.out);
    let metrics = get(place.admin, "/metrics");
    assert!(metrics.contains("\nlinkspan_tunnel_up{") && metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(get(place.admin, "/livez").ends_with("\r\n\r\nok\n"));

    let second = place.run(&["run"]);
    second.expect(5);
    assert!(second.err.contains("LS304") && second.err.contains(&admin), "{}", second.err);

    running.signal("TERM");
    let (code, log) = running.end();
    assert_eq!(code, Some(143), "{log}");
    assert!(
        log.lines().filter(|line| !line.is_empty()).all(|line| line.starts_with('{')),
        "JSON without a terminal: {log}"
    );
    assert!(!log.contains(SECRET) && !log.contains(PASSWORD));
    assert!(TcpStream::connect(place.admin).is_err());

    let running = place.start();
    running.signal("INT");
    assert_eq!(running.end().0, Some(130));
}

#[test]
fn a_changed_configuration_is_read_again_on_disk_and_on_a_signal() {
    let place = Place::new();
    let config = std::fs::read_to_string(place.path("linkspan.toml")).expect("it was written");
    let mut running = place.start();
    // The file may be broken: the command is told the port.
    let admin = place.admin.to_string();
    let status = || -> serde_json::Value {
        let done = place.run(&["status", "-o", "json", "--admin", &admin]);
        serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {}{}", done.out, done.err))
    };

    // By the file alone.
    let changed = config.replace("[proxy]", "[expose]\nallow = [\"b9.grape.test:9092\"]\n[proxy]");
    place.write("linkspan.toml", &changed);
    let log = running.wait_for("configuration read again");
    assert!(log.contains("expose.allow"), "{log}");
    let seen = status()["config"].clone();
    assert_eq!((&seen["reloads"], &seen["last_error"]), (&1.into(), &serde_json::Value::Null));
    assert_eq!(seen["restart_for"], serde_json::json!([]));

    // A mistake changes nothing and is told until it is mended.
    place.write("linkspan.toml", &changed.replace("allow = ", "alow = "));
    let log = running.wait_for("not in effect");
    assert!(log.contains("LS012") && log.contains("alow"), "{log}");
    assert!(status()["reasons"].to_string().contains("LS012"));
    let waits = changed.replace("mode = \"off\"", "mode = \"rewrite\"\nlisten = \"127.0.0.1:9092\"");
    place.write("linkspan.toml", &waits);
    let log = running.wait_for("a restart is needed");
    assert!(log.contains("proxy.mode"), "{log}");
    assert!(place.run(&["status"]).out.contains("config   a restart is needed for proxy."));

    // The file of a secret is watched too; one that is too weak is refused.
    place.write("secrets/link", "hunter2");
    assert!(running.wait_for("not in effect").contains("bits of strength"));
    place.write("secrets/link", "Zq8wM3nB6vC1xK9jH4gF7dS2aP5oI0uYtR3");
    running.wait_for("configuration read again");
    let before = status()["config"]["reloads"].as_u64().expect("a number");
    running.signal("HUP");
    running.wait_for("configuration read again");
    assert_eq!(status()["config"]["reloads"], before + 1);
    assert!(get(place.admin, "/metrics").contains("\nlinkspan_config_last_reload_successful{link=\"orange-grape\"} 1"));
    running.signal("TERM");
    let (code, log) = running.end();
    assert_eq!(code, Some(143), "{log}");
    assert!(!log.contains("hunter2") && !log.contains(SECRET));
}

#[test]
fn a_bad_log_filter_is_a_usage_mistake() {
    let place = Place::new();
    let done =
        Done::of(place.linkspan(&["run"]).env("LINKSPAN_LOG", "linkspan=loud").output().expect("the program runs"));
    done.expect(2);
    assert!(done.err.contains("LINKSPAN_LOG=linkspan=loud"), "{}", done.err);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    let mut child = place.linkspan(&["config", "show"]).stdout(Stdio::piped()).spawn().expect("the program runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("the admin port answers");
    socket.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("the request is sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("the answer is text");
    answer
}

/// What an operator fills in; the optional keys say that no broker speaks TLS.
fn setenv() -> String {
    format!(
        "export SOURCE_CLUSTER_ID=orange\nexport SOURCE_BROKER_SERVERS=b0.orange.test:9092\nexport SOURCE_API_KEY=srckey\n\
         export SOURCE_API_SECRET={PASSWORD}\nexport DESTINATION_CLUSTER_ID=grape\n\
         export DESTINATION_BROKER_SERVERS=b0.grape.test:9092\nexport DESTINATION_API_KEY=dstkey\n\
         export DESTINATION_API_SECRET={PASSWORD}\nexport REPLICA_TOPICS_SOURCE_REGEX='eu[.]xaz[.].*'\n\
         export REPLICA_TOPICS_DEST_SUFFIX=.copy\nexport SOURCE_SIDE_TUNNEL_IP=203.0.113.7\n\
         export DESTINATION_SIDE_TUNNEL_IP=198.51.100.9\nexport SHARED_SECRET={SECRET}\n"
    )
}

#[test]
fn init_writes_each_side_once_and_prints_the_one_rule() {
    let place = Place::new();
    place.write("setenv.sh", &setenv());
    for (side, rule) in
        [("source", "OPEN     on 203.0.113.7"), ("destination", "NOTHING  on the endpoint beside grape")]
    {
        let init =
            |more: &[&str]| place.run(&[&["init", side, "--from-env", "setenv.sh", "--out", side][..], more].concat());
        let would = init(&["--diff"]);
        would.expect(0);
        assert!(would.out.contains(&format!("would create   {side}/linkspan.toml")), "{}", would.out);
        assert!(!place.path(side).exists(), "--diff writes nothing");

        let first = init(&[]);
        first.expect(0);
        assert!(first.out.contains(rule) && first.out.contains("1 inbound rule in total."), "{}", first.out);
        assert!(first.err.contains("created") && first.err.contains("Next: "), "{}", first.err);
        assert_eq!(init(&["--diff"]).expect(0).out, "nothing would change\n");
        assert!(init(&[]).expect(0).err.contains("unchanged"), "again is no failure");

        place.run(&["config", "validate", "-c", &format!("{side}/linkspan.toml")]).expect(0);
        let firewall = place.run(&["firewall", "-c", &format!("{side}/linkspan.toml")]);
        assert_eq!(firewall.expect(0).out, first.out, "the same rules, from the written file");
        let json = place.run(&["firewall", "-o", "json", "-c", &format!("{side}/linkspan.toml")]);
        let json: serde_json::Value = serde_json::from_str(&json.expect(0).out).expect("JSON");
        assert_eq!((&json["schema"], &json["inbound_total"]), (&"linkspan/v1/Firewall".into(), &1.into()));
        place.run(&["firewall", "-o", "nft", "-c", &format!("{side}/linkspan.toml")]).expect(0);

        place.write(&format!("{side}/linkspan.toml"), "link = \"mine\"\n");
        let refused = init(&[]);
        refused.expect(7);
        assert!(refused.err.contains("--force"), "{}", refused.err);
        assert_eq!(std::fs::read_to_string(place.path(side).join("linkspan.toml")).expect("mine"), "link = \"mine\"\n");
        let diff = init(&["--diff"]).expect(0).out.clone();
        assert!(diff.contains("    -link = \"mine\"\n") && diff.contains("    +link = \"orange-grape\"\n"), "{diff}");
        init(&["--force"]).expect(0);
        assert_eq!(init(&["--diff"]).expect(0).out, "nothing would change\n");
    }
    place.write("setenv.sh", "export SOURCE_CLUSTER_ID=orange\nexport SORCE_API_KEY=x\n");
    let bad = place.run(&["init", "source", "--from-env", "setenv.sh"]);
    bad.expect(2);
    assert!(bad.err.contains("SORCE_API_KEY") && bad.err.contains("SHARED_SECRET"), "all at once: {}", bad.err);
}

#[test]
fn init_without_values_writes_a_template_that_is_refused_until_filled_in() {
    let place = Place::new();
    for side in ["source", "destination"] {
        place.run(&["init", side, "--out", side]).expect(0);
        let refused = place.run(&["config", "validate", "-c", &format!("{side}/linkspan.toml")]);
        refused.expect(2);
    }
}
