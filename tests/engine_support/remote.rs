//! A daemon that is reached over TLS, certificates for it, and contexts of docker's command line. Openssl is needed.

use std::fs::File;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sha2::{Digest, Sha256};

use super::Daemon;

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
        let network = File::open(format!("/proc/{}/ns/net", daemon.child.id())).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // Ends with the test's process. A socket stays in the network its thread was in when it was made.
        std::thread::spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect("127.0.0.1:2376") else { continue };
                relay(near.try_clone().unwrap(), far.try_clone().unwrap());
                relay(far, near);
            }
        });
        Self { daemon, port }
    }
}

/// Passes on what one side says until it ends, and that it ended.
fn relay(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        // A connection that is reset has ended too.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
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
