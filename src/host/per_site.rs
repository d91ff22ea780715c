//! What holds for as long as one connection to a host does: paths there, services started there.
//!
//! In: the directory that the host has for us now ([`Site::dir`](super::Site::dir)), and how to find out. Out: what was
//! found out, once for each connection.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::fault::Fault;

/// A value, and the directory of the connection it holds for.
pub(crate) struct PerSite<T>(Mutex<Option<(String, Arc<T>)>>);

impl<T> PerSite<T> {
    /// Nothing is known yet.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// What is known, found out where nobody did it over this connection; whoever else asks meanwhile waits. A failure is
    /// not kept.
    pub(crate) async fn get<F>(&self, dir: &str, find_out: impl FnOnce() -> F) -> Result<Arc<T>, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut known = self.0.lock().await;
        if let Some((of, value)) = &*known
            && of == dir
        {
            return Ok(value.clone());
        }
        let value = Arc::new(find_out().await?);
        *known = Some((dir.to_owned(), value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_is_found_out_once_for_each_connection() {
        let known = PerSite::new();
        let ask = async |dir, says: u32| *known.get(dir, || async { Ok(says) }).await.unwrap();
        assert_eq!((ask("/a", 1).await, ask("/a", 2).await), (1, 1));
        assert_eq!((ask("/b", 3).await, ask("/b", 4).await), (3, 3));
    }
}
