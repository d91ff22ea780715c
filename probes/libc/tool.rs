//! The image's own programs: does each start, and does something small come out right?
//!
//! Goes in: a table of programs, each with arguments, input and what it should say. Comes out: one observation each;
//! a program the image does not have is not asked. Must not know: why a program fails, only how.
//! Each runs in an empty directory under /tmp that is removed again. None uses a network; two connect to a closed port of
//! the loopback to make the program look up a name or open a socket.

use core::ffi::{CStr, c_char};

use crate::cell::{Cell, contains, fact};
use crate::child::{End, Program, Ran, run};
use crate::rt::consts::*;
use crate::rt::sys::call;
use crate::rt::{nr, process, sys};
use crate::saw::{Answer, Saw, Seen};
use crate::{Check, not_asked, value};

/// Milliseconds a program may take; Java on a busy host is the slowest.
const DEADLINE: u64 = 8000;

pub struct Tool {
    id: &'static str,
    program: &'static CStr,
    arguments: &'static [&'static CStr],
    input: &'static [u8],
    /// A part of its output.
    says: &'static [u8],
    status: i32,
    /// Another status that is as good: busybox's programs have their own.
    or: i32,
    needs: Needs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// An empty working directory, a file `in` in it, and this afterwards.
    Scratch(After),
    /// /etc/hosts with localhost.
    Localhost,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// `out` is a copy of `in`.
    Copied,
    /// `in` is called `out`.
    Moved,
    /// `in` has mode 0640.
    Changed,
    /// `out` was unpacked with mode 0750.
    Unpacked,
}

const fn tool(
    id: &'static str,
    program: &'static CStr,
    arguments: &'static [&'static CStr],
    says: &'static [u8],
) -> Tool {
    Tool { id, program, arguments, input: b"", says, status: 0, or: 0, needs: Needs::Nothing }
}

const fn fed(mut tool: Tool, input: &'static [u8]) -> Tool {
    tool.input = input;
    tool
}

const fn ends(mut tool: Tool, status: i32, or: i32) -> Tool {
    tool.status = status;
    tool.or = or;
    tool
}

const fn needs(mut tool: Tool, needs: Needs) -> Tool {
    tool.needs = needs;
    tool
}

const NEWS: &[u8] = b"one abicus\ntwo\nthree abicus\n";
const PACKED: &[u8] = &[31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 51, 49, 226, 2, 0, 49, 41, 134, 209, 3, 0, 0, 0];
const PYTHON_THREAD: &CStr =
    c"import threading\nr = []\nt = threading.Thread(target=lambda: r.append(42))\nt.start()\nt.join()\nprint(r[0])";
const PYTHON_PROCESS: &CStr =
    c"import os, subprocess, sys\nprint(subprocess.run([sys.executable, '-BISc', 'import os; os._exit(42)']).returncode)";
const MAKEFILE: &[u8] = b"all:\n\t@echo $$((6*7))\n";

const TOOLS: &[Tool] = &[
    tool("tool.sh", c"sh", &[c"-c", c"echo $((6*7))"], b"42"),
    tool("tool.sh.pipeline", c"sh", &[c"-c", c"echo 42 | while read x; do (echo got $x); done"], b"got 42"),
    tool("tool.sh.test", c"sh", &[c"-c", c"[ -x /bin/sh ] && [ ! -e /dev/null/none ] && echo yes"], b"yes"),
    tool("tool.bash", c"bash", &[c"-c", c"a=(1 2 3); echo $(( ${#a[@]} * 14 ))"], b"42"),
    tool("tool.bash.substitution", c"bash", &[c"-c", c"read x < <(echo 42); echo $x"], b"42"),
    tool("tool.busybox", c"busybox", &[c"echo", c"42"], b"42"),
    tool("tool.ls", c"ls", &[c"-l", c"/dev/null"], b"/dev/null"),
    fed(tool("tool.cat", c"cat", &[], b"42"), b"42\n"),
    needs(tool("tool.cp", c"cp", &[c"in", c"out"], b""), Needs::Scratch(After::Copied)),
    needs(tool("tool.mv", c"mv", &[c"in", c"out"], b""), Needs::Scratch(After::Moved)),
    needs(tool("tool.chmod", c"chmod", &[c"640", c"in"], b""), Needs::Scratch(After::Changed)),
    needs(tool("tool.tar", c"tar", &[c"-xpf", c"-"], b""), Needs::Scratch(After::Unpacked)),
    fed(tool("tool.gzip", c"gzip", &[c"-dc"], b"42"), PACKED),
    fed(tool("tool.grep", c"grep", &[c"-c", c"abicus"], b"2"), NEWS),
    fed(tool("tool.sed", c"sed", &[c"s/t[a-z]o/42/"], b"42"), NEWS),
    tool("tool.awk", c"awk", &[c"BEGIN { print 6 * 7 }"], b"42"),
    fed(tool("tool.sort", c"sort", &[], b"one abicus\nthree abicus\ntwo"), NEWS),
    tool("tool.find", c"find", &[c"/dev/null", c"-type", c"c"], b"/dev/null"),
    fed(tool("tool.xargs", c"xargs", &[c"echo"], b"6 7"), b"6\n7\n"),
    tool("tool.date", c"date", &[c"-u", c"-d", c"@2208988800", c"+%Y"], b"2040"),
    tool("tool.id", c"id", &[c"-u"], b""),
    tool("tool.env", c"env", &[c"-i", c"A=42"], b"A=42"),
    tool("tool.uname", c"uname", &[c"-s"], b"Linux"),
    tool("tool.timeout", c"timeout", &[c"5", c"uname"], b"Linux"),
    tool("tool.stat", c"stat", &[c"-c", c"%F", c"/dev/null"], b"character special file"),
    tool("tool.df", c"df", &[c"/"], b"/"),
    tool("tool.nproc", c"nproc", &[], b""),
    tool("tool.ps", c"ps", &[], b"PID"),
    tool("tool.ldconfig", c"ldconfig", &[c"-p"], b""),
    tool("tool.getent", c"getent", &[c"passwd", c"root"], b"root:"),
    // Without the lists of packages, of which it would make a cache of half a second's work and leave it behind.
    tool(
        "tool.apt-get",
        c"apt-get",
        &[c"-oDir::State::Lists=/nonexistent", c"-oDir::Cache=/nonexistent", c"indextargets"],
        b"",
    ),
    tool("tool.dpkg", c"dpkg", &[c"--print-architecture"], b"amd64"),
    tool("tool.dpkg-query", c"dpkg-query", &[c"-W", c"-f", c"${Status}", c"dpkg"], b"install ok installed"),
    tool("tool.apk", c"apk", &[c"--print-arch"], b"x86_64"),
    tool("tool.rpm", c"rpm", &[c"--eval", c"%{_arch}"], b"x86_64"),
    tool("tool.dnf", c"dnf", &[c"--version"], b""),
    tool("tool.microdnf", c"microdnf", &[c"--version"], b""),
    tool("tool.yum", c"yum", &[c"--version"], b""),
    tool("tool.zypper", c"zypper", &[c"--version"], b"zypper"),
    tool("tool.pacman", c"pacman", &[c"-Q", c"pacman"], b"pacman"),
    tool("tool.python3", c"python3", &[c"-BISc", PYTHON_THREAD], b"42"),
    tool("tool.python3.process", c"python3", &[c"-BISc", PYTHON_PROCESS], b"42"),
    tool("tool.perl", c"perl", &[c"-e", c"print 6 * 7"], b"42"),
    tool("tool.perl.fork", c"perl", &[c"-e", c"$p = fork; exit 42 unless $p; waitpid $p, 0; print $? >> 8"], b"42"),
    tool("tool.ruby", c"ruby", &[c"-e", c"print Thread.new { 6 * 7 }.value"], b"42"),
    tool("tool.node", c"node", &[c"-p", c"6*7"], b"42"),
    tool("tool.php", c"php", &[c"-r", c"echo 6*7;"], b"42"),
    // Where memory is short java dies at start and leaves a report in the working directory; its counters leave a directory
    // in /tmp in any case.
    tool("tool.java", c"java", &[c"-XX:ErrorFile=/dev/null", c"-XX:-UsePerfData", c"-version"], b""),
    tool("tool.go", c"go", &[c"version"], b"go version"),
    fed(tool("tool.make", c"make", &[c"-f", c"-"], b"42"), MAKEFILE),
    fed(tool("tool.gcc", c"gcc", &[c"-x", c"c", c"-fsyntax-only", c"-"], b""), b"int main(void) { return 0; }\n"),
    fed(tool("tool.git", c"git", &[c"hash-object", c"--stdin"], b"d81cc0710eb6cf9efd5b920a8453e1e07157b6cd"), b"42\n"),
    fed(
        tool(
            "tool.openssl",
            c"openssl",
            &[c"dgst", c"-sha256"],
            b"084c799cd551dd1d8d5c5f9a5d593b2e931f5e36122ee5c793c1d08a19839cc0",
        ),
        b"42\n",
    ),
    needs(
        ends(tool("tool.curl", c"curl", &[c"-sS", c"--noproxy", c"*", c"http://localhost:1/"], b""), 7, 7),
        Needs::Localhost,
    ),
    ends(tool("tool.wget", c"wget", &[c"-q", c"-O", c"-", c"http://127.0.0.1:1/"], b""), 4, 1),
    tool("tool.ssh", c"ssh", &[c"-G", c"localhost"], b"hostname localhost"),
    tool("tool.ping", c"ping", &[c"-c", c"1", c"-W", c"1", c"127.0.0.1"], b""),
    tool("tool.ip", c"ip", &[c"link", c"show", c"lo"], b"lo"),
    tool("tool.systemctl", c"systemctl", &[c"--version"], b"systemd"),
    tool("tool.nginx", c"nginx", &[c"-v"], b""),
    tool("tool.redis-server", c"redis-server", &[c"--version"], b""),
    tool("tool.postgres", c"postgres", &[c"--version"], b"postgres"),
    tool("tool.mysqld", c"mysqld", &[c"--version"], b""),
    tool("tool.mongod", c"mongod", &[c"--version"], b""),
];

pub const CHECKS: &[Check] = &{
    let mut checks = [Check::new("", ask); TOOLS.len()];
    let mut at = 0;
    while at < TOOLS.len() {
        checks[at] = Check { argument: at, deadline: DEADLINE + 1000, ..Check::new(TOOLS[at].id, ask) };
        at += 1;
    }
    checks
};

type Path = crate::rt::text::Text<512>;

/// Where a program of this name lies, as the shell would look for it.
fn find(cell: &Cell, name: &CStr) -> Option<Path> {
    let list = cell.env(b"PATH").map_or(&b""[..], CStr::to_bytes);
    let usual = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for directory in list.split(|byte| *byte == b':').chain(usual.split(|byte| *byte == b':')) {
        if !directory.starts_with(b"/") {
            continue;
        }
        let mut path = Path::of(directory);
        path.add(b"/").add(name.to_bytes_with_nul());
        // SAFETY: a terminated path. 1 is X_OK.
        if !path.was_cut() && unsafe { call!(nr::FACCESSAT, AT_FDCWD, path.bytes().as_ptr(), 1) }.is_ok() {
            return Some(path);
        }
    }
    None
}

fn ask(cell: &Cell, at: usize) -> Seen {
    let tool = &TOOLS[at];
    let Some(path) = find(cell, tool.program) else {
        return Err(Saw::NotAsked(b"not in the image"));
    };
    match tool.needs {
        Needs::Nothing => judge(tool, &start(cell, tool, &path, tool.input)?, || Ok(())),
        Needs::Localhost => {
            let mut room = [0; 4096];
            match sys::read_file(c"/etc/hosts", &mut room) {
                Ok(hosts) if crate::name::hosts_has(hosts, b"localhost", 2) => {}
                _ => return Err(not_asked!("/etc/hosts gives localhost no IPv4 address")),
            }
            judge(tool, &start(cell, tool, &path, tool.input)?, || Ok(()))
        }
        Needs::Scratch(after) => {
            let mut name = *b"/tmp/abicus-XXXXXX\0";
            // SAFETY: a terminated template, which the function fills in.
            if unsafe { cell.mkdtemp(name.as_mut_ptr().cast()) }.is_null() {
                return Err(not_asked!("no writable /tmp"));
            }
            // SAFETY: a terminated path.
            let _ = unsafe { call!(nr::CHDIR, name.as_ptr()) };
            let seen = in_scratch(cell, tool, &path, after);
            let _ = sys::unlink(c"in");
            let _ = sys::unlink(c"out");
            let _ = sys::rmdir(CStr::from_bytes_until_nul(&name).unwrap_or(c""));
            seen
        }
    }
}

fn in_scratch(cell: &Cell, tool: &Tool, path: &Path, after: After) -> Seen {
    let file =
        sys::open(c"in", O_CREAT | O_EXCL | O_WRONLY, 0o600).map_err(|errno| Saw::Errno(errno, "make a file"))?;
    let content = [b'a'; 5000];
    let _ = sys::write(file, &content);
    let _ = sys::close(file);
    let mut archive = [0u8; 2048];
    let input = if after == After::Unpacked {
        pack(&mut archive);
        &archive
    } else {
        tool.input
    };
    let ran = start(cell, tool, path, input)?;
    judge(tool, &ran, || {
        let mut room = [0; 5001];
        let mut stat = [0u32; 36];
        let name = if after == After::Changed { c"in" } else { c"out" };
        // SAFETY: a terminated path, room for a struct stat of 144 bytes.
        let found = unsafe { call!(nr::NEWFSTATAT, AT_FDCWD, sys::path(name), stat.as_mut_ptr(), 0) };
        found.map_err(|errno| Saw::Errno(errno, "stat of what it made"))?;
        let mode = stat[6] & 0o777;
        let right = match after {
            After::Copied | After::Moved => sys::read_file(c"out", &mut room).is_ok_and(|copy| copy == content),
            After::Changed => mode == 0o640,
            After::Unpacked => mode == 0o750 && sys::read_file(c"out", &mut room) == Ok(b"42\n"),
        };
        if right { Ok(()) } else { Err(value!("what it made is wrong: mode {mode:o}")) }
    })
}

/// An archive with one file: ustar, POSIX.1-1988.
fn pack(archive: &mut [u8; 2048]) {
    let mut put = |at: usize, bytes: &[u8]| archive[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"out");
    put(100, b"0000750\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, b"00000000003\0");
    put(136, b"14000000000\0");
    put(148, b"        0");
    put(257, b"ustar\x0000");
    put(512, b"42\n");
    let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
    for digit in 0..6 {
        archive[148 + digit] = b'0' + (sum >> (15 - 3 * digit) & 7) as u8;
    }
    archive[154] = 0;
}

/// What a program wrote, kept for the observation.
struct Said {
    ran: Ran,
    out: [u8; 8192],
    err: [u8; 1024],
}

fn start(cell: &Cell, tool: &Tool, path: &Path, input: &[u8]) -> Result<Said, Saw> {
    let mut arguments = [core::ptr::null::<c_char>(); 8];
    for (slot, text) in arguments.iter_mut().zip(core::iter::once(&tool.program).chain(tool.arguments)) {
        *slot = text.as_ptr();
    }
    let program = Program {
        path: CStr::from_bytes_until_nul(path.bytes()).unwrap_or(c""),
        arguments: &arguments,
        environment: process::env().pointer(),
        input,
        until: b"",
        deadline: DEADLINE,
    };
    let (mut out, mut err) = ([0; 8192], [0; 1024]);
    let ran = run(cell, &program, &mut out, &mut err)?;
    Ok(Said { ran, out, err })
}

fn judge(tool: &Tool, said: &Said, after: impl FnOnce() -> Result<(), Saw>) -> Seen {
    let (out, err) = (&said.out[..said.ran.out], &said.err[..said.ran.err]);
    if let Some(errno) = said.ran.refused {
        return Err(Saw::Errno(errno, "execve"));
    }
    let seen = match said.ran.end {
        End::Timeout => Err(Saw::Timeout(DEADLINE)),
        End::Signal(signal) => Err(Saw::Signal(signal)),
        End::Exit(status) if status != tool.status && status != tool.or => Err(value!("exit status {status}")),
        End::Exit(_) if !tool.says.is_empty() && !contains(out, tool.says) => Err(Saw::Value(b"another output")),
        End::Exit(_) => after().map(|()| Saw::Ok),
    };
    if seen.is_err() {
        // Its own words may hold anything, so they are a fact and not part of what is compared.
        let words = if err.is_empty() { out } else { err };
        let line = words.split(|byte| *byte == b'\n').find(|line| !line.is_empty()).unwrap_or(b"");
        let mut id = Answer::of(tool.id.as_bytes());
        id.add(b".said");
        fact(core::str::from_utf8(id.bytes()).unwrap_or("tool.said"), &line[..line.len().min(300)]);
    }
    seen
}
