//! The bed as the tests see it: networks, brokers, Kafka's tools and librdkafka, and linkspan's own processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The port that the wire lets through, towards orange.
pub const TUNNEL_PORT: u16 = 7443;
/// Orange's endpoint as grape sees it.
pub const ORANGE_WAN: &str = "203.0.113.7";
/// Grape's endpoint as orange sees it.
pub const GRAPE_WAN: &str = "198.51.100.9";
/// A secret made for these tests.
pub const SECRET: &str = "8nQ3mBv0yYx2rT6wKc9uHs4dLf7gJa1pZe5iWo0tXkU";

/// A network and the cluster in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Orange,
    Grape,
}

impl Side {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orange => "orange",
            Self::Grape => "grape",
        }
    }

    /// First bootstrap server, with its cluster's main listener.
    pub const fn bootstrap(self) -> &'static str {
        match self {
            Self::Orange => "b0.orange.test:9092",
            Self::Grape => "b0.grape.test:9094",
        }
    }

    /// `security = …` of linkspan.toml for this cluster's main listener; secrets stand in files of the bed.
    pub fn security(self) -> String {
        let bed = Bed::get();
        match self {
            Self::Orange => format!(
                "{{ protocol = \"SASL_SSL\", mechanism = \"PLAIN\", username = \"srckey\", password_file = \"{0}/orange.pw\", ca_file = \"{0}/tls/ca.pem\" }}",
                bed.dir.display()
            ),
            Self::Grape => format!(
                "{{ protocol = \"SASL_PLAINTEXT\", mechanism = \"SCRAM-SHA-512\", username = \"dstkey\", password_file = \"{}/grape.pw\" }}",
                bed.dir.display()
            ),
        }
    }
}

/// The one bed of this test process: both networks up, both clusters running; all of it ends with the process.
pub struct Bed {
    pub dir: PathBuf,
    root: PathBuf,
    cache: PathBuf,
    python: PathBuf,
    /// The program under test: `LINKSPAN_BIN`, or the release build.
    pub linkspan: PathBuf,
}

static BED: OnceLock<Bed> = OnceLock::new();

impl Bed {
    /// The bed, made on first use.
    pub fn get() -> &'static Self {
        BED.get_or_init(|| {
            let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
            let cache = std::env::var_os("LINKSPAN_CACHE").map_or_else(
                || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/linkspan"),
                PathBuf::from,
            );
            let bed = Self {
                dir: std::env::var_os("LINKSPAN_BED").map_or_else(|| root.join("target/bed-real"), PathBuf::from),
                python: cache.join("venv/bin/python"),
                cache,
                linkspan: std::env::var_os("LINKSPAN_BIN")
                    .map_or_else(|| root.join("target/release/linkspan"), PathBuf::from),
                root,
            };
            assert!(bed.linkspan.exists(), "{} is not built: bin/test real builds it", bed.linkspan.display());
            bed.run(&["down"]);
            bed.run(&["up", &TUNNEL_PORT.to_string()]);
            let clusters: Vec<_> = [("orange", ""), ("grape", FORGETFUL)]
                .map(|(name, extra)| {
                    bed.command(&["start", name]).env("BED_BROKER_EXTRA", extra).spawn().expect("bed.sh starts")
                })
                .into();
            for mut cluster in clusters {
                assert!(cluster.wait().expect("bed.sh ends").success(), "a cluster did not start");
            }
            for (name, secret) in
                [("orange.pw", "orange-api-secret"), ("grape.pw", "grape-api-secret"), ("link.secret", SECRET)]
            {
                write_secret(&bed.dir.join(name), secret);
            }
            for side in [Side::Orange, Side::Grape] {
                let config = fs::read_to_string(bed.client_file(side)).expect("client.properties");
                fs::write(
                    bed.dir.join(side.name()).join("py.properties"),
                    format!("{config}\nbootstrap.servers={}\n", side.bootstrap()),
                )
                .expect("py.properties");
            }
            bed
        })
    }

    /// Kafka's jars.
    pub fn libs(&self) -> PathBuf {
        self.cache.join("kafka-4.1.0/libs")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.root.join("tests/bed/bed.sh"));
        command.args(args).env("LINKSPAN_BED", &self.dir).env("BED_AUTHORIZER", "1").stdin(Stdio::null());
        command
    }

    /// Runs a verb of bed.sh that must succeed; its standard output.
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("bed.sh runs");
        assert!(output.status.success(), "bed.sh {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Process id of a broker, while it runs.
    pub fn broker(&self, side: Side, id: u32) -> Option<u32> {
        let note = fs::read_to_string(self.dir.join(side.name()).join(id.to_string()).join("pid")).ok()?;
        let (pid, began) = note.trim().split_once(' ')?;
        let pid = pid.parse().ok()?;
        // An id alone may be another process's by now.
        (process_field(pid, BEGAN)? == began && process_field(pid, STATE)? != "Z").then_some(pid)
    }

    /// Starts a broker and does not wait until it listens.
    pub fn broker_start(&self, side: Side, id: u32) -> Child {
        self.command(&["start", side.name(), &id.to_string()]).spawn().expect("bed.sh starts")
    }

    /// Copies configurations and logs of brokers and endpoints into a folder that outlives the bed.
    pub fn keep_logs(&self, into: &Path) {
        for side in [Side::Orange, Side::Grape] {
            for folder in fs::read_dir(self.dir.join(side.name())).into_iter().flatten().flatten() {
                let to = into.join(side.name()).join(folder.file_name());
                for file in ["log", "server.properties", "linkspan.toml"] {
                    let from = folder.path().join(file);
                    if from.is_file() {
                        fs::create_dir_all(&to).expect("folder of the kept logs");
                        fs::copy(&from, to.join(file)).expect("a log is copied");
                    }
                }
            }
        }
    }

    /// A command to be run inside a network.
    pub fn inside(&self, side: Side, program: &Path) -> Command {
        let mut command = self.command(&["exec", side.name(), "--"]);
        command.arg(program);
        command
    }

    /// Java client properties of a cluster.
    pub fn client_file(&self, side: Side) -> PathBuf {
        self.dir.join(side.name()).join("client.properties")
    }

    /// The same with `bootstrap.servers`, for librdkafka.
    pub fn python_file(&self, side: Side) -> PathBuf {
        self.dir.join(side.name()).join("py.properties")
    }

    /// Runs one of Kafka's tools in `network`; its output whatever its end.
    pub fn tool(&self, network: Side, class: &str, args: &[&str]) -> Output {
        self.command(&["tool", network.name(), class]).args(args).output().expect("tool runs")
    }

    /// Starts one of Kafka's tools in `network`.
    pub fn tool_start(&self, network: Side, class: &str, args: &[&str]) -> Child {
        let mut command = self.command(&["tool", network.name(), class]);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tool starts")
    }

    /// Runs a tool that must succeed; its standard output.
    pub fn tool_ok(&self, network: Side, class: &str, args: &[&str]) -> String {
        let output = self.tool(network, class, args);
        assert!(output.status.success(), "{class} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Creates a topic on a cluster from inside its own network.
    pub fn create_topic(&self, side: Side, topic: &str, partitions: u32, replicas: u32, configs: &[&str]) {
        let file = self.client_file(side);
        let (partitions, replicas) = (partitions.to_string(), replicas.to_string());
        let mut args = vec![
            "--bootstrap-server",
            side.bootstrap(),
            "--command-config",
            file.to_str().expect("UTF-8 path"),
            "--create",
            "--topic",
            topic,
            "--partitions",
            &partitions,
            "--replication-factor",
            &replicas,
        ];
        for config in configs {
            args.extend(["--config", config]);
        }
        self.tool_ok(side, TOPICS, &args);
    }

    /// Starts records.py in `network`.
    pub fn records_start(&self, network: Side, args: &[&str]) -> Child {
        self.client_start(network, "records.py", args)
    }

    /// Starts one of the Python clients in `network`.
    pub fn client_start(&self, network: Side, script: &str, args: &[&str]) -> Child {
        let mut command = self.inside(network, &self.python);
        command.arg(self.client_path(script)).args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the client starts")
    }

    /// The same for as long as its standard input is held open. What it complains of goes into `complaints` of its network.
    pub fn client_until_told(&self, network: Side, script: &str, args: &[&str], complaints: &str) -> Child {
        let log = fs::File::create(self.dir.join(network.name()).join(complaints)).expect("file of complaints");
        let mut command = self.inside(network, &self.python);
        command.arg(self.client_path(script)).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().expect("the client starts")
    }

    /// A client's file.
    pub fn client_path(&self, name: &str) -> PathBuf {
        self.root.join("tests/bed/clients").join(name)
    }

    /// Runs records.py in `network` to its end; the JSON that it printed.
    pub fn records(&self, network: Side, args: &[&str]) -> serde_json::Value {
        finish_records(self.records_start(network, args), args)
    }

    /// What the counters of the wire and of grape's network say: (name, packets).
    pub fn counter(&self, side: Side, name: &str) -> u64 {
        self.run(&["counters"])
            .lines()
            .find_map(|line| {
                let mut words = line.split_whitespace();
                (words.next() == Some(side.name()) && words.next() == Some(name))
                    .then(|| words.next().and_then(|n| n.parse().ok()))?
            })
            .unwrap_or_else(|| panic!("no counter {name} in {}", side.name()))
    }
}

/// A setting of grape's brokers: they look every second for producers that are to be forgotten, not every ten minutes. When that is
/// stays at a day, unless a test says otherwise.
const FORGETFUL: &str = "producer.id.expiration.check.interval.ms=1000";

/// Places of fields behind the name in /proc/PID/stat.
const STATE: usize = 0;
const BEGAN: usize = 19;

fn process_field(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split_whitespace().nth(field)?.to_owned())
}

/// State of a process: `R`, `S`, `T` for stopped, …
pub fn process_state(pid: u32) -> Option<String> {
    process_field(pid, STATE)
}

/// Sends a signal by its name; whether that process was there.
pub fn signal(pid: u32, name: &str) -> bool {
    Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status()
        .expect("kill runs")
        .success()
}

/// Class of kafka-topics.sh.
pub const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

/// Waits for records.py; the JSON that it printed.
pub fn finish_records(child: Child, args: &[&str]) -> serde_json::Value {
    let output = child.wait_with_output().expect("records.py ends");
    assert!(
        output.status.success(),
        "records.py {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("records.py prints JSON")
}

/// Ends what the bed started. Called by the last test of the binary through [`super::zz_ends_the_bed`].
pub fn down() {
    if let Some(bed) = BED.get() {
        bed.run(&["down"]);
    }
}

fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).expect("secret is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("mode is set");
}

/// One linkspan process.
pub struct Endpoint {
    side: Side,
    dir: PathBuf,
    child: Option<Child>,
}

impl Endpoint {
    /// Writes `config` as the endpoint's file in a fresh folder `name` and starts `linkspan run` inside its network.
    pub fn start(side: Side, name: &str, config: &str) -> Self {
        let dir = Bed::get().dir.join(side.name()).join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("folder of the endpoint");
        fs::write(dir.join("linkspan.toml"), config).expect("linkspan.toml");
        let mut endpoint = Self { side, dir, child: None };
        endpoint.restart();
        endpoint
    }

    /// Starts the process again, after [`Endpoint::kill`].
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "still running");
        let bed = Bed::get();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).expect("log");
        let mut command = bed.inside(self.side, &bed.linkspan);
        command.args(["run", "--config"]).arg(self.dir.join("linkspan.toml"));
        command.stdout(log.try_clone().expect("log")).stderr(log);
        self.child = Some(command.spawn().expect("linkspan starts"));
    }

    /// SIGKILL, and waits for the end. Whether it hit a process that ran.
    pub fn kill(&mut self) -> bool {
        let Some(mut child) = self.child.take() else { return false };
        let ran = child.try_wait().is_ok_and(|ended| ended.is_none());
        let _ = child.kill();
        let _ = child.wait();
        ran
    }

    /// SIGTERM, and waits for the end; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        signal(child.id(), "TERM");
        child.wait().expect("linkspan ends").code()
    }

    /// Runs a command of linkspan for this endpoint's file.
    pub fn linkspan(&self, args: &[&str]) -> Output {
        let bed = Bed::get();
        bed.inside(self.side, &bed.linkspan)
            .args(args)
            .arg("--config")
            .arg(self.dir.join("linkspan.toml"))
            .output()
            .expect("linkspan runs")
    }

    /// The status document, when the process answers.
    pub fn status(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.linkspan(&["status", "-o", "json"]).stdout).ok()
    }

    /// Waits until the status document says `done`; how long that took.
    pub fn wait(&self, what: &str, limit: Duration, mut done: impl FnMut(&serde_json::Value) -> bool) -> Duration {
        let since = Instant::now();
        let mut last = None;
        while since.elapsed() < limit {
            if let Some(status) = self.status() {
                if done(&status) {
                    return since.elapsed();
                }
                last = Some(status);
            }
            // A poll of another process's state: nothing else announces it.
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("{what}: not within {limit:?}; last status {last:#?}\nlog: {}", self.log_tail());
    }

    /// Waits until the tunnel is up.
    pub fn wait_up(&self, limit: Duration) -> Duration {
        self.wait("tunnel up", limit, |status| status["tunnel"]["state"] == "up")
    }

    /// All that the process logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Process id, while it runs.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Folder of the endpoint's file.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {} endpoint's last lines\n{}", self.side.name(), self.log_tail());
        }
        self.kill();
    }
}
