//! A host that is known not to be reachable before anything was tried: every question is answered with the same fault.

use std::io;
use std::path::Path;

use async_trait::async_trait;

use super::reach::{Launched, Reach, Reader, Site, Stat, Writer};
use crate::fault::Fault;

/// A host nobody can reach, and why.
#[derive(Debug)]
pub struct Unreachable(pub Fault);

impl Unreachable {
    fn error(&self) -> io::Error {
        io::Error::new(io::ErrorKind::NotConnected, self.0.cause.clone())
    }
}

#[async_trait]
impl Reach for Unreachable {
    async fn site(&self) -> Result<Site, Fault> {
        Err(self.0.clone())
    }
    async fn read(&self, _: &str, _: usize) -> io::Result<Vec<u8>> {
        Err(self.error())
    }
    async fn stat(&self, _: &str) -> io::Result<Stat> {
        Err(self.error())
    }
    async fn list(&self, _: &str) -> io::Result<Vec<(String, Stat)>> {
        Err(self.error())
    }
    async fn put(&self, _: &Path, _: &str) -> Result<String, Fault> {
        Err(self.0.clone())
    }
    async fn launch(&self, _: &[u8]) -> Result<Launched, Fault> {
        Err(self.0.clone())
    }
    async fn connect(&self, _: &str) -> io::Result<(Reader, Writer)> {
        Err(self.error())
    }
}
