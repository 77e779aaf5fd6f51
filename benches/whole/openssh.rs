//! OpenSSH forwarding, as somebody would set it up who has nothing else: keys and commands of both ends.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program and its arguments, to be run wherever its end is.
pub struct Words {
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

/// The server at `listen` and a client that forwards `entry` through it to `sink`; `None` where there is no server to be had.
pub fn forwarding(dir: &Path, listen: SocketAddr, entry: SocketAddr, sink: SocketAddr) -> Option<(Words, Words)> {
    let daemon = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"].into_iter().find(|path| Path::new(path).exists());
    let Some(daemon) = daemon else {
        eprintln!("bench: sshd is missing (openssh-server): OpenSSH is left out");
        return None;
    };
    fs::create_dir_all(dir).unwrap();
    for key in ["host", "user"] {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(key)).stdin(Stdio::null());
        assert!(command.status().ok()?.success());
    }
    fs::copy(dir.join("user.pub"), dir.join("authorized")).unwrap();
    let _ = fs::create_dir_all("/run/sshd");
    let config = dir.join("config");
    let lines = [
        format!("Port {}", listen.port()),
        format!("ListenAddress {}", listen.ip()),
        format!("HostKey {}/host", dir.display()),
        format!("AuthorizedKeysFile {}/authorized", dir.display()),
        "StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n".to_owned(),
    ];
    fs::write(&config, lines.join("\n")).unwrap();
    let server = Words { program: daemon.into(), args: vec!["-D".into(), "-f".into(), config.into()] };
    let mut args: Vec<OsString> = ["-N", "-T", "-F", "none"].map(Into::into).to_vec();
    for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ExitOnForwardFailure=yes"] {
        args.extend(["-o".into(), option.into()]);
    }
    args.extend(["-p".into(), listen.port().to_string().into(), "-i".into(), dir.join("user").into()]);
    args.extend(["-L".into(), format!("{entry}:{sink}").into(), listen.ip().to_string().into()]);
    Some((server, Words { program: "ssh".into(), args }))
}
