//! What a host has to offer to engines that make their cells by the launcher: asked once for each connection to it.
//!
//! In: a way to reach the host, settings. Out: a [`Ground`]; image trees put there ([`Trees`]). Must not know: jobs.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::abilities::Identity;
use super::cgroup::Cgroups;
use super::place;
use super::policy::{self, Root};
use super::settings::{Settings, User, look_up};
use crate::engine::Prepared;
use crate::fault::{Fault, Phase};
use crate::host::{Reach, Site, Tree};
use crate::image::{Content, Image};

/// Largest passwd read.
const MAX_PASSWD: u64 = 1 << 20;

/// What the host has to offer, asked once.
pub(crate) struct Ground {
    pub(crate) site: Site,
    pub(crate) identity: Identity,
    pub(crate) filter: Option<Vec<u8>>,
    pub(crate) cgroups: Cgroups,
    pub(crate) host_devices: Vec<(String, u64, u64)>,
    pub(crate) resolv_conf: Vec<u8>,
}

impl Ground {
    pub(crate) async fn look(reach: &dyn Reach, settings: &Settings) -> Result<Self, Fault> {
        const MAX_RESOLV_CONF: usize = 64 << 10;
        let site = reach.site().await?;
        let identity = Identity::find(settings.userns, reach, &site).await?;
        Ok(Self {
            filter: policy::filter(settings, &identity)?,
            identity,
            cgroups: Cgroups::discover(reach, &site).await,
            host_devices: if settings.privileged { place::device_nodes(reach, "/dev").await } else { vec![] },
            resolv_conf: reach.read("/etc/resolv.conf", MAX_RESOLV_CONF).await.unwrap_or_default(),
            site,
        })
    }
}

/// Trees on the host, and what of this machine they are copies of.
#[derive(Default)]
pub(crate) struct Trees(Mutex<HashMap<String, Tree>>);

const EMPTY: &str = "empty";
const TREE: &str = "tree:";

/// The empty image.
pub(crate) fn empty() -> Prepared {
    Prepared(EMPTY.to_owned())
}

impl Trees {
    /// Has the tree of an image on the host. `engine` is its name in an error.
    pub(crate) async fn prepare(&self, reach: &dyn Reach, image: &Image, engine: &str) -> Result<Prepared, Fault> {
        match &image.content {
            Content::Empty => Ok(empty()),
            Content::Tree(tree) => {
                let tree = Tree { path: tree.clone(), digest: image.digest.clone() };
                self.put(reach, tree).await.map(|there| Prepared(format!("{TREE}{there}")))
            }
            Content::Reference(reference) => {
                let cause = format!("`{reference}` is known to other engines only: {engine} needs a tree");
                Err(Fault::new(Phase::Prepare, cause)
                    .hint("leave out `pull = \"engine\"`: abicus then fetches the image"))
            }
        }
    }

    async fn put(&self, reach: &dyn Reach, tree: Tree) -> Result<String, Fault> {
        let there = reach.put(&tree.path, &tree.digest).await?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(there.clone(), tree);
        Ok(there)
    }

    fn of(&self, there: &str) -> Option<Tree> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(there).cloned()
    }

    /// What was prepared, where it is now: a connection that was made anew has another directory, with nothing in it.
    pub(crate) async fn root(&self, reach: &dyn Reach, prepared: &Prepared) -> Result<Root, Fault> {
        let root = Root::try_from(prepared)?;
        let Root::Tree(there) = &root else { return Ok(root) };
        match self.of(there) {
            Some(tree) => self.put(reach, tree).await.map(Root::Tree),
            None => Ok(root),
        }
    }

    /// Uid and gid of the program; a name is looked up in the image.
    pub(crate) fn user(&self, user: &User, root: &Root) -> Result<(u32, u32), Fault> {
        let name = match user {
            User::Ids(uid, gid) => return Ok((*uid, *gid)),
            User::Named(name) => name,
        };
        let passwd = match root {
            Root::Empty => String::new(),
            Root::Tree(there) => {
                let tree = self.of(there);
                let tree = tree.as_ref().map_or(Path::new(there), |tree| &tree.path);
                place::read_inside(tree, "etc", "passwd", MAX_PASSWD)
                    .map_err(|e| Fault::new(Phase::Create, format!("/etc/passwd of the image: {e}")))?
            }
        };
        look_up(&passwd, name).ok_or_else(|| {
            Fault::new(Phase::Create, format!("option `user`: the image has no user `{name}`"))
                .hint("give a number instead, such as \"1000:1000\"")
        })
    }
}

impl TryFrom<&Prepared> for Root {
    type Error = Fault;
    fn try_from(prepared: &Prepared) -> Result<Self, Fault> {
        match (prepared.0.as_str(), prepared.0.strip_prefix(TREE)) {
            (EMPTY, _) => Ok(Self::Empty),
            (_, Some(tree)) => Ok(Self::Tree(tree.to_owned())),
            (other, None) => Err(Fault::new(Phase::Prepare, format!("`{other}` was prepared by another engine"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_prepared_is_read_back_and_nothing_else() {
        assert_eq!(Root::try_from(&Prepared("empty".into())), Ok(Root::Empty));
        assert_eq!(Root::try_from(&Prepared("tree:/a b".into())), Ok(Root::Tree("/a b".into())));
        assert!(Root::try_from(&Prepared("sha256:00".into())).is_err());
    }
}
