//! `linkspan config validate|show`.

use super::args::{ConfigArgs, ConfigShowArgs};
use super::exit::{Exit, Failure};
use super::{output, source};
use crate::config::{Origin, Setting};

/// Says that the configuration is valid.
///
/// # Errors
/// [`Exit::Usage`] with every mistake.
pub(crate) fn validate(args: &ConfigArgs) -> Result<Exit, Failure> {
    let path = source::path(args)?;
    let loaded = source::load(args)?;
    for warning in &loaded.warnings {
        output::note(&format!("{warning}\n\n"));
    }
    let warnings = match loaded.warnings.len() {
        0 => String::new(),
        1 => ", 1 warning".to_owned(),
        more => format!(", {more} warnings"),
    };
    output::print(&format!("{} is valid: link {}{warnings}\n", path.display(), loaded.config.link))?;
    Ok(Exit::Ok)
}

/// Prints every effective setting; secrets are not among them.
///
/// # Errors
/// [`Exit::Usage`] with every mistake.
pub(crate) fn show(args: &ConfigShowArgs) -> Result<Exit, Failure> {
    let path = source::path(&args.config)?;
    let loaded = source::load(&args.config)?;
    let file = path.display().to_string();
    output::print(&render(&loaded.origins, args.origin.then_some(file.as_str())))?;
    Ok(Exit::Ok)
}

/// `path = value` lines; with `file`, a second column says where each comes from.
fn render(settings: &[Setting], file: Option<&str>) -> String {
    let rows: Vec<Vec<String>> = settings
        .iter()
        .map(|setting| {
            let mut row = vec![format!("{} = {}", output::clean(&setting.path), output::clean(&setting.value))];
            row.extend(file.map(|file| match &setting.origin {
                Origin::File { line, column } => format!("{file}:{line}:{column}"),
                Origin::Env(name) => format!("${name}"),
                Origin::Default => "default".to_owned(),
            }));
            row
        })
        .collect();
    output::table("", &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_values_and_where_they_come_from() {
        let setting =
            |path: &str, value: &str, origin| Setting { path: path.to_owned(), value: value.to_owned(), origin };
        let settings = [
            setting("admin.listen", "\"127.0.0.1:9464\"", Origin::Default),
            setting("link", "\"orange-grape\"", Origin::File { line: 1, column: 8 }),
            setting("local.security.password", "(hidden)", Origin::Env("LINKSPAN_LOCAL_PASSWORD".to_owned())),
        ];
        assert_eq!(
            render(&settings, Some("linkspan.toml")),
            "admin.listen = \"127.0.0.1:9464\"     default\n\
             link = \"orange-grape\"               linkspan.toml:1:8\n\
             local.security.password = (hidden)  $LINKSPAN_LOCAL_PASSWORD\n"
        );
        assert_eq!(render(&settings[1..2], None), "link = \"orange-grape\"\n");
    }
}
