//! The line of shell that turns a login into an agent.
//!
//! In: how long the agent is. Out: a command. The agent's bytes come on standard input, and not one more before it has said
//! its first word, so it does not matter whether what reads them reads ahead. Pure.

/// Directories in the order they are tried: on disk before in memory, since trees of images are put there.
const DIRS: &str = "\"$TMPDIR\" /var/tmp /tmp \"$HOME\" /dev/shm";

/// For whatever login shell is there: one line, and nothing but single quotes that it could take for its own.
pub(super) fn command(length: usize) -> String {
    let machines = match std::env::consts::ARCH {
        "x86_64" => "x86_64|amd64",
        other => other,
    };
    let script = format!(
        "umask 077; m=$(uname -m); case $m in {machines}) ;; \
         *) echo \"this abicus runs on {machines}, the host is $m\" >&2; exit 98;; esac; f=; \
         for d in {DIRS}; do [ -n \"$d\" ] || continue; \
         t=$(mktemp -d \"$d/abicus-XXXXXXXXXX\" 2>/dev/null) || continue; \
         if [ -z \"$f\" ]; then \
         head -c {length} >\"$t/launch\" 2>/dev/null || dd bs=1 count={length} of=\"$t/launch\" 2>/dev/null; \
         else cp \"$f/launch\" \"$t/launch\" 2>/dev/null; rm -rf \"$f\"; fi; \
         f=$t; chmod 700 \"$t/launch\"; \"$t/launch\" 2>/dev/null; \
         [ $? = 2 ] && exec \"$t/launch\" agent \"$t\"; done; \
         [ -n \"$f\" ] && rm -rf \"$f\"; echo \"no directory of {dirs} can be written to and executes programs\" >&2; exit 97",
        dirs = DIRS.replace('"', ""),
    );
    format!("exec sh -c '{script}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_one_line_that_any_login_shell_hands_on_as_it_is() {
        let command = command(12345);
        let inside = command.strip_prefix("exec sh -c '").and_then(|rest| rest.strip_suffix('\'')).unwrap();
        assert!(!inside.contains(['\'', '\n', '!', '\\']), "{inside}");
        assert_eq!(inside.matches("12345").count(), 2);
    }
}
