//! linkspan.toml as the tests write it: both sides of one link.

use crate::bed::{Bed, GRAPE_WAN, ORANGE_WAN, Side, TUNNEL_PORT};

/// How the two endpoints prove who they are.
#[derive(Clone, Copy)]
pub enum Transport {
    Noise,
    Tls,
}

/// What a test wants of a link from orange to grape.
pub struct Link {
    pub transport: Transport,
    /// The `[proxy]` table of grape's endpoint.
    pub proxy: String,
    /// The `[[replicate]]` tables of grape's endpoint.
    pub replicate: String,
    /// The `[[replicate]]` tables of orange's endpoint, where copies go both ways.
    pub back: String,
    /// Lines added to orange's `[expose]` table.
    pub expose: String,
    /// The tunnel's port. The wire lets [`TUNNEL_PORT`] through.
    pub port: u16,
    /// The `[admin]` table of both endpoints, where a second pair runs beside the first.
    pub admin: String,
    /// Orange's bootstrap server and `security` as grape's endpoint has them, where they are not those of the main listener.
    pub peer: Option<(String, String)>,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            transport: Transport::Noise,
            proxy: "mode = \"off\"".into(),
            replicate: String::new(),
            back: String::new(),
            expose: String::new(),
            port: TUNNEL_PORT,
            admin: String::new(),
            peer: None,
        }
    }
}

impl Link {
    /// `[[replicate]]` for topics that match `pattern`, named by `rename`.
    pub fn copying(pattern: &str, rename: &str) -> Self {
        Self {
            replicate: format!("[[replicate]]\ntopics = ['{pattern}']\nrename = \"{rename}\"\nrefresh = \"1s\"\n"),
            ..Self::default()
        }
    }

    fn auth(&self, own: &str, other: &str) -> String {
        let bed = Bed::get().dir.display();
        match self.transport {
            Transport::Noise => format!("secret_file = \"{bed}/link.secret\""),
            Transport::Tls => format!(
                "tls = {{ cert = \"{bed}/certs/{own}.crt\", key = \"{bed}/certs/{own}.key\", ca = \"{bed}/certs/ca.crt\", peer = \"{other}.linkspan\" }}"
            ),
        }
    }

    /// The source side: listens.
    pub fn orange(&self) -> String {
        // Credentials that nobody needs are refused.
        let security =
            if self.back.is_empty() { String::new() } else { format!("security = {}\n", Side::Grape.security()) };
        format!(
            "link = \"orange-grape\"\nstate_dir = \"state\"\n\
             [local]\ncluster = \"orange\"\nbootstrap = [\"{0}\"]\nsecurity = {1}\n\
             [peer]\ncluster = \"grape\"\nbootstrap = [\"{2}\"]\n{7}\
             [tunnel]\nlisten = \"0.0.0.0:{5}\"\npublic_address = \"{ORANGE_WAN}\"\npeer_address = \"{GRAPE_WAN}\"\n{3}\n\
             [expose]\n{4}\n[proxy]\nmode = \"off\"\n{8}{6}",
            Side::Orange.bootstrap(),
            Side::Orange.security(),
            Side::Grape.bootstrap(),
            self.auth("source", "destination"),
            self.expose,
            self.port,
            self.admin,
            security,
            self.back
        )
    }

    /// The destination side: dials, copies, serves clients.
    pub fn grape(&self) -> String {
        let main = || (Side::Orange.bootstrap().to_owned(), Side::Orange.security());
        let (peer_bootstrap, peer_security) = self.peer.clone().unwrap_or_else(main);
        format!(
            "link = \"orange-grape\"\nstate_dir = \"state\"\n\
             [local]\ncluster = \"grape\"\nbootstrap = [\"{0}\"]\nsecurity = {1}\n\
             [peer]\ncluster = \"orange\"\nbootstrap = [\"{2}\"]\nsecurity = {3}\n\
             [tunnel]\ndial = \"{ORANGE_WAN}:{7}\"\n{4}\n[proxy]\n{5}\n{6}{8}",
            Side::Grape.bootstrap(),
            Side::Grape.security(),
            peer_bootstrap,
            peer_security,
            self.auth("destination", "source"),
            self.proxy,
            self.replicate,
            self.port,
            self.admin
        )
    }
}
