//! What an engine says it is.
//!
//! In: the JSON of `/version`, `/info` and podman's `/libpod/info`. Out: facts. Pure. Words the engine does not say are left
//! out, never guessed; what it says about its runtime is what it would use, the probes prove which one it did.

use std::time::Duration;

use serde_json::Value;

use crate::engine::{Facts, libseccomp};

use super::quirks::Kind;

/// The facts of an engine; `asked` is the runtime the matrix chose, where it did.
pub(super) fn facts(kind: Kind, asked: Option<&str>, version: &Value, info: &Value, libpod: &Value) -> Facts {
    let mut facts = Facts::new();
    let mut add = |name: &str, value: &Value| {
        let text = match value {
            Value::String(text) => text.lines().next().unwrap_or_default().trim().to_owned(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => return,
        };
        if !text.is_empty() {
            facts.insert(name.to_owned(), text);
        }
    };
    add("engine.kind", &Value::from(kind.name()));
    add("engine.version", &version["Version"]);
    add("engine.api", &version["ApiVersion"]);
    add("engine.api.min", &version["MinAPIVersion"]);
    add("engine.commit", &version["GitCommit"]);
    add("engine.go", &version["GoVersion"]);
    add("engine.os", &version["Os"]);
    add("engine.arch", &version["Arch"]);
    add("engine.kernel", &version["KernelVersion"]);
    add("engine.distribution", &info["OperatingSystem"]);
    add("engine.storage", &info["Driver"]);
    add("engine.storage.backing", backing(info));
    add("engine.cgroup.driver", &info["CgroupDriver"]);
    add("engine.cgroup.version", &info["CgroupVersion"]);
    add("engine.runtime", &info["DefaultRuntime"]);
    add("engine.rootless", &Value::from(rootless(info, libpod)));
    add("engine.security", &Value::from(security(info, libpod)));
    for limit in ["MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota"] {
        add(&format!("engine.limit.{}", limit.to_ascii_lowercase()), &info[limit]);
    }
    for part in version["Components"].as_array().into_iter().flatten().take(16) {
        let Some(name) = part["Name"].as_str() else { continue };
        let (name, text) = component(name, part["Version"].as_str().unwrap_or_default());
        add(&format!("engine.component.{name}"), &Value::from(text));
    }
    let mut runtimes: Vec<_> =
        info["Runtimes"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    // The engine lists them in any order.
    runtimes.sort_unstable();
    if kind.runtime_per_container() {
        add("engine.runtimes", &Value::from(runtimes.join(" ")));
    }
    // Podman's `/info` lists what could be configured; only this one is there.
    add("engine.runtime", &libpod["host"]["ociRuntime"]["name"]);
    // What is in force for this engine's cells, not what others would get.
    add("engine.runtime", &Value::from(asked));
    add("engine.network", &libpod["host"]["networkBackend"]);
    add("engine.seccomp.profile", &libpod["host"]["security"]["seccompProfilePath"]);
    let said = libpod["host"]["ociRuntime"]["version"].as_str().unwrap_or_default();
    if let Some(version) = libseccomp(said) {
        facts.insert("engine.libseccomp".to_owned(), version);
    }
    let runtime = facts.get("engine.runtime").cloned().unwrap_or_default();
    if let Some(version) = facts.get(&format!("engine.component.{runtime}")).cloned() {
        facts.insert("engine.runtime.version".to_owned(), version);
    }
    facts
}

/// What the runtime in force says of itself, where it is a program of this machine: a socket may lead to another.
pub(super) async fn ask_runtime(facts: &Facts, info: &Value) -> Option<Facts> {
    let here = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    let same = |key: &str, path: &str| info[key].as_str().is_some_and(|told| here(path).as_deref() == Some(told));
    if !same("Name", "/proc/sys/kernel/hostname") || !same("KernelVersion", "/proc/sys/kernel/osrelease") {
        return None;
    }
    let program = info["Runtimes"][facts.get("engine.runtime")?.as_str()]["path"].as_str()?;
    let asked = tokio::process::Command::new(program).arg("--version").kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(5), asked).await.ok()?.ok()?;
    let version = libseccomp(&String::from_utf8_lossy(&output.stdout))?;
    Some(Facts::from([("engine.libseccomp".to_owned(), version)]))
}

/// Whether the engine runs as an ordinary user. Podman 4.3's docker-compatible `/info` has no flag for it.
pub(super) fn rootless(info: &Value, libpod: &Value) -> bool {
    libpod["host"]["security"]["rootless"].as_bool() == Some(true)
        || info["Rootless"].as_bool() == Some(true)
        || options(info).any(|o| o == "name=rootless")
}

/// Whether the engine enforces SELinux, under which a bind mount without a label cannot be read.
pub(super) fn selinux(info: &Value, libpod: &Value) -> bool {
    libpod["host"]["security"]["selinuxEnabled"].as_bool() == Some(true) || options(info).any(|o| o == "name=selinux")
}

/// The file system that the storage driver keeps its layers on, where the engine says: `extfs`, `tmpfs`.
fn backing(info: &Value) -> &Value {
    let mut status = info["DriverStatus"].as_array().into_iter().flatten();
    status.find(|pair| pair[0] == "Backing Filesystem").map_or(&Value::Null, |pair| &pair[1])
}

/// Whether the engine confines by AppArmor.
pub(super) fn apparmor(info: &Value, libpod: &Value) -> bool {
    libpod["host"]["security"]["apparmorEnabled"].as_bool() == Some(true) || options(info).any(|o| o == "name=apparmor")
}

fn options(info: &Value) -> impl Iterator<Item = &str> {
    info["SecurityOptions"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn security(info: &Value, libpod: &Value) -> String {
    let mut list: Vec<String> =
        options(info).map(|o| o.trim_start_matches("name=").replace(",profile=", "=")).collect();
    for (name, on) in [("selinux", selinux(info, libpod)), ("apparmor", apparmor(info, libpod))] {
        if on && !list.iter().any(|o| o.starts_with(name)) {
            list.push(name.to_owned());
        }
    }
    list.sort();
    list.join(" ")
}

/// `OCI Runtime (crun)`, `crun version 1.8.1\ncommit…` → `crun`, `1.8.1`; `Conmon`, `conmon version 2.1.6, commit: unknown` →
/// `conmon`, `2.1.6`.
fn component(name: &str, version: &str) -> (String, String) {
    let name = name.strip_prefix("OCI Runtime (").and_then(|n| n.strip_suffix(')')).unwrap_or(name);
    let name: String =
        name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect();
    let line = version.lines().next().unwrap_or_default();
    let text = match line.split_once(" version ") {
        Some((_, rest)) => rest.split([',', ' ']).next().unwrap_or(rest),
        None => line,
    };
    (name, text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn docker_says_its_version_runtime_and_security() {
        let version = json!({"Version": "20.10.24+dfsg1", "ApiVersion": "1.41", "Arch": "amd64", "KernelVersion": "6.1",
            "Components": [{"Name": "Engine", "Version": "20.10.24"}, {"Name": "runc", "Version": "1.1.5+ds1"}]});
        let info = json!({"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]],
            "CgroupDriver": "systemd", "CgroupVersion": "2", "DefaultRuntime": "runc", "Runtimes": {"runc": {}, "crun": {}}, "MemoryLimit": true,
            "SecurityOptions": ["name=seccomp,profile=default", "name=apparmor", "name=rootless"]});
        let facts = facts(Kind::Docker, None, &version, &info, &Value::Null);
        for (name, value) in [
            ("engine.kind", "docker"),
            ("engine.version", "20.10.24+dfsg1"),
            ("engine.runtime", "runc"),
            ("engine.runtime.version", "1.1.5+ds1"),
            ("engine.runtimes", "crun runc"),
            ("engine.security", "apparmor rootless seccomp=default"),
            ("engine.rootless", "true"),
            ("engine.cgroup.version", "2"),
            ("engine.storage", "overlay2"),
            ("engine.storage.backing", "extfs"),
            ("engine.limit.memorylimit", "true"),
        ] {
            assert_eq!(facts.get(name).map(String::as_str), Some(value), "{name}: {facts:#?}");
        }
    }

    #[test]
    fn the_runtime_is_the_one_in_force_and_has_no_version_of_another() {
        let version = json!({"Components": [{"Name": "runc", "Version": "1.1.5"}]});
        let info = json!({"DefaultRuntime": "runc", "Runtimes": {"runc": {}, "crun": {}}});
        let facts = facts(Kind::Docker, Some("crun"), &version, &info, &Value::Null);
        assert_eq!(facts["engine.runtime"], "crun");
        assert!(!facts.contains_key("engine.runtime.version"), "{facts:#?}");
    }

    #[test]
    fn podman_says_the_runtime_it_has_and_not_those_it_could_have() {
        let version = json!({"Version": "4.3.1", "Components": [
            {"Name": "Conmon", "Version": "conmon version 2.1.6, commit: unknown"},
            {"Name": "OCI Runtime (crun)", "Version": "crun version 1.8.1\ncommit: f8a0\nspec: 1.0.0"}]});
        let info = json!({"DefaultRuntime": "crun", "Runtimes": {"kata": {}, "crun": {}}, "Rootless": false});
        let libpod = json!({"host": {"ociRuntime": {"name": "crun", "version": "x 1\nlibseccomp: 2.5.4"}, "security": {"rootless": true, "selinuxEnabled": true}}});
        let facts = facts(Kind::Podman, None, &version, &info, &libpod);
        assert_eq!(facts["engine.runtime"], "crun");
        assert_eq!(facts["engine.runtime.version"], "1.8.1");
        assert_eq!(facts["engine.component.conmon"], "2.1.6");
        assert_eq!(facts["engine.libseccomp"], "2.5.4");
        assert_eq!(facts["engine.rootless"], "true");
        assert_eq!(facts["engine.security"], "selinux");
        assert!(!facts.contains_key("engine.runtimes"));
    }

    #[test]
    fn an_engine_that_says_nothing_has_no_facts_made_up_for_it() {
        let facts = facts(Kind::Docker, None, &Value::Null, &Value::Null, &Value::Null);
        assert_eq!(facts.keys().collect::<Vec<_>>(), ["engine.kind", "engine.rootless"]);
    }
}
