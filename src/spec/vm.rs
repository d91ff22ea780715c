//! `vm = { … }` of a host: a virtual machine that abicus starts itself. In: the table. Out: a [`VmSpec`]. Pure.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::World;
use super::error::{Errors, did_you_mean};
use super::resolve::{duration, existing, size};

/// A virtual machine as declared, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VmSpec {
    /// What it boots.
    pub kernel: Kernel,
    /// The disk with engines on it; without one, the guest has only what abicus brings.
    pub disk: Option<DiskRecipe>,
    /// QEMU's name of the processor model, with features added and removed: `Haswell,-avx2`.
    pub cpu: String,
    /// Virtual processors, one unless said.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Added to the kernel's command line.
    pub cmdline: String,
    /// Which control groups the guest mounts.
    pub cgroup: Cgroup,
    /// By which kind of device the guest gets its disks.
    pub storage: Storage,
    /// How long it may take to boot.
    pub deadline: Duration,
}

/// A kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Kernel {
    /// A file that a boot loader would load: `bzImage`, `vmlinuz`.
    File {
        /// The file.
        path: PathBuf,
        /// A directory of its modules (`/lib/modules/RELEASE`), where it needs any.
        modules: Option<PathBuf>,
    },
    /// Of a distribution's package.
    Package(KernelPackage),
}

/// The package of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelPackage {
    /// The suite: `bookworm`.
    pub suite: String,
    /// The package that depends on the newest kernel of its kind; default: Debian's for virtual machines.
    #[serde(default = "cloud_kernel")]
    pub package: String,
}

impl KernelPackage {
    /// Debian's kernel for virtual machines, of this suite.
    pub fn of(suite: &str) -> Self {
        Self { suite: suite.to_owned(), package: cloud_kernel() }
    }
}

fn cloud_kernel() -> String {
    match std::env::consts::ARCH {
        "aarch64" => "linux-image-cloud-arm64",
        _ => "linux-image-cloud-amd64",
    }
    .to_owned()
}

/// A disk with engines, made from a distribution's packages.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskRecipe {
    /// The suite: `bookworm`.
    pub suite: String,
    /// Packages beside docker, podman, crun and runc.
    #[serde(default)]
    pub include: Vec<String>,
}

/// Which control groups a guest mounts, as systemd tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cgroup {
    /// Version 1 only.
    V1,
    /// Version 2 only.
    #[default]
    V2,
    /// Controllers in version 1, version 2 without any beside it.
    Hybrid,
}

/// A kind of block device, which the kernel needs a built-in driver for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Storage {
    /// What Debian's kernels for virtual machines have built in.
    #[default]
    Nvme,
    /// What kernels that were configured for virtual machines by hand have built in.
    Virtio,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VmTable {
    pub kernel: Option<Spanned<KernelText>>,
    pub modules: Option<Spanned<String>>,
    pub disk: Option<Spanned<DiskRecipe>>,
    pub cpu: Option<Spanned<String>>,
    pub cpus: Option<Spanned<u32>>,
    pub memory: Option<Spanned<String>>,
    pub cmdline: Option<Spanned<String>>,
    #[serde(default)]
    pub cgroup: Cgroup,
    #[serde(default)]
    pub storage: Storage,
    pub deadline: Option<Spanned<String>>,
}

/// `"path"` or `{ suite = "…" }`.
pub(super) enum KernelText {
    Path(String),
    Package(KernelPackage),
}

impl<'de> Deserialize<'de> for KernelText {
    // An untagged enum would refuse an unknown key without naming it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = KernelText;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the path of a kernel, or { suite = \"…\" }")
            }
            fn visit_str<E>(self, text: &str) -> Result<KernelText, E> {
                Ok(KernelText::Path(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<KernelText, A::Error> {
                KernelPackage::deserialize(MapAccessDeserializer::new(map)).map(KernelText::Package)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What QEMU can be given, and a run of many guests can bear.
const MEMORY: std::ops::RangeInclusive<usize> = 64 << 20..=1 << 40;
const CPUS: std::ops::RangeInclusive<u32> = 1..=64;
/// A busy machine without KVM takes a minute for a large guest.
const DEADLINE: Duration = Duration::from_secs(180);
/// What the kernel takes: COMMAND_LINE_SIZE of x86, less what abicus adds.
const MOST_CMDLINE: usize = 1500;

/// Checks a table and fills in what it leaves out.
pub(super) fn vm(table: Spanned<VmTable>, world: &World<'_>, errors: &mut Errors<'_>) -> Option<VmSpec> {
    let span = table.span();
    let table = table.into_inner();
    if let Some(disk) = &table.disk {
        for name in std::iter::once(&disk.get_ref().suite).chain(&disk.get_ref().include) {
            name_of_distribution(name, disk.span(), errors);
        }
    }
    let modules = table.modules.as_ref().map(|text| existing(text, world, errors));
    let kernel = match (table.kernel, &table.disk) {
        (Some(kernel), _) => {
            let span = kernel.span();
            match kernel.into_inner() {
                KernelText::Path(path) => {
                    Kernel::File { path: existing(&Spanned::new(span, path), world, errors), modules: modules.clone() }
                }
                KernelText::Package(package) => {
                    name_of_distribution(&package.suite, span.clone(), errors);
                    name_of_distribution(&package.package, span, errors);
                    Kernel::Package(package)
                }
            }
        }
        // A disk brings the kernel of its own suite.
        (None, Some(disk)) => Kernel::Package(KernelPackage::of(&disk.get_ref().suite)),
        (None, None) => {
            let help = "give `kernel = \"path/of/vmlinuz\"` or `kernel = { suite = \"bookworm\" }`";
            errors.add(span, "a `vm` without a kernel", Some(help.into()));
            return None;
        }
    };
    if let (Some(modules), Kernel::Package(_)) = (&table.modules, &kernel) {
        errors.add(modules.span(), "`modules` belong to a kernel given as a file; a package brings its own", None);
    }
    let with_engines = table.disk.is_some();
    Some(VmSpec {
        kernel,
        disk: table.disk.map(Spanned::into_inner),
        cpu: cpu(table.cpu, errors),
        cpus: cpus(table.cpus, errors),
        memory: memory(table.memory, with_engines, errors),
        cmdline: cmdline(table.cmdline, errors),
        cgroup: table.cgroup,
        storage: table.storage,
        deadline: table.deadline.map_or(DEADLINE, |text| deadline(&text, errors)),
    })
}

fn deadline(text: &Spanned<String>, errors: &mut Errors<'_>) -> Duration {
    duration(text.get_ref()).unwrap_or_else(|| {
        let help = "write `60s` or `5m`, at most a day";
        errors.add(text.span(), format!("`{}` is not a duration", text.get_ref()), Some(help.into()));
        DEADLINE
    })
}

/// Names of suites and packages become arguments of other programs.
fn name_of_distribution(name: &str, span: std::ops::Range<usize>, errors: &mut Errors<'_>) {
    let plain = name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !plain {
        errors.add(span, format!("`{name}` is not the name of a suite or package"), None);
    }
}

fn cpu(text: Option<Spanned<String>>, errors: &mut Errors<'_>) -> String {
    let Some(text) = text else { return "max".to_owned() };
    if text.get_ref().is_empty() || !text.get_ref().chars().all(|c| c.is_ascii_alphanumeric() || "-+_.,=".contains(c)) {
        let message = format!("`{}` is not a processor model of QEMU", text.get_ref());
        let near = did_you_mean(text.get_ref(), ["qemu64", "Nehalem", "Haswell", "max"].into_iter());
        errors.add(text.span(), message, near.or_else(|| Some("`qemu-system-x86_64 -cpu help` lists them".into())));
    }
    text.into_inner()
}

fn cpus(number: Option<Spanned<u32>>, errors: &mut Errors<'_>) -> u32 {
    let Some(number) = number else { return 1 };
    if !CPUS.contains(number.get_ref()) {
        errors.add(number.span(), format!("`cpus` is from {} to {}", CPUS.start(), CPUS.end()), None);
    }
    number.into_inner()
}

fn memory(text: Option<Spanned<String>>, with_engines: bool, errors: &mut Errors<'_>) -> u64 {
    let Some(text) = text else { return if with_engines { 1536 << 20 } else { 512 << 20 } };
    let Some(bytes) = size(text.get_ref(), MEMORY) else {
        let help = "write `512MiB` or `2GiB`, from 64MiB to 1024GiB";
        errors.add(text.span(), format!("`{}` is not a size of memory", text.get_ref()), Some(help.into()));
        return 0;
    };
    bytes as u64
}

fn cmdline(text: Option<Spanned<String>>, errors: &mut Errors<'_>) -> String {
    let Some(text) = text else { return String::new() };
    let words: Vec<&str> = text.get_ref().split_whitespace().collect();
    if text.get_ref().chars().any(|c| c.is_control()) || text.get_ref().len() > MOST_CMDLINE {
        let message = format!("a `cmdline` is one line of at most {MOST_CMDLINE} characters");
        errors.add(text.span(), message, None);
    } else if words.contains(&"--") {
        errors.add(text.span(), "what follows `--` on a kernel's command line is for init, which is abicus' own", None);
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{HostKind, resolve};

    fn host(vm: &str) -> Result<VmSpec, String> {
        let text =
            format!("engine = [{{ name = 'native', kind = 'native' }}]\n[[host]]\nname = 'v'\nvm = {{ {vm} }}\n");
        let world = World { base: "/m".into(), exists: &|path| path.ends_with("there") };
        let matrix = resolve(&text, "m.toml", &world).map_err(|e| e.to_string())?;
        match matrix.hosts.into_iter().next().map(|host| host.kind) {
            Some(HostKind::Vm(vm)) => Ok(*vm),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_kernel_is_all_that_is_needed() {
        let vm = host("kernel = 'there'").unwrap();
        assert_eq!(vm.kernel, Kernel::File { path: "/m/there".into(), modules: None });
        assert_eq!((vm.cpu.as_str(), vm.cpus, vm.memory), ("max", 1, 512 << 20));
        let package = host("kernel = { suite = 'bookworm' }, cpu = 'Haswell,-avx2', memory = '2GiB'").unwrap();
        assert_eq!(package.kernel, Kernel::Package(KernelPackage::of("bookworm")));
        assert_eq!((package.cpu.as_str(), package.memory), ("Haswell,-avx2", 2 << 30));
    }

    #[test]
    fn a_disk_brings_the_kernel_of_its_suite_and_room_for_engines() {
        let vm = host("disk = { suite = 'trixie' }, cgroup = 'hybrid'").unwrap();
        assert_eq!(vm.kernel, Kernel::Package(KernelPackage::of("trixie")));
        assert_eq!((vm.cpus, vm.memory, vm.cgroup), (1, 1536 << 20, Cgroup::Hybrid));
    }

    #[test]
    fn three_lines_are_a_whole_matrix() {
        let text = "[[host]]\nname = 'mine'\nvm = { kernel = 'there' }\n";
        let world = World { base: "/m".into(), exists: &|path| path.ends_with("there") };
        let matrix = resolve(text, "m.toml", &world).unwrap();
        let cells: Vec<String> = crate::spec::all_cells(&matrix).map(|cell| cell.to_string()).collect();
        assert_eq!(cells, ["mine:native:-"]);
        let with_image = format!("{text}[[image]]\nname = 'i'\nscratch = true\n");
        assert!(resolve(&with_image, "m.toml", &world).unwrap_err().to_string().contains("no [[engine]]"));
    }

    #[test]
    fn every_mistake_is_named() {
        for (vm, wrong, right) in [
            ("", "a `vm` without a kernel", "kernel = { suite"),
            ("kernel = 'gone'", "`/m/gone` does not exist", ""),
            ("kernel = 3", "expected the path of a kernel, or {", ""),
            ("kernel = { siute = 'x' }", "unknown field `siute`", "did you mean `suite`?"),
            ("kernel = { suite = '-x' }", "`-x` is not the name of a suite", ""),
            ("disk = { suite = 'a', include = ['a b'] }", "`a b` is not the name of a suite or package", ""),
            ("kernel = { suite = 'a' }, modules = 'there'", "`modules` belong to a kernel given as a file", ""),
            ("kernel = 'there', cpu = 'Hasswell '", "not a processor model", "did you mean `Haswell`?"),
            ("kernel = 'there', cpus = 0", "`cpus` is from 1 to 64", ""),
            ("kernel = 'there', memory = '4KiB'", "`4KiB` is not a size of memory", "512MiB"),
            ("kernel = 'there', cmdline = 'quiet -- x'", "abicus' own", ""),
            ("kernel = 'there', deadline = '9'", "`9` is not a duration", "60s"),
            ("kernel = 'there', cgroup = 'v3'", "unknown variant `v3`", ""),
            ("kernel = 'there', kernal = 1", "unknown field `kernal`", "did you mean `kernel`?"),
        ] {
            let said = host(vm).expect_err(vm);
            assert!(said.contains(wrong) && said.contains(right) && said.starts_with("m.toml:4:"), "{vm}: {said}");
        }
    }
}
