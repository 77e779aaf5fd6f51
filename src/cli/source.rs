//! Where the configuration comes from, and what a command says when it does not load.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::admin::Admin;
use super::args::ConfigArgs;
use super::exit::{Exit, Failure};
use super::watch::Noting;
use crate::config::{self, Config, ConfigErrors, Finding, Loaded, ProcessEnv, WithoutSecrets};
use crate::control::Code;
use crate::control::facts::Mistake;

/// Looked for in this order where no file is named.
const DEFAULTS: [&str; 2] = ["linkspan.toml", "/etc/linkspan/linkspan.toml"];

/// The file that a command reads.
///
/// # Errors
/// [`Exit::Usage`] where none is named and none of the usual places has one. A named file is taken as it is.
pub(crate) fn path(args: &ConfigArgs) -> Result<PathBuf, Failure> {
    if let Some(path) = &args.config {
        return Ok(path.clone());
    }
    DEFAULTS.iter().map(Path::new).find(|path| path.exists()).map(Path::to_path_buf).ok_or_else(|| {
        Failure::coded(Exit::Usage, Code::CONFIG_LOADS, format!("there is no {} and no {}", DEFAULTS[0], DEFAULTS[1]))
    })
}

/// Loads the configuration with its secrets. Its warnings are the caller's to tell.
///
/// # Errors
/// [`Exit::Usage`] with every mistake.
pub(crate) fn load(args: &ConfigArgs) -> Result<Loaded, Failure> {
    config::load(&path(args)?, &ProcessEnv).map_err(|errors| mistakes(&errors))
}

/// As [`load`], with the files that were read: the configuration itself, secrets, certificates.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_noting(args: &ConfigArgs) -> Result<(Loaded, BTreeSet<PathBuf>), Failure> {
    let (path, env) = (path(args)?, Noting::default());
    let loaded = config::load(&path, &env).map_err(|errors| mistakes(&errors))?;
    let mut files = env.files();
    files.insert(path);
    Ok((loaded, files))
}

/// Loads the configuration for commands that need no secret, so that whoever runs them need not be allowed to read them.
/// Variables are heard where the secrets can be read.
///
/// # Errors
/// [`Exit::Usage`] with every mistake but those of secrets.
pub(crate) fn load_without_secrets(args: &ConfigArgs) -> Result<Config, Failure> {
    let path = path(args)?;
    config::load(&path, &ProcessEnv)
        .or_else(|_| config::load(&path, &WithoutSecrets))
        .map(|loaded| loaded.config)
        .map_err(|errors| mistakes(&errors))
}

/// Every mistake of a file, as it stands.
#[must_use]
pub(crate) fn mistakes(errors: &ConfigErrors) -> Failure {
    Failure::verbatim(Exit::Usage, errors.to_string())
}

/// The admin port to ask: as named, or that of the configuration.
///
/// # Errors
/// [`Exit::Usage`] for a text that is no address, a configuration that does not load, or one without an admin port.
pub(crate) fn admin(named: Option<&str>, args: &ConfigArgs) -> Result<Admin, Failure> {
    if let Some(text) = named {
        return Admin::parse(text);
    }
    load_without_secrets(args)?.admin.listen.map(Admin::of).ok_or_else(|| {
        Failure::new(Exit::Usage, "the configuration switches the admin port off, so there is nothing to ask")
            .fixed_by("set [admin] listen, for example \"127.0.0.1:9464\", and restart the endpoint")
    })
}

/// As [`admin`], with the token for changes where the configuration names one and this user may read it.
///
/// # Errors
/// As [`admin`].
pub(crate) fn operator(named: Option<&str>, args: &ConfigArgs) -> Result<Admin, Failure> {
    let token = load(args).ok().and_then(|loaded| loaded.config.admin.token);
    Ok(admin(named, args)?.with_token(token))
}

/// A configuration for `check`, which reports mistakes instead of ending with them.
#[derive(Debug)]
pub(crate) struct Found {
    /// The file.
    pub(crate) path: String,
    /// What it says, where it loads.
    pub(crate) config: Option<Config>,
    /// Why it does not load.
    pub(crate) errors: Vec<Mistake>,
    /// What is doubtful.
    pub(crate) warnings: Vec<Mistake>,
}

/// Reads the configuration for `check`.
///
/// # Errors
/// Only where there is no file at all.
pub(crate) fn look(args: &ConfigArgs) -> Result<Found, Failure> {
    let path = path(args)?;
    let name = path.display().to_string();
    Ok(match config::load(&path, &ProcessEnv) {
        Ok(loaded) => Found {
            path: name,
            config: Some(loaded.config),
            errors: Vec::new(),
            warnings: loaded.warnings.iter().map(mistake).collect(),
        },
        Err(errors) => Found {
            path: name,
            config: None,
            errors: errors.errors.iter().map(mistake).collect(),
            warnings: Vec::new(),
        },
    })
}

fn mistake(finding: &Finding) -> Mistake {
    let mut what = finding.file.clone();
    if finding.line > 0 {
        what.push_str(&format!(":{}:{}", finding.line, finding.column));
    }
    if !finding.path.is_empty() {
        what.push_str(&format!(" {}", finding.path));
    }
    what.push_str(&format!(": {}", finding.problem));
    let fix = match (&finding.nearest, finding.allowed.is_empty()) {
        (Some(nearest), _) => Some(format!("did you mean `{nearest}`?")),
        (None, false) => Some(finding.allowed.clone()),
        (None, true) => None,
    };
    Mistake { code: finding.code.as_str().parse().unwrap_or(Code::CONFIG_LOADS), what, fix }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ErrorCode;

    #[test]
    fn every_kind_of_mistake_stands_in_the_table_of_codes() {
        use ErrorCode::{
            Conflict, Duplicate, Invalid, Missing, NoEffect, OpenSecret, Placeholder, SecretUnread, Syntax, UnknownKey,
            Unreadable, Unused, Weakened, WrongType,
        };
        for (kind, code) in [
            (Unreadable, Code::CONFIG_LOADS),
            (Syntax, Code::CONFIG_SYNTAX),
            (UnknownKey, Code::CONFIG_KEY),
            (WrongType, Code::CONFIG_TYPE),
            (Missing, Code::CONFIG_MISSING),
            (Invalid, Code::CONFIG_VALUE),
            (Conflict, Code::CONFIG_CONFLICT),
            (Unused, Code::CONFIG_UNUSED),
            (SecretUnread, Code::CONFIG_SECRET),
            (Duplicate, Code::CONFIG_DUPLICATE),
            (Placeholder, Code::CONFIG_PLACEHOLDER),
            (OpenSecret, Code::CONFIG_OPEN_SECRET),
            (Weakened, Code::CONFIG_WEAKENED),
            (NoEffect, Code::CONFIG_NO_EFFECT),
        ] {
            assert_eq!(kind.as_str().parse(), Ok(code));
            assert!(code.entry().is_some());
        }
    }
}
