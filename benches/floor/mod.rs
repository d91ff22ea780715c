//! The floor of docker and podman: the fewest calls of the same API that run a container, by hand.

use std::path::PathBuf;
use std::time::Duration;

use abicus::engine::container::Kind;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// The fewest calls, by hand: no retry, no deadline, no clean-up after a failure.
pub struct Floor {
    /// Of the daemon.
    pub socket: PathBuf,
    /// Whose.
    pub kind: Kind,
    /// A reference the daemon knows.
    pub image: String,
    /// The directory bound to `/.abicus`.
    pub payload: PathBuf,
    /// What is bound to `/etc/hosts`.
    pub hosts: PathBuf,
    /// What runs.
    pub argv: Vec<String>,
}

impl Floor {
    async fn call(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, Vec<u8>) {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} /v1.41{path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![];
        stream.read_to_end(&mut answer).await.unwrap();
        let head = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer") + 4;
        let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
        (status, answer.split_off(head))
    }

    async fn json(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, body) = self.call(method, path, "", body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap_or(Value::Null)
    }

    /// One container, from create to remove.
    pub async fn cell(&self) {
        let mut mounts = vec![json!({"Type": "bind", "Source": self.payload, "Target": "/.abicus", "ReadOnly": true})];
        if self.kind == Kind::Docker {
            mounts.push(json!({"Type": "bind", "Source": self.hosts, "Target": "/etc/hosts", "ReadOnly": true}));
        }
        let body = json!({
            "Image": self.image, "Entrypoint": [self.argv[0]], "Cmd": self.argv[1..],
            "AttachStdout": true, "AttachStderr": true, "NetworkDisabled": self.kind == Kind::Docker,
            "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}, "Mounts": mounts, "Ulimits": self.ulimits()},
        });
        let made = self.json("POST", "/containers/create", &body.to_string()).await;
        let id = made["Id"].as_str().unwrap();
        // Attached before the start, read to its end.
        let mut attached = UnixStream::connect(&self.socket).await.unwrap();
        let request = format!(
            "POST /v1.41/containers/{id}/attach?stream=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: engine\r\n\
             Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        );
        attached.write_all(request.as_bytes()).await.unwrap();
        let mut head = vec![0; 1024];
        let n = attached.read(&mut head).await.unwrap();
        assert!(head[..n].starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head[..n]));
        self.json("POST", &format!("/containers/{id}/start"), "").await;
        attached.read_to_end(&mut vec![]).await.unwrap();
        match self.kind {
            Kind::Docker => {
                self.json("POST", &format!("/containers/{id}/wait?condition=not-running"), "").await;
            }
            Kind::Podman => loop {
                let seen = self.json("GET", &format!("/containers/{id}/json"), "").await;
                if matches!(seen["State"]["Status"].as_str(), Some("exited" | "stopped")) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            },
        }
        let seen = self.json("GET", &format!("/containers/{id}/json"), "").await;
        assert_eq!(seen["State"]["ExitCode"], 0);
        self.json("DELETE", &format!("/containers/{id}?force=1&v=1"), "").await;
    }

    fn ulimits(&self) -> Value {
        match self.kind {
            Kind::Docker => json!([]),
            Kind::Podman => {
                json!([{"Name": "nofile", "Soft": 4096, "Hard": 4096}, {"Name": "nproc", "Soft": 4096, "Hard": 4096}])
            }
        }
    }
}
