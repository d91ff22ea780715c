//! An initramfs: files in, an archive the kernel unpacks into its first file system out. Pure.
//!
//! The format is cpio's `newc`, as the kernel's own description has it (Documentation/driver-api/early-userspace/
//! buffer-format.rst): a header of hexadecimal numbers, the name, the content, each padded to four bytes.

/// An archive being written.
#[derive(Debug, Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

impl Cpio {
    /// A directory; its parents come first.
    pub fn dir(&mut self, name: &str, mode: u32) -> &mut Self {
        self.entry(name, S_IFDIR | mode, (0, 0), b"")
    }

    /// A regular file.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> &mut Self {
        self.entry(name, S_IFREG | mode, (0, 0), content)
    }

    /// A character device, by major and minor number.
    pub fn node(&mut self, name: &str, mode: u32, device: (u32, u32)) -> &mut Self {
        self.entry(name, S_IFCHR | mode, device, b"")
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> &mut Self {
        self.entries += 1;
        let links = if mode & S_IFDIR == S_IFDIR { 2 } else { 1 };
        // Content of 4 GiB has no place in memory that has to hold it twice; the driver's own programs are small.
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let (uid, gid, time, check) = (0, 0, 0, 0);
        let (on, of) = ((0, 0), device);
        let fields = [self.entries, mode, uid, gid, links, time, length, on.0, on.1, of.0, of.1, name_length, check];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").into_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn another_program_reads_what_was_written() {
        let mut archive = Cpio::default();
        archive.dir("dev", 0o755).node("dev/console", 0o600, (5, 1)).file("init", 0o755, b"program");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let mut child = Command::new("busybox")
            .args(["cpio", "-t", "-v"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let listed = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        let seen: Vec<_> = lines.iter().map(|words| (words[0], *words.last().unwrap())).collect();
        assert_eq!(seen, [("drwxr-xr-x", "dev"), ("crw-------", "dev/console"), ("-rwxr-xr-x", "init")], "{listed}");
        assert!(lines[2].contains(&"7"), "{listed}");
    }
}
