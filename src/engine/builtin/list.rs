//! Writes lists of operations for the launcher.
//!
//! In: operations, one call each. Out: the bytes the launcher reads, and for every operation a line for people, so that
//! `setup 17 errno 22` can be told as what it was. Pure; knows no policy.

/// The launcher's own description of its list.
#[path = "../../../probes/launch/format.rs"]
#[allow(dead_code, missing_docs, clippy::missing_docs_in_private_items)]
pub(crate) mod format;

pub(crate) use format::stage;
use format::{FIRST_SLOT, HEADER, MAGIC, MAX_LIST, code, flag};

/// A field of an operation.
pub(crate) enum Field<'a> {
    Text(&'a str),
    Number(u64),
    Bytes(&'a [u8]),
}
use Field::{Bytes, Number, Text};

impl<'a> From<&'a str> for Field<'a> {
    fn from(text: &'a str) -> Self {
        Text(text)
    }
}
impl From<u64> for Field<'_> {
    fn from(number: u64) -> Self {
        Number(number)
    }
}
impl<'a> From<&'a [u8]> for Field<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Bytes(bytes)
    }
}

/// A list that cannot be written: what of it, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListError {
    /// C strings end at their first NUL.
    #[error("{0:?} has a NUL byte in it")]
    Nul(String),
    /// More than the launcher reads.
    #[error("the list of operations has {0} bytes, more than the launcher's {MAX_LIST}")]
    TooLong(usize),
}

/// A list being written. Every operation goes to the stage in force.
#[derive(Debug, Default, Clone)]
pub(crate) struct List {
    bytes: Vec<u8>,
    says: Vec<(u8, String)>,
    stage: u8,
    flags: u8,
    nul: Option<String>,
}

impl List {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; HEADER], ..Self::default() }
    }

    /// The operations that follow belong to this stage.
    pub(crate) fn stage(&mut self, stage: u8) -> &mut Self {
        self.stage = stage;
        self
    }

    /// The next operation may fail: the launcher tells it and goes on.
    pub(crate) fn may_fail(&mut self) -> &mut Self {
        self.flags |= flag::MAY_FAIL;
        self
    }

    /// What the next operation is about may be absent: the launcher passes over it.
    pub(crate) fn may_be_absent(&mut self) -> &mut Self {
        self.flags |= flag::MAY_BE_ABSENT;
        self
    }

    fn op(&mut self, code: u8, says: String, fields: &[Field]) -> &mut Self {
        self.bytes.extend([code, self.stage, self.flags, 0]);
        self.number32(fields.len());
        for field in fields {
            match field {
                Number(number) => {
                    self.number32(8);
                    self.bytes.extend(number.to_le_bytes());
                }
                Bytes(bytes) => {
                    self.number32(bytes.len());
                    self.bytes.extend(*bytes);
                }
                Text(text) => {
                    if text.contains('\0') {
                        self.nul.get_or_insert_with(|| (*text).to_owned());
                    }
                    self.number32(text.len());
                    self.bytes.extend(text.as_bytes());
                }
            }
            self.bytes.push(0);
        }
        self.says.push((code, says));
        self.flags = 0;
        self
    }

    fn number32(&mut self, number: usize) {
        // Longer ones are refused by `finish`, whose limit is far below.
        self.bytes.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    }

    /// The bytes for the launcher.
    pub(crate) fn finish(&self) -> Result<Vec<u8>, ListError> {
        if let Some(text) = &self.nul {
            return Err(ListError::Nul(text.clone()));
        }
        let mut bytes = self.bytes.clone();
        let length = u32::try_from(bytes.len()).ok().filter(|n| *n as usize <= MAX_LIST);
        let (Some(length), Ok(count)) = (length, u32::try_from(self.says.len())) else {
            return Err(ListError::TooLong(bytes.len()));
        };
        let head = [MAGIC, length.to_le_bytes(), count.to_le_bytes()].concat();
        bytes.splice(..HEADER, head);
        Ok(bytes)
    }

    /// What operation `index` does, for people, and whether it is the execution of the program.
    pub(crate) fn says(&self, index: usize) -> (&str, bool) {
        self.says.get(index).map_or(("making the first process", false), |(c, s)| (s.as_str(), *c == code::EXEC))
    }

    /// `/proc/self/fd/N` of a slot: how a mount names what was opened before the root changed.
    pub(crate) fn slot(number: u64) -> String {
        format!("/proc/self/fd/{}", FIRST_SLOT as u64 + number)
    }
}

/// One method an operation; what each does stands in the launcher's `format.rs`.
impl List {
    pub(crate) fn clone_flags(&mut self, flags: u64) -> &mut Self {
        self.op(code::CLONE, "making namespaces".into(), &[flags.into()])
    }
    pub(crate) fn adopt(&mut self) -> &mut Self {
        self.op(code::ADOPT, "adopting orphans".into(), &[])
    }
    pub(crate) fn mkdir(&mut self, path: &str, mode: u64) -> &mut Self {
        self.op(code::MKDIR, format!("making directory {path}"), &[path.into(), mode.into()])
    }
    pub(crate) fn mkdirs(&mut self, path: &str) -> &mut Self {
        self.op(code::MKDIRS, format!("making directory {path}"), &[path.into(), 0o755.into()])
    }
    pub(crate) fn write(&mut self, path: &str, bytes: &str) -> &mut Self {
        let says = format!("writing {} to {path}", bytes.trim_end());
        self.op(code::WRITE, says, &[path.into(), Bytes(bytes.as_bytes())])
    }
    pub(crate) fn file(&mut self, path: &str, bytes: &[u8]) -> &mut Self {
        self.op(code::FILE, format!("making file {path}"), &[path.into(), 0o644.into(), bytes.into()])
    }
    pub(crate) fn touch(&mut self, path: &str) -> &mut Self {
        self.op(code::TOUCH, format!("making {path} to mount on"), &[path.into()])
    }
    pub(crate) fn rmdir(&mut self, path: &str) -> &mut Self {
        self.op(code::RMDIR, format!("removing directory {path}"), &[path.into()])
    }
    pub(crate) fn write_pid(&mut self, path: &str) -> &mut Self {
        self.op(code::WRITE_PID, format!("entering {path}"), &[path.into()])
    }
    pub(crate) fn write_proc(&mut self, name: &str, bytes: &str) -> &mut Self {
        let says = format!("writing {} to {name}", bytes.trim_end().replace('\n', ", "));
        self.op(code::WRITE_PROC, says, &[Bytes(name.as_bytes()), Bytes(bytes.as_bytes())])
    }
    pub(crate) fn helper(&mut self, program: &str, arguments: &[String]) -> &mut Self {
        let mut fields: Vec<Field> = vec![program.into()];
        fields.extend(arguments.iter().map(|a| Text(a)));
        self.op(code::HELPER, format!("running {program} {}", arguments.join(" ")), &fields)
    }
    pub(crate) fn report(&mut self, key: &str, path: &str) -> &mut Self {
        self.op(code::REPORT, format!("reading {path}"), &[Bytes(key.as_bytes()), path.into()])
    }
    pub(crate) fn open(&mut self, slot: u64, path: &str, flags: u64) -> &mut Self {
        self.op(code::OPEN, format!("opening {path}"), &[slot.into(), path.into(), flags.into()])
    }
    pub(crate) fn keep(&mut self, slot: u64) -> &mut Self {
        self.op(code::KEEP, format!("keeping slot {slot} open"), &[slot.into()])
    }
    pub(crate) fn mount(&mut self, source: &str, target: &str, kind: &str, flags: u64, data: &str) -> &mut Self {
        let what = if kind.is_empty() { source } else { kind };
        let says = format!("mounting {what} on {target}");
        self.op(code::MOUNT, says, &[source.into(), target.into(), kind.into(), flags.into(), data.into()])
    }
    pub(crate) fn remount(&mut self, target: &str, flags: u64) -> &mut Self {
        self.op(code::REMOUNT, format!("remounting {target}"), &[target.into(), flags.into()])
    }
    pub(crate) fn unmount(&mut self, target: &str, flags: u64) -> &mut Self {
        self.op(code::UNMOUNT, format!("unmounting {target}"), &[target.into(), flags.into()])
    }
    pub(crate) fn mask(&mut self, path: &str) -> &mut Self {
        self.op(code::MASK, format!("masking {path}"), &[path.into(), "/dev/null".into()])
    }
    pub(crate) fn read_only(&mut self, path: &str) -> &mut Self {
        self.op(code::READ_ONLY, format!("making {path} read-only"), &[path.into()])
    }
    pub(crate) fn symlink(&mut self, text: &str, path: &str) -> &mut Self {
        self.op(code::SYMLINK, format!("making symlink {path}"), &[text.into(), path.into()])
    }
    pub(crate) fn mknod(&mut self, path: &str, mode: u64, device: u64) -> &mut Self {
        self.op(code::MKNOD, format!("making device {path}"), &[path.into(), mode.into(), device.into()])
    }
    pub(crate) fn chdir(&mut self, path: &str) -> &mut Self {
        self.op(code::CHDIR, format!("entering directory {path}"), &[path.into()])
    }
    pub(crate) fn fchdir(&mut self, slot: u64) -> &mut Self {
        self.op(code::FCHDIR, "entering the old root".into(), &[slot.into()])
    }
    pub(crate) fn pivot(&mut self) -> &mut Self {
        self.op(code::PIVOT, "changing the root".into(), &[])
    }
    pub(crate) fn hostname(&mut self, name: &str) -> &mut Self {
        self.op(code::HOSTNAME, format!("setting host name {name}"), &[Bytes(name.as_bytes())])
    }
    pub(crate) fn loopback(&mut self) -> &mut Self {
        self.op(code::LOOPBACK, "bringing up the loopback interface".into(), &[])
    }
    pub(crate) fn rlimit(&mut self, resource: u64, soft: u64, hard: u64) -> &mut Self {
        let says = format!("setting resource limit {resource} to {soft}:{hard}");
        self.op(code::RLIMIT, says, &[resource.into(), soft.into(), hard.into()])
    }
    pub(crate) fn bound(&mut self, set: u64) -> &mut Self {
        self.op(code::BOUND, "dropping capabilities from the bounding set".into(), &[set.into()])
    }
    pub(crate) fn caps(&mut self, set: u64) -> &mut Self {
        // No inheritable ones, as docker since 20.10.14 (CVE-2022-24769).
        self.op(code::CAPS, format!("setting capabilities {set:#x}"), &[set.into(), set.into(), 0.into()])
    }
    pub(crate) fn ambient(&mut self, set: u64) -> &mut Self {
        self.op(code::AMBIENT, "setting ambient capabilities".into(), &[set.into()])
    }
    pub(crate) fn groups(&mut self, groups: &[u32]) -> &mut Self {
        let bytes: Vec<u8> = groups.iter().flat_map(|g| g.to_le_bytes()).collect();
        self.op(code::GROUPS, "setting supplementary groups".into(), &[Bytes(&bytes)])
    }
    pub(crate) fn ids(&mut self, uid: u32, gid: u32) -> &mut Self {
        let says = format!("becoming user {uid}:{gid}");
        self.op(code::IDS, says, &[u64::from(uid).into(), u64::from(gid).into(), 1.into()])
    }
    pub(crate) fn chown(&mut self, path: &str, uid: u32, gid: u32) -> &mut Self {
        let says = format!("giving {path} to {uid}:{gid}");
        self.op(code::CHOWN, says, &[path.into(), u64::from(uid).into(), u64::from(gid).into()])
    }
    pub(crate) fn seccomp(&mut self, program: &[u8]) -> &mut Self {
        let says = format!("loading a seccomp filter of {} instructions", program.len() / 8);
        self.op(code::SECCOMP, says, &[program.into()])
    }
    pub(crate) fn unshare(&mut self, flags: u64) -> &mut Self {
        self.op(code::UNSHARE, format!("leaving namespaces {flags:#x}"), &[flags.into()])
    }
    pub(crate) fn setsid(&mut self) -> &mut Self {
        self.op(code::SETSID, "making a session".into(), &[])
    }
    pub(crate) fn umask(&mut self, mask: u64) -> &mut Self {
        self.op(code::UMASK, "setting the umask".into(), &[mask.into()])
    }
    pub(crate) fn stdin(&mut self, path: &str) -> &mut Self {
        self.op(code::STDIN, format!("opening {path} as standard input"), &[path.into()])
    }
    /// `paths` are tried in turn, as execvp(3) does with PATH.
    pub(crate) fn exec(&mut self, paths: &[String], argv: &[String], environment: &[String]) -> &mut Self {
        let count = |n: usize| Number(n as u64);
        let mut fields = vec![count(paths.len()), count(argv.len())];
        fields.extend(paths.iter().chain(argv).chain(environment).map(|text| Text(text)));
        let name = argv.first().map_or("nothing", String::as_str);
        self.op(code::EXEC, format!("executing {name}"), &fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use format::{Malformed, Ops};

    #[test]
    fn the_launcher_reads_what_the_driver_writes() {
        let mut list = List::new();
        list.stage(stage::BEFORE).clone_flags(0x2000_0000).stage(stage::INSIDE).may_fail();
        list.mount("proc", "/proc", "proc", 14, "").seccomp(&[1, 0, 2, 0, 0, 0, 0, 0]);
        list.exec(&["/bin/a".into()], &["a".into(), "b".into()], &["X=y".into()]);
        let bytes = list.finish().unwrap();
        let ops: Vec<_> = Ops::new(&bytes).unwrap().map(Result::unwrap).collect();
        assert_eq!(ops.len(), 4);
        let mut mount = ops[1].fields;
        assert_eq!((ops[1].code, ops[1].stage, ops[1].flags), (code::MOUNT, stage::INSIDE, flag::MAY_FAIL));
        assert_eq!(mount.text().unwrap(), c"proc");
        assert_eq!(mount.text().unwrap(), c"/proc");
        assert_eq!(mount.text().unwrap(), c"proc");
        assert_eq!(mount.number(), Ok(14));
        assert_eq!(mount.text().unwrap(), c"");
        assert_eq!(mount.text(), Err(Malformed));
        let (mut filter, mut exec) = (ops[2].fields, ops[3].fields);
        assert_eq!((filter.bytes().unwrap(), ops[2].flags), (&[1, 0, 2, 0, 0, 0, 0, 0][..], 0));
        assert_eq!((exec.number(), exec.number()), (Ok(1), Ok(2)));
        assert_eq!(list.says(3), ("executing a", true));
    }

    #[test]
    fn a_damaged_list_is_refused_and_never_read_out_of_bounds() {
        let mut list = List::new();
        list.stage(stage::INSIDE).mkdir("/x", 7).exec(&["/x".into()], &["x".into()], &[]);
        let whole = list.finish().unwrap();
        let sound = |bytes: &[u8]| Ops::new(bytes).is_ok_and(|mut ops| ops.all(|op| op.is_ok()));
        assert!(sound(&whole));
        for end in 0..whole.len() {
            let mut short = whole[..end].to_vec();
            assert!(!sound(&short), "cut at {end}");
            if let Some(length) = short.get_mut(4..8) {
                length.copy_from_slice(&(end as u32).to_le_bytes());
                assert!(!sound(&short), "cut at {end} and said so");
            }
        }
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0xff;
            let _ = sound(&bad);
        }
    }

    #[test]
    fn a_text_with_a_nul_byte_is_refused() {
        let mut list = List::new();
        list.chdir("/a\0b");
        assert_eq!(list.finish(), Err(ListError::Nul("/a\0b".into())));
    }

    #[test]
    fn a_list_longer_than_the_launcher_reads_is_refused() {
        let mut list = List::new();
        list.file("hosts", &vec![b'x'; MAX_LIST]);
        assert!(matches!(list.finish(), Err(ListError::TooLong(_))));
    }
}
