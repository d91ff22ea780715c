//! What ssh's words mean, and what the user can do.
//!
//! In: standard error of ssh, and what was missed instead. Out: a fault. Pure.

use crate::fault::{Fault, Phase};
use crate::spec::SshSpec;

/// Why there is no agent. Transient: sshd, or something on the way, may only have been too busy.
pub(super) fn fault(spec: &SshSpec, said: &str, missed: &Fault) -> Fault {
    let name = &spec.destination;
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let by_hand = match &spec.config {
        Some(config) => format!("ssh -F {} {name}", config.display()),
        None => format!("ssh {name}"),
    };
    let fault = |cause: &str| Fault::new(Phase::Host, format!("{name}: {cause}"));
    let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    if has(&["REMOTE HOST IDENTIFICATION HAS CHANGED"]) {
        return fault(
            "its host key is not the one that is known: somebody may be listening in, or it was installed anew",
        )
        .hint(format!(
            "if it was, remove the old key (`ssh-keygen -R HOST`), and look at the new one with `{by_hand}`"
        ));
    }
    if has(&["Host key verification failed", "host key is known for"]) {
        return fault("its host key is not known").hint(format!(
            "run `{by_hand}` once and compare the fingerprint it shows, or add the key to ~/.ssh/known_hosts"
        ));
    }
    if has(&["Permission denied ("]) {
        return fault(&format!("it lets nobody in with the keys at hand: {last}"))
            .hint(format!("no password is asked for: `{by_hand} true` must work without one (ssh-add, ssh-copy-id)"));
    }
    if has(&["Could not resolve hostname"]) {
        return fault(last).hint("is the name right, and does ~/.ssh/config know it?");
    }
    if has(&["Connection refused"]) {
        return fault("nothing listens there: connection refused").hint("is sshd running, and is this its port?");
    }
    if has(&["timed out", "No route to host", "Network is unreachable"]) {
        return fault(last).hint("is it switched on, and is the network in between?");
    }
    // The door closed before anybody asked who we are.
    if has(&["kex_exchange_identification", "Connection reset by", "Connection closed by", "banner exchange"]) {
        return fault(last).transient().hint("sshd may have too many connections at once: raise its MaxStartups");
    }
    if last.is_empty() {
        return Fault { transient: false, ..missed.clone() };
    }
    fault(last).hint(format!("does `{by_hand} true` work?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_named_and_says_what_to_do() {
        let spec = SshSpec { destination: "ann@rack".to_owned(), config: None };
        let missed = Fault::new(Phase::Host, "ann@rack: the agent did not start").transient();
        for (said, cause, transient) in [
            (
                "@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n",
                "not the one",
                false,
            ),
            (
                "No ED25519 host key is known for rack and you have requested strict checking.\nHost key verification failed.\n",
                "not known",
                false,
            ),
            ("ann@rack: Permission denied (publickey).\n", "lets nobody in", false),
            ("ssh: Could not resolve hostname rack: Name or service not known\n", "Could not resolve", false),
            ("ssh: connect to host rack port 22: Connection refused\n", "nothing listens", false),
            ("ssh: connect to host rack port 22: Connection timed out\n", "timed out", false),
            ("kex_exchange_identification: Connection closed by remote host\n", "closed by", true),
            ("sh: 1: mktemp: not found\nno directory of /tmp can be written to\n", "no directory", false),
        ] {
            let fault = fault(&spec, said, &missed);
            assert!(fault.cause.starts_with("ann@rack: ") && fault.cause.contains(cause), "{fault}");
            assert!(fault.hint.is_some() && fault.transient == transient, "{fault:?}");
        }
        assert_eq!(fault(&spec, "\n", &missed), Fault { transient: false, ..missed.clone() });
    }
}
