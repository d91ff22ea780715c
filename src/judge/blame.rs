//! Which layer a failure belongs to, by what its control cells answered to the same check. The truth table of the design,
//! spelled out for every combination: a missing control narrows what may be claimed, never what is guessed.

use serde::{Deserialize, Serialize};

/// Who can fix it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// The kernel, its configuration, a module, a sysctl, the hardware or hypervisor.
    Host,
    /// The engine: its seccomp profile, capabilities, LSM profile, masks, devices, limits, runtime.
    Engine,
    /// Running in a container at all: engines of every kind fail alike and the bare host does not.
    Sandboxing,
    /// The image: its libc, a library, a file, the CPU level it was built for.
    Image,
    /// This image under this engine: each is fine with others.
    EngineImage,
}

impl Layer {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Engine => "engine",
            Self::Sandboxing => "sandboxing",
            Self::Image => "image",
            Self::EngineImage => "engine × image",
        }
    }
}

/// What a control cell answered to the check that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It fails there too.
    Fails,
    /// It passes there.
    Passes,
    /// The control did not run, or could not be asked this.
    Unknown,
}

/// The controls of one failing check of one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Controls {
    /// No engine, no image: the bare host.
    pub native: Answer,
    /// This engine with the empty image.
    pub scratch: Answer,
    /// This image without any engine's policy.
    pub no_policy: Answer,
}

/// The layers that are left when the controls have spoken; one is a proof, several are named together.
pub fn layers(controls: Controls) -> &'static [Layer] {
    use Answer::{Fails as F, Passes as P, Unknown as U};
    use Layer::{Engine, EngineImage, Host, Image, Sandboxing};
    match (controls.native, controls.scratch, controls.no_policy) {
        // The empty image passes under this engine on this host: neither of them alone is at fault.
        (F, P, F) | (P, P, F) | (U, P, F) => &[Image],
        (F, P, P) | (P, P, P) | (U, P, P) => &[EngineImage],
        (F, P, U) | (P, P, U) | (U, P, U) => &[Image, EngineImage],
        // The empty image fails too: the image is not at fault.
        (F, F, F) | (F, F, U) => &[Host],
        (F, F, P) | (P, F, P) | (P, F, U) | (U, F, P) => &[Engine],
        (P, F, F) => &[Sandboxing],
        (U, F, F) => &[Host, Sandboxing],
        (U, F, U) => &[Host, Engine],
        // The empty image cannot be asked this.
        (F, U, F) | (F, U, U) => &[Host],
        (F, U, P) | (P, U, P) | (U, U, P) => &[Engine, EngineImage],
        (P, U, F) => &[Image],
        (P, U, U) => &[Engine, Image, EngineImage],
        (U, U, F) => &[Host, Image],
        (U, U, U) => &[Host, Engine, Image, EngineImage],
    }
}

/// The controls that would have to run for a firmer claim, by name.
pub fn missing(controls: Controls) -> Vec<&'static str> {
    let unknown = |answer: Answer| answer == Answer::Unknown;
    [(controls.native, "native"), (controls.scratch, "scratch image"), (controls.no_policy, "no engine policy")]
        .into_iter()
        .filter_map(|(answer, name)| unknown(answer).then_some(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Answer::{Fails as F, Passes as P, Unknown as U};
    use super::*;

    fn claim(native: Answer, scratch: Answer, no_policy: Answer) -> &'static [Layer] {
        layers(Controls { native, scratch, no_policy })
    }

    #[test]
    fn the_four_rows_of_the_design_are_proofs() {
        assert_eq!(claim(F, F, F), [Layer::Host]);
        assert_eq!(claim(P, F, P), [Layer::Engine]);
        assert_eq!(claim(P, P, F), [Layer::Image]);
        assert_eq!(claim(P, P, P), [Layer::EngineImage]);
    }

    /// Every combination of what native, empty image and no policy can answer.
    #[test]
    fn the_truth_table_of_layers() {
        use Layer::{Engine, EngineImage, Host, Image, Sandboxing};
        let table: [(Answer, Answer, Answer, &[Layer]); 27] = [
            (F, F, F, &[Host]),
            (F, F, P, &[Engine]),
            (F, F, U, &[Host]),
            (F, P, F, &[Image]),
            (F, P, P, &[EngineImage]),
            (F, P, U, &[Image, EngineImage]),
            (F, U, F, &[Host]),
            (F, U, P, &[Engine, EngineImage]),
            (F, U, U, &[Host]),
            (P, F, F, &[Sandboxing]),
            (P, F, P, &[Engine]),
            (P, F, U, &[Engine]),
            (P, P, F, &[Image]),
            (P, P, P, &[EngineImage]),
            (P, P, U, &[Image, EngineImage]),
            (P, U, F, &[Image]),
            (P, U, P, &[Engine, EngineImage]),
            (P, U, U, &[Engine, Image, EngineImage]),
            (U, F, F, &[Host, Sandboxing]),
            (U, F, P, &[Engine]),
            (U, F, U, &[Host, Engine]),
            (U, P, F, &[Image]),
            (U, P, P, &[EngineImage]),
            (U, P, U, &[Image, EngineImage]),
            (U, U, F, &[Host, Image]),
            (U, U, P, &[Engine, EngineImage]),
            (U, U, U, &[Host, Engine, Image, EngineImage]),
        ];
        for (native, scratch, no_policy, expected) in table {
            assert_eq!(claim(native, scratch, no_policy), expected, "{native:?} {scratch:?} {no_policy:?}");
        }
        let different: std::collections::HashSet<_> = table.iter().map(|(a, b, c, _)| (a, b, c)).collect();
        assert_eq!(different.len(), table.len(), "a combination is there twice, so another is missing");
    }

    #[test]
    fn a_missing_control_never_makes_a_claim_firmer() {
        for native in [F, P] {
            for scratch in [F, P] {
                for no_policy in [F, P] {
                    let proof = claim(native, scratch, no_policy);
                    assert_eq!(proof.len(), 1);
                    let weaker = [
                        claim(U, scratch, no_policy),
                        claim(native, U, no_policy),
                        claim(U, U, no_policy),
                        claim(U, U, U),
                    ];
                    for weak in weaker {
                        let odd = native == F && scratch == P || native == F && scratch == F && no_policy == P;
                        let fine = proof[0] == Layer::Sandboxing || odd || weak.contains(&proof[0]);
                        assert!(fine, "{native:?} {scratch:?} {no_policy:?}: {proof:?} is not among {weak:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_did_not_run_is_named() {
        let controls = Controls { native: P, scratch: U, no_policy: U };
        assert_eq!(missing(controls), ["scratch image", "no engine policy"]);
    }
}
