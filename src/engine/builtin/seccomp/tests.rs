use super::bpf::*;
use super::*;
use crate::engine::builtin::capabilities::Capabilities;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ABSENT: u32 = 0x0005_0026;

fn around(capabilities: Capabilities) -> Surroundings {
    Surroundings { capabilities, kernel: (6, 1) }
}

/// What the kernel would answer: an interpreter for the instructions `bpf` uses. Panics where the kernel's checker would.
fn run(program: &[u8], arch: u32, number: u32, arguments: &[u64]) -> u32 {
    let word = |at: usize| u32::from_ne_bytes(program[at..at + 4].try_into().unwrap());
    let mut data = [0u8; 64];
    data[..4].copy_from_slice(&number.to_ne_bytes());
    data[4..8].copy_from_slice(&arch.to_ne_bytes());
    for (i, argument) in arguments.iter().enumerate() {
        data[16 + 8 * i..24 + 8 * i].copy_from_slice(&argument.to_ne_bytes());
    }
    let (mut at, mut a) = (0, 0);
    loop {
        let i = at * 8;
        let (code, yes, no, k) =
            (u16::from_ne_bytes(program[i..i + 2].try_into().unwrap()), program[i + 2], program[i + 3], word(i + 4));
        let jump = |hit: bool| usize::from(if hit { yes } else { no });
        at += 1;
        match code {
            LOAD => a = u32::from_ne_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
            AND => a &= k,
            JUMP => at += k as usize,
            IF_EQUAL => at += jump(a == k),
            IF_GREATER => at += jump(a > k),
            IF_AT_LEAST => at += jump(a >= k),
            RETURN => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn default_program(capabilities: Capabilities) -> Vec<u8> {
    compile(&docker_default().unwrap(), &around(capabilities)).unwrap()
}

#[test]
fn dockers_default_allows_what_it_names_and_refuses_the_rest_on_every_architecture() {
    let program = default_program(Capabilities::docker());
    let all = |name: &str| {
        Architecture::ALL.map(|arch| {
            let audit = if arch == Architecture::I386 { AUDIT_I386 } else { AUDIT_X86_64 };
            arch.number(name).map(|number| run(&program, audit, number, &[0; 6]))
        })
    };
    assert_eq!(all("read"), [Some(ALLOW); 3]);
    assert_eq!(all("exit_group"), [Some(ALLOW); 3]);
    assert_eq!(all("mount"), [Some(EPERM); 3]);
    assert_eq!(all("keyctl"), [Some(EPERM); 3]);
    assert_eq!(all("clone3"), [Some(ABSENT); 3]);
    assert_eq!(all("chroot"), [Some(ALLOW); 3]);
    // Newer than the profile; on x32, whose own calls have numbers from 512, it lies below the newest.
    assert_eq!(all("mseal"), [Some(ABSENT), Some(EPERM), Some(ABSENT)]);
    assert_eq!(run(&program, AUDIT_X86_64, 380, &[0; 6]), EPERM, "a hole below the newest call of the profile");
    assert_eq!(run(&program, AUDIT_X86_64, 4000, &[0; 6]), ABSENT);
    assert_eq!(run(&program, 0xc000_00b7, 0, &[0; 6]), 0, "aarch64 is not in the profile");
}

#[test]
fn capabilities_open_what_the_profile_ties_to_them() {
    let mount = Architecture::X86_64.number("mount").unwrap();
    let chroot = Architecture::X86_64.number("chroot").unwrap();
    let clone3 = Architecture::X86_64.number("clone3").unwrap();
    let answer = |set: u64, number| run(&default_program(Capabilities(set)), AUDIT_X86_64, number, &[0; 6]);
    let admin = 1 << 21;
    assert_eq!((answer(admin, mount), answer(admin, clone3)), (ALLOW, ALLOW));
    assert_eq!((answer(0, chroot), answer(1 << 18, chroot)), (EPERM, ALLOW));
}

#[test]
fn arguments_decide_where_the_profile_says_so() {
    let program = default_program(Capabilities::docker());
    let call = |audit, name: &str, first: u64| {
        let arch = if audit == AUDIT_I386 { Architecture::I386 } else { Architecture::X86_64 };
        run(&program, audit, arch.number(name).unwrap(), &[first, 0, 0, 0, 0, 0])
    };
    assert_eq!(call(AUDIT_X86_64, "clone", 0x11), ALLOW);
    assert_eq!(call(AUDIT_X86_64, "clone", 0x1000_0011), EPERM, "a new user namespace");
    assert_eq!(call(AUDIT_I386, "clone", 0x1000_0011), EPERM);
    assert_eq!(call(AUDIT_X86_64, "personality", 0), ALLOW);
    assert_eq!(call(AUDIT_X86_64, "personality", 0xffff_ffff), ALLOW);
    assert_eq!(call(AUDIT_X86_64, "personality", 0x0020_0000), EPERM);
    assert_eq!(call(AUDIT_X86_64, "personality", 0x1_0000_0008), EPERM, "the upper half counts");
    assert_eq!(call(AUDIT_I386, "personality", 0x1_0000_0008), ALLOW, "i386 has no upper half");
}

#[test]
fn every_comparison_is_exact_on_64_bits() {
    let values = [0, 1, 5, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, 0x5_0000_0001, u64::MAX];
    for k in values {
        for (name, truth) in [
            ("EQ", (|a, k| a == k) as fn(u64, u64) -> bool),
            ("NE", |a, k| a != k),
            ("LT", |a, k| a < k),
            ("LE", |a, k| a <= k),
            ("GT", |a, k| a > k),
            ("GE", |a, k| a >= k),
        ] {
            let json = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW",
                "args":[{{"index":2,"value":{k},"op":"SCMP_CMP_{name}"}}]}}]}}"#
            );
            let program = compile(&Profile::parse(&json).unwrap(), &around(Capabilities(0))).unwrap();
            for a in values {
                let expected = if truth(a, k) { ALLOW } else { EPERM };
                assert_eq!(run(&program, AUDIT_X86_64, 0, &[9, 9, a]), expected, "{a:#x} {name} {k:#x}");
            }
        }
    }
}

#[test]
fn conditions_of_one_rule_must_all_hold_and_rules_are_tried_in_turn() {
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":5,"args":[
            {"index":0,"value":7,"op":"SCMP_CMP_EQ"},
            {"index":1,"value":65280,"valueTwo":4608,"op":"SCMP_CMP_MASKED_EQ"}]},
        {"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":6,"args":[{"index":0,"value":8,"op":"SCMP_CMP_GE"}]},
        {"names":["write"],"action":"SCMP_ACT_KILL_PROCESS"},{"names":["open"],"action":"SCMP_ACT_TRAP"}]}"#;
    let program = compile(&Profile::parse(json).unwrap(), &around(Capabilities(0))).unwrap();
    let read = |a: u64, b: u64| run(&program, AUDIT_X86_64, 0, &[a, b]);
    assert_eq!(read(7, 0x1234), 0x0005_0005);
    assert_eq!(read(7, 0x1334), ALLOW);
    assert_eq!(read(9, 0x1234), 0x0005_0006);
    assert_eq!(run(&program, AUDIT_X86_64, 1, &[]), 0x8000_0000);
    assert_eq!(run(&program, AUDIT_X86_64, 2, &[]), 0x0003_0000);
    assert_eq!(run(&program, AUDIT_X86_64, 4000, &[]), ALLOW, "a default that allows has no newest call");
    assert_eq!(run(&program, AUDIT_I386, 3, &[]), 0, "a profile without i386 kills it, as libseccomp does");
}

#[test]
fn many_conditions_on_one_call_do_not_explode() {
    let rule = |n: u32| {
        format!(
            r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,"value":{n},"op":"SCMP_CMP_EQ"}}]}}"#
        )
    };
    let rules: Vec<_> = (0..200).map(|n| rule(2 * n)).collect();
    let json = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#, rules.join(","));
    let program = compile(&Profile::parse(&json).unwrap(), &around(Capabilities(0))).unwrap();
    assert_eq!(run(&program, AUDIT_X86_64, 0, &[398]), ALLOW);
    assert_eq!(run(&program, AUDIT_X86_64, 0, &[399]), EPERM);
    let rules: Vec<_> = (0..2000).map(rule).collect();
    let json = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#, rules.join(","));
    let refused = compile(&Profile::parse(&json).unwrap(), &around(Capabilities(0)));
    assert!(matches!(refused, Err(ProfileError::TooLong(_))));
}

#[test]
fn profiles_that_make_no_sense_are_refused_with_the_word_that_is_wrong() {
    let refused = |json: &str| {
        let parsed = Profile::parse(json).and_then(|p| compile(&p, &around(Capabilities(0))));
        parsed.unwrap_err().to_string()
    };
    assert!(refused("[]").contains("not a seccomp profile"));
    assert!(refused(r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#).contains("SCMP_ACT_MAYBE"));
    let rule = |rest: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["read"],{rest}}}]}}"#);
    assert!(refused(&rule(r#""action":"SCMP_ACT_NOTIFY""#)).contains("supervisor"));
    assert!(refused(&rule(r#""action":"SCMP_ACT_ERRNO","errno":"EWHAT""#)).contains("EWHAT"));
    assert!(refused(&rule(r#""action":"SCMP_ACT_ALLOW","includes":{"minKernel":"new"}"#)).contains("new"));
    let argument = r#""action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]"#;
    assert!(refused(&rule(argument)).contains("argument 6"));
}

#[test]
fn dockers_default_stays_small() {
    let program = default_program(Capabilities::docker());
    assert!(program.len() / 8 < 900, "{} instructions", program.len() / 8);
}
