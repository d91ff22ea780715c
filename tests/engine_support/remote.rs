//! A daemon that is reached over TLS, certificates for it, and contexts of docker's command line. Openssl and nsenter are
//! needed.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::{BUSYBOX, Daemon};

pub fn openssl(dir: &Path, line: &str) {
    let done =
        Command::new("openssl").args(line.split_whitespace()).current_dir(dir).output().expect("openssl is installed");
    assert!(done.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&done.stderr));
}

/// `<name>.pem` and `<name>-key.pem`, signed by `<authority>`; a negative number of days is over.
pub fn certificate(dir: &Path, name: &str, authority: &str, days: i32) {
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n").unwrap();
    openssl(
        dir,
        &format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}-key.pem -out csr -subj /CN={name}"
        ),
    );
    openssl(
        dir,
        &format!(
            "x509 -req -in csr -CA {authority}.pem -CAkey {authority}-key.pem -CAcreateserial -days {days} -extfile san -out {name}.pem"
        ),
    );
}

pub fn authority(dir: &Path, name: &str) {
    openssl(
        dir,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}-key.pem -out {name}.pem -subj /CN={name} -days 2"
        ),
    );
}

/// A dockerd that wants client certificates, in a network namespace of its own, and a port on this side of it.
pub struct Remote {
    pub daemon: Daemon,
    pub port: u16,
}

impl Remote {
    pub fn new(dir: &Path, certificates: &Path, server: &str) -> Self {
        let c = certificates.display();
        let certificate = [
            format!("--tlscacert={c}/ca.pem"),
            format!("--tlscert={c}/{server}.pem"),
            format!("--tlskey={c}/{server}-key.pem"),
        ];
        let mut extra = vec!["-H", "tcp://127.0.0.1:2376", "--tlsverify"];
        extra.extend(certificate.iter().map(String::as_str));
        let daemon = Daemon::docker(dir, "/bin/busybox ifconfig lo up;", &extra);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let pid = daemon.child.id().to_string();
        // Ends with the test's process; each connection crosses into the namespace by a process of its own.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let back = OwnedFd::from(stream.try_clone().unwrap());
                let mut relay = Command::new("nsenter")
                    .args(["-t", &pid, "-n", BUSYBOX, "nc", "127.0.0.1", "2376"])
                    .stdin(OwnedFd::from(stream))
                    .stdout(back)
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("nsenter is installed");
                std::thread::spawn(move || relay.wait());
            }
        });
        Self { daemon, port }
    }
}

/// A context as `docker context create` writes it: <https://docs.docker.com/engine/manage-resources/contexts/>. `keys` are a
/// directory and the name of a client's certificate in it.
pub fn context(config: &Path, name: &str, url: &str, keys: Option<(&Path, &str)>) {
    let id: String = Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let meta = config.join("contexts/meta").join(&id);
    std::fs::create_dir_all(&meta).unwrap();
    let endpoint = format!(r#"{{"Name":"{name}","Metadata":{{}},"Endpoints":{{"docker":{{"Host":"{url}"}}}}}}"#);
    std::fs::write(meta.join("meta.json"), endpoint).unwrap();
    if let Some((from, client)) = keys {
        let to = config.join("contexts/tls").join(&id).join("docker");
        std::fs::create_dir_all(&to).unwrap();
        for (from_name, to_name) in [("ca", "ca"), (client, "cert"), (&format!("{client}-key"), "key")] {
            std::fs::copy(from.join(format!("{from_name}.pem")), to.join(format!("{to_name}.pem"))).unwrap();
        }
    }
}
