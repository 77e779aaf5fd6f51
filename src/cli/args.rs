//! The words of the command line. No secret is ever an argument: arguments are seen by every user of a host.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  linkspan init source --from-env setenv.sh   write this side's files, print the firewall rules
  linkspan run                                run the endpoint
  linkspan check                              find out what is wrong, and what to do about it

Exit codes: 0 ok, 1 unhealthy, 2 usage or configuration, 3 changes pending, 4 authentication,
5 unreachable, 6 timeout, 7 refused, 70 internal, 130/143 on SIGINT/SIGTERM.";

/// Links two Kafka clusters in networks that cannot see each other
#[derive(Debug, Parser)]
#[command(name = "linkspan", version, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the endpoint until a signal ends it
    Run(ConfigArgs),
    /// Write this side's linkspan.toml and compose environment
    Init(InitArgs),
    /// Print the firewall rules of this link
    Firewall(FirewallArgs),
    /// Make shared secrets
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Keep the file of users whom the proxy takes
    #[command(subcommand)]
    Users(UsersCommand),
    /// Write a private CA and both endpoints' certificates
    Certs(CertsArgs),
    /// Examine configuration, names, ports, tunnel and both clusters
    Check(CheckArgs),
    /// Show what the running endpoint does
    Status(StatusArgs),
    /// Show what the flows of this configuration would create or change, and why each topic is in or out
    Plan(PlanArgs),
    /// Compare copies with their sources, record by record; exit 1 where they differ
    Verify(VerifyArgs),
    /// Stop copying a topic, or a whole flow, until it is resumed
    Pause(PauseArgs),
    /// Copy again what was paused, or what stopped at a gap
    Resume(PauseArgs),
    /// Validate or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Exit 0 when the running endpoint is ready, 1 when it is not (for containers)
    Healthcheck(HealthcheckArgs),
    /// Print the version
    Version(VersionArgs),
}

/// Which configuration file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file [default: ./linkspan.toml, then /etc/linkspan/linkspan.toml]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Which side of a flow this host is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SideArg {
    /// Beside the cluster whose topics are copied.
    Source,
    /// Beside the cluster that the copies go to.
    Destination,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Which side this host is on
    pub(crate) side: SideArg,
    /// Take the values from this setenv.sh; without it a template is written
    #[arg(long, value_name = "FILE")]
    pub(crate) from_env: Option<PathBuf>,
    /// Where to write
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// Overwrite files that differ
    #[arg(long)]
    pub(crate) force: bool,
    /// Only show what would change
    #[arg(long, conflicts_with = "force")]
    pub(crate) diff: bool,
}

/// Arguments of `firewall`.
#[derive(Debug, Args)]
pub(crate) struct FirewallArgs {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = FirewallOutput::Table)]
    pub(crate) output: FirewallOutput,
}

/// Forms of firewall rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FirewallOutput {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For nftables.
    Nft,
}

/// Commands under `secret`.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Print a new shared secret of 256 bits
    New,
}

/// Commands under `users`.
#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// Add a user, or give one new keys; the password is one line on standard input
    Add(UsersAddArgs),
}

/// Arguments of `users add`.
#[derive(Debug, Args)]
pub(crate) struct UsersAddArgs {
    /// The user's name
    pub(crate) name: String,
    /// The file that proxy.clients.users_file names
    #[arg(long, value_name = "FILE", default_value = "users")]
    pub(crate) file: PathBuf,
}

/// Arguments of `certs`.
#[derive(Debug, Args)]
pub(crate) struct CertsArgs {
    /// Where to write
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub(crate) dir: PathBuf,
    /// Replace certificates that are there
    #[arg(long)]
    pub(crate) force: bool,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = CheckOutput::Human)]
    pub(crate) output: CheckOutput,
    /// Only these categories; can be given several times
    #[arg(long, value_name = "CATEGORY", value_enum)]
    pub(crate) only: Vec<super::check::Category>,
    /// Try again until nothing fails, at most this long: 30s, 5m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) wait: Option<Duration>,
    /// Admin port of the running endpoint [default: that of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) admin: Option<String>,
}

/// Forms of `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckOutput {
    /// For people.
    Human,
    /// For programs.
    Json,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Human)]
    pub(crate) output: StatusOutput,
    /// Admin port of the running endpoint [default: that of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) admin: Option<String>,
}

/// Forms of `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusOutput {
    /// One line a part.
    Human,
    /// Also topics, carriers and listeners.
    Wide,
    /// The status document.
    Json,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Exit with 3 where something would change
    #[arg(long)]
    pub(crate) detailed_exitcode: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = ReportOutput::Human)]
    pub(crate) output: ReportOutput,
    /// Admin port of the running endpoint [default: that of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) admin: Option<String>,
}

/// Arguments of `pause` and `resume`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Only this topic, by its name at the source
    #[arg(long, value_name = "NAME")]
    pub(crate) topic: Option<String>,
    /// Only this flow [default: all flows, or those that copy the topic]
    #[arg(long, value_name = "NAME")]
    pub(crate) flow: Option<String>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = ReportOutput::Human)]
    pub(crate) output: ReportOutput,
    /// Admin port of the running endpoint [default: that of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) admin: Option<String>,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Only this topic, by its name at the source
    #[arg(long, value_name = "NAME")]
    pub(crate) topic: Option<String>,
    /// Only this flow [default: all flows, or those that copy the topic]
    #[arg(long, value_name = "NAME")]
    pub(crate) flow: Option<String>,
    /// Compare the newest N offsets of each partition
    #[arg(long, value_name = "N", default_value_t = 1_000, conflicts_with = "full")]
    pub(crate) sample: u64,
    /// Compare all that both sides still have
    #[arg(long)]
    pub(crate) full: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = ReportOutput::Human)]
    pub(crate) output: ReportOutput,
    /// Admin port of the running endpoint [default: that of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) admin: Option<String>,
}

/// Forms of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportOutput {
    /// For people.
    Human,
    /// For programs.
    Json,
}

/// Commands under `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether the configuration is valid, with every mistake at once
    Validate(ConfigArgs),
    /// Print the configuration as it is understood, secrets left out
    Show(ConfigShowArgs),
}

/// Arguments of `config show`.
#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Also say where each value comes from
    #[arg(long)]
    pub(crate) origin: bool,
}

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
pub(crate) struct HealthcheckArgs {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Admin port of the running endpoint [default: that of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) admin: Option<String>,
}

/// Arguments of `version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = CheckOutput::Human)]
    pub(crate) output: CheckOutput,
}

/// `500ms`, `30s`, `5m`, `1h`; a plain number is seconds. At most a day.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 =
        text[..digits].parse().map_err(|_| "write a number and a unit, for example 30s or 5m".to_owned())?;
    let unit = match &text[digits..] {
        "ms" => Duration::from_millis(1),
        "" | "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        other => return Err(format!("`{other}` is no unit; there are ms, s, m and h")),
    };
    let day = Duration::from_secs(86_400);
    u32::try_from(number)
        .ok()
        .and_then(|number| unit.checked_mul(number))
        .filter(|duration| *duration <= day)
        .ok_or_else(|| format!("{text} is above the most, 24h"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::testing::golden;

    fn built(width: usize) -> clap::Command {
        let mut command = Cli::command().term_width(width);
        command.build();
        command
    }

    fn visit(command: &mut clap::Command, look: &mut dyn FnMut(&mut clap::Command)) {
        look(command);
        for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
            visit(inner, look);
        }
    }

    #[test]
    fn the_reference_is_the_help_itself() {
        let mut page = String::from(include_str!("reference.md"));
        visit(&mut built(100), &mut |command| {
            let name = command.get_bin_name().unwrap_or("linkspan").to_owned();
            let help = command.render_long_help().to_string();
            page.push_str(&format!("\n## `{name}`\n\n```text\n{}\n```\n", help.trim_end()));
        });
        golden("docs/reference/cli.md", &page);
    }

    #[test]
    fn the_words_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn short_help_fits_one_screen() {
        visit(&mut built(80), &mut |command| {
            let help = command.render_help().to_string();
            assert!(help.lines().count() <= 40, "{}: {} lines", command.get_name(), help.lines().count());
            // The examples are not wrapped; they fit the 100 columns that an output without a terminal has.
            assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
        });
    }

    #[test]
    fn no_argument_takes_a_secret() {
        visit(&mut built(80), &mut |command| {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                assert!(!["secret", "password", "key", "token"].contains(&name), "{name} of {}", command.get_name());
            }
        });
    }

    #[test]
    fn durations_have_units_and_a_bound() {
        for (text, millis) in [("500ms", 500), ("30s", 30_000), ("30", 30_000), ("5m", 300_000), ("24h", 86_400_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "25h", "1.5s", "99999999999999999999s", "5000000000"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
