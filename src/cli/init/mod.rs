//! `linkspan init`: this side's files, from `setenv.sh` or as a template to fill in, and then the firewall rules.

mod diff;

use std::path::{Path, PathBuf};

use super::args::{InitArgs, SideArg};
use super::exit::{Exit, Failure};
use super::{output, source};
use crate::config::setenv::{self, Action, Content, FileEntry, Files, Side, WriteError, WrittenFile};

/// The configuration that every command looks for.
const CONFIG: &str = "linkspan.toml";
const SOURCE: &str = include_str!("source.toml");
const DESTINATION: &str = include_str!("destination.toml");

/// Writes this side's files, or shows what would change; prints the firewall rules where the values are known.
///
/// # Errors
/// [`Exit::Usage`] with every mistake of `setenv.sh`, [`Exit::Refused`] where files with other content would be overwritten
/// (nothing is written then).
pub(crate) fn run(args: &InitArgs) -> Result<Exit, Failure> {
    let side = match args.side {
        SideArg::Source => Side::Source,
        SideArg::Destination => Side::Destination,
    };
    let files = match &args.from_env {
        Some(path) => setenv::load(path).map_err(|errors| source::mistakes(&errors))?.render(side),
        None => template(side),
    };
    if args.diff {
        output::print(&differences(&files, &args.out)?)?;
        return Ok(Exit::Ok);
    }
    let written = files.write(&args.out, args.force).map_err(|error| refused(&error))?;
    output::note(&listing(&written));
    if args.from_env.is_some() {
        output::print(&files.firewall().table())?;
    }
    output::note(&next(args));
    Ok(Exit::Ok)
}

fn template(side: Side) -> Files {
    let text = match side {
        Side::Source => SOURCE,
        Side::Destination => DESTINATION,
    };
    Files { side, entries: vec![FileEntry { path: PathBuf::from(CONFIG), content: Content::Text(text.to_owned()) }] }
}

fn refused(error: &WriteError) -> Failure {
    match error {
        WriteError::Differ(_) => Failure::new(Exit::Refused, error.to_string())
            .fixed_by("look with --diff, then overwrite with --force, or write elsewhere with --out"),
        _ => Failure::new(Exit::Usage, error.to_string()),
    }
}

fn listing(written: &[WrittenFile]) -> String {
    let rows: Vec<Vec<String>> = written
        .iter()
        .map(|file| {
            let note = if file.secret { "secret, mode 600" } else { "" };
            vec![action(file.action).to_owned(), file.path.display().to_string(), note.to_owned()]
        })
        .collect();
    output::table("", &rows)
}

const fn action(action: Action) -> &'static str {
    match action {
        Action::Created => "created",
        Action::Unchanged => "unchanged",
        Action::Replaced => "replaced",
    }
}

/// What `write` would change, line by line; of secrets only that they change.
fn differences(files: &Files, out: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    for (entry, change) in files.entries.iter().zip(files.changes(out).map_err(|error| refused(&error))?) {
        let path = change.path.display();
        match (change.action, &entry.content) {
            (Action::Unchanged, _) => {}
            (Action::Created, _) => text.push_str(&format!("would create   {path}\n")),
            (Action::Replaced, Content::Secret(_)) => text.push_str(&format!("would replace  {path}  (a secret)\n")),
            (Action::Replaced, Content::Text(new)) => {
                text.push_str(&format!("would replace  {path}\n"));
                let old = std::fs::read_to_string(&change.path)
                    .map_err(|error| Failure::new(Exit::Usage, format!("{path} cannot be read: {error}")))?;
                text.push_str(&diff::lines(&old, new));
            }
        }
    }
    if text.is_empty() {
        text.push_str("nothing would change\n");
    }
    Ok(text)
}

fn next(args: &InitArgs) -> String {
    let file = args.out.join(CONFIG);
    if args.from_env.is_some() {
        format!("Next: open the port as above, then `docker compose up -d`, or `linkspan run -c {}`\n", file.display())
    } else {
        format!(
            "Next: fill in {0}, then `linkspan config validate -c {0}` and `linkspan firewall -c {0}`\n",
            file.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, ErrorCode, WithoutSecrets};

    #[test]
    fn a_template_is_refused_until_it_is_filled_in_and_then_loads() {
        for text in [SOURCE, DESTINATION] {
            let filled = text.replace("\n#> ", "\n");
            let loaded = config::parse(&filled, Path::new(CONFIG), &WithoutSecrets);
            let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}\n{filled}"));
            assert_eq!(loaded.warnings, []);
            let errors = config::parse(text, Path::new(CONFIG), &WithoutSecrets).expect_err("nothing is filled in");
            let missing = errors.errors.iter().filter(|error| error.code == ErrorCode::Missing).count();
            assert!(missing >= 5, "what is missing is named at once: {errors}");
        }
    }
}
