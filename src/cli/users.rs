//! `linkspan users add`: who may use the proxy. The password comes by standard input and is not kept.

use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use zeroize::Zeroizing;

use super::args::UsersAddArgs;
use super::exit::{Exit, Failure};
use super::output;
use crate::sasl::users::{self, Users};

/// Adds a user to the file, or gives one that is there new keys.
///
/// # Errors
/// [`Exit::Usage`] for a name, password or file that cannot be used.
pub(crate) fn add(args: &UsersAddArgs) -> Result<Exit, Failure> {
    let shown = args.file.display();
    let old = match fs::read_to_string(&args.file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::new(Exit::Usage, format!("{shown}: {error}"))),
    };
    Users::parse(&old).map_err(|error| Failure::new(Exit::Usage, format!("{shown}, {error}")))?;
    output::note(&format!("Password of {} (one line on standard input):\n", args.name));
    let mut password = Zeroizing::new(String::new());
    let read = io::stdin().lock().read_line(&mut password);
    read.map_err(|error| Failure::new(Exit::Usage, format!("no password on standard input: {error}")))?;
    let password = password.trim_end_matches(['\r', '\n']);
    let lines = users::lines(&args.name, password).map_err(|why| Failure::new(Exit::Usage, why.to_owned()))?;
    let begins = format!("{}:", args.name);
    let kept: String =
        old.lines().filter(|line| !line.trim_start().starts_with(&begins)).map(|l| format!("{l}\n")).collect();
    let partial = args.file.with_extension("new");
    let written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial);
    let written = written.and_then(|mut file| {
        file.write_all(kept.as_bytes())?;
        file.write_all(lines.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, &args.file)
    });
    written.map_err(|error| Failure::new(Exit::Usage, format!("{shown}: {error}")))?;
    output::note(&format!("{shown} has {} now; the endpoint reads it when it starts.\n", args.name));
    Ok(Exit::Ok)
}
