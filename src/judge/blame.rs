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
    /// This image on this kind of host: each is fine with others.
    HostImage,
    /// This engine on this kind of host: each is fine with others.
    HostEngine,
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
            Self::HostImage => "host × image",
            Self::HostEngine => "host × engine",
        }
    }

    /// Whether what explains a failure of `part` may explain one of this layer. What a pair with a host fails by is in either of
    /// its parts. A pair of engine and image is named by itself: much that is wrong with an image is not by an engine.
    pub fn concerns(self, part: Self) -> bool {
        match self {
            Self::HostImage => matches!(part, Self::HostImage | Self::Host | Self::Image),
            Self::HostEngine => matches!(part, Self::HostEngine | Self::Host | Self::Engine),
            Self::Host | Self::Engine | Self::Sandboxing | Self::Image | Self::EngineImage => part == self,
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

/// How cells do that differ from the failing one in one layer and are no controls of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Others {
    /// None was asked this, or too few to say anything.
    Silent,
    /// It passes in at least one.
    Pass,
    /// It fails in several, and passes in none.
    AllFail,
}

/// What is seen around a failing cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Around {
    /// Other images under this engine on this host.
    pub images: Others,
    /// Other images on this host, under whatever engine. The host's own C library is one of them where it fails: where it
    /// passes, that it is not contained may be why.
    pub images_here: Others,
    /// It passes in this image under another engine that was asked for, on this host.
    pub engine_passes: bool,
    /// It passes in this image under this engine on a host of another class.
    pub host_passes: bool,
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
        // The empty image cannot be asked this. Natively the host's own C library answers, which is another image: that both
        // fail may be the host's doing, or what both lack; that only the image fails may be its own doing, or containment's.
        (F, U, F) | (F, U, U) => &[Host, Image],
        (F, U, P) | (P, U, P) | (U, U, P) => &[Engine, EngineImage],
        (P, U, F) => &[Sandboxing, Image],
        (P, U, U) => &[Engine, Image, EngineImage],
        (U, U, F) => &[Host, Sandboxing, Image],
        (U, U, U) => &[Host, Engine, Image, EngineImage],
    }
}

/// The layers that are left when the cells around have spoken too.
pub fn narrowed(controls: Controls, around: Around) -> Vec<Layer> {
    use Layer::{Engine, EngineImage, Host, HostEngine, HostImage, Image, Sandboxing};
    let Controls { native, scratch, no_policy } = controls;
    let mut left = stood_in(controls, around);
    // The same image passes under another engine on the same host: it is not at fault by itself, nor is being contained.
    // (The control without policy is the built-in engine, so it cannot tell that engine's own doings from the image's.)
    if around.engine_passes && left.iter().any(|layer| matches!(layer, Image | Sandboxing)) {
        left.retain(|layer| !matches!(layer, Image | Sandboxing));
        if left.is_empty() || left == [Host] && native == Answer::Unknown {
            left.extend_from_slice(match (scratch, around.images) {
                (Answer::Fails, Others::Silent | Others::Pass | Others::AllFail)
                | (Answer::Passes | Answer::Unknown, Others::AllFail) => &[Engine],
                (Answer::Passes, Others::Silent | Others::Pass) | (Answer::Unknown, Others::Pass) => &[EngineImage],
                (Answer::Unknown, Others::Silent) => &[Engine, EngineImage],
            });
        }
    }
    if !around.host_passes {
        return left;
    }
    // Nothing of it is at fault alone that is fine elsewhere: together with this host it is, or the host is.
    let says = |others| around.images == others || around.images_here == others;
    let image_passes = scratch == Answer::Passes || says(Others::Pass);
    let engine_passes = around.engine_passes || no_policy == Answer::Passes || native == Answer::Passes;
    if image_passes && left.contains(&Image) {
        left.retain(|layer| *layer != Host);
    } else if says(Others::AllFail) && left.len() > 1 {
        left.retain(|layer| *layer != Image);
    }
    let paired = |layer: Layer| match layer {
        Image => HostImage,
        // Contained or not is no more than a guess where it does not pass on this host in any way.
        Sandboxing if !engine_passes => Host,
        Engine | Sandboxing => HostEngine,
        Host | EngineImage | HostImage | HostEngine => layer,
    };
    let mut left: Vec<Layer> = left.into_iter().map(paired).collect();
    left.dedup();
    left
}

/// Other images stand in for the empty one where that cannot be asked: it has no C library.
fn stood_in(controls: Controls, around: Around) -> Vec<Layer> {
    use Answer::{Fails, Passes, Unknown};
    let Controls { native, scratch, no_policy } = controls;
    let others = match (around.images, no_policy, around.images_here) {
        // An image that fails without any policy too fails by no engine, so images under others stand in as well.
        (Others::Silent | Others::AllFail, Fails, here) => here,
        // The host's own C library fails, and another on this host does not.
        (Others::Silent, Unknown, Others::Pass) if native == Fails => Others::Pass,
        (under, Fails | Passes | Unknown, Others::Silent | Others::Pass | Others::AllFail) => under,
    };
    let with = |scratch| layers(Controls { scratch, ..controls }).to_vec();
    match (scratch, others) {
        (Fails | Passes, Others::Silent | Others::Pass | Others::AllFail) | (Unknown, Others::Silent) => with(scratch),
        (Unknown, Others::Pass) => with(Passes),
        // Several images that all fail prove something only where another experiment says that it is not what they all lack.
        (Unknown, Others::AllFail) if native == Fails || no_policy == Passes => with(Fails),
        (Unknown, Others::AllFail) => with(Unknown).into_iter().filter(|layer| *layer != Layer::EngineImage).collect(),
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
            (F, U, F, &[Host, Image]),
            (F, U, P, &[Engine, EngineImage]),
            (F, U, U, &[Host, Image]),
            (P, F, F, &[Sandboxing]),
            (P, F, P, &[Engine]),
            (P, F, U, &[Engine]),
            (P, P, F, &[Image]),
            (P, P, P, &[EngineImage]),
            (P, P, U, &[Image, EngineImage]),
            (P, U, F, &[Sandboxing, Image]),
            (P, U, P, &[Engine, EngineImage]),
            (P, U, U, &[Engine, Image, EngineImage]),
            (U, F, F, &[Host, Sandboxing]),
            (U, F, P, &[Engine]),
            (U, F, U, &[Host, Engine]),
            (U, P, F, &[Image]),
            (U, P, P, &[EngineImage]),
            (U, P, U, &[Image, EngineImage]),
            (U, U, F, &[Host, Sandboxing, Image]),
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

    const SILENT: Around =
        Around { images: Others::Silent, images_here: Others::Silent, engine_passes: false, host_passes: false };

    fn narrow(native: Answer, scratch: Answer, no_policy: Answer, around: Around) -> Vec<Layer> {
        narrowed(Controls { native, scratch, no_policy }, around)
    }

    /// What cells around may add, in every combination of controls: 27 × 36.
    #[test]
    fn cells_around_narrow_a_claim_and_never_leave_none() {
        let answers = [F, P, U];
        let others = [Others::Silent, Others::Pass, Others::AllFail];
        let mut seen = std::collections::BTreeSet::new();
        for (native, scratch, no_policy) in
            answers.into_iter().flat_map(|n| answers.into_iter().flat_map(move |s| answers.map(|p| (n, s, p))))
        {
            for (images, images_here) in others.into_iter().flat_map(|a| others.map(|b| (a, b))) {
                for (engine_passes, host_passes) in [(false, false), (false, true), (true, false), (true, true)] {
                    let around = Around { images, images_here, engine_passes, host_passes };
                    let left = narrow(native, scratch, no_policy, around);
                    let told = format!("{native:?} {scratch:?} {no_policy:?} {around:?}: {left:?}");
                    assert!(!left.is_empty(), "{told}");
                    let has = |layer| left.contains(&layer);
                    // A pair with the host is an experiment: fine on another host, and another is fine here. Where nothing
                    // else was asked here, the host alone is left beside it.
                    let image_passes = scratch == P || images == Others::Pass || images_here == Others::Pass;
                    let images_fail = images == Others::AllFail || images_here == Others::AllFail;
                    let engine_fine = engine_passes || no_policy == P || native == P;
                    assert!(!has(Layer::HostImage) || host_passes && (image_passes || !images_fail), "{told}");
                    let spared = engine_fine || image_passes || has(Layer::Host);
                    assert!(!has(Layer::HostEngine) || host_passes && spared, "{told}");
                    assert!(!(has(Layer::Image) && engine_passes), "it passes in this image here. {told}");
                    let alone = [Layer::Image, Layer::Engine, Layer::Sandboxing].into_iter().any(has);
                    assert!(!(alone && host_passes), "it is fine elsewhere. {told}");
                    if let proof @ [Layer::Host | Layer::EngineImage] = claim(native, scratch, no_policy) {
                        assert_eq!(left, proof, "nothing around can change it. {told}");
                    }
                    if around == SILENT {
                        assert_eq!(left, claim(native, scratch, no_policy), "silence changes nothing. {told}");
                    }
                    seen.extend(left);
                }
            }
        }
        assert_eq!(seen.len(), 7, "every layer can be said: {seen:?}");
    }

    #[test]
    fn what_the_host_has_to_do_with_it_is_said_by_hosts_of_other_classes() {
        let elsewhere = Around { host_passes: true, ..SILENT };
        let old_kernel = Around { images_here: Others::Pass, ..elsewhere };
        // A new C library on an old kernel; the empty image has none, the host's own is old enough.
        assert_eq!(narrow(P, U, F, old_kernel), [Layer::HostImage]);
        assert_eq!(narrow(F, U, F, old_kernel), [Layer::HostImage], "the host's own is too new as well");
        assert_eq!(narrow(P, P, F, elsewhere), [Layer::HostImage], "the empty image is another image");
        assert_eq!(narrow(P, U, F, Around { host_passes: false, ..old_kernel }), [Layer::Image]);
        assert_eq!(narrow(P, U, F, elsewhere), [Layer::HostEngine, Layer::HostImage], "no other image was asked");
        // A runtime that does not know how this host's control groups are.
        assert_eq!(narrow(P, F, P, elsewhere), [Layer::HostEngine]);
        assert_eq!(narrow(U, F, U, elsewhere), [Layer::Host, Layer::HostEngine], "no other engine was asked");
        // A machine with a kernel only has no C library of its own to ask: every image fails on it, policy or none.
        let everywhere = Around { images: Others::AllFail, images_here: Others::AllFail, ..elsewhere };
        assert_eq!(narrow(U, U, F, everywhere), [Layer::Host]);
        assert_eq!(narrow(U, U, F, Around { engine_passes: true, ..everywhere }), [Layer::Host, Layer::HostEngine]);
        assert_eq!(narrow(P, U, F, everywhere), [Layer::HostEngine], "the host's own library passes");
        assert_eq!(narrow(F, F, F, elsewhere), [Layer::Host], "natively it fails too: that is the host");
        assert_eq!(narrow(P, P, P, elsewhere), [Layer::EngineImage]);
    }

    #[test]
    fn other_images_stand_in_for_the_empty_one() {
        let others = |images, images_here| Around { images, images_here, ..SILENT };
        let (pass, fail) = (Others::Pass, Others::AllFail);
        assert_eq!(narrow(P, U, P, others(pass, pass)), [Layer::EngineImage]);
        assert_eq!(narrow(P, U, P, others(fail, fail)), [Layer::Engine]);
        assert_eq!(narrow(F, U, F, others(Others::Silent, pass)), [Layer::Image]);
        assert_eq!(narrow(F, U, F, others(fail, fail)), [Layer::Host]);
        assert_eq!(narrow(P, U, F, others(pass, pass)), [Layer::Image]);
        // Small images lack the same things: that several fail does not make it the container's doing.
        assert_eq!(narrow(P, U, F, others(fail, fail)), [Layer::Sandboxing, Layer::Image]);
        assert_eq!(narrow(P, U, U, others(fail, fail)), [Layer::Engine, Layer::Image]);
        let elsewhere = Around { engine_passes: true, ..SILENT };
        assert_eq!(narrow(P, U, F, elsewhere), [Layer::Engine, Layer::EngineImage]);
        assert_eq!(narrow(P, F, F, elsewhere), [Layer::Engine]);
        assert_eq!(narrow(P, P, F, elsewhere), [Layer::EngineImage]);
        assert_eq!(narrow(F, U, F, elsewhere), [Layer::Host], "an engine makes up for the host");
    }

    #[test]
    fn what_explains_a_part_may_explain_a_pair_with_the_host() {
        assert!(Layer::HostImage.concerns(Layer::Image) && Layer::HostImage.concerns(Layer::Host));
        assert!(Layer::HostEngine.concerns(Layer::Engine) && Layer::HostEngine.concerns(Layer::HostEngine));
        assert!(!Layer::HostImage.concerns(Layer::Engine) && !Layer::HostEngine.concerns(Layer::Image));
        assert!(!Layer::EngineImage.concerns(Layer::Image) && !Layer::Image.concerns(Layer::HostImage));
    }

    #[test]
    fn what_did_not_run_is_named() {
        let controls = Controls { native: P, scratch: U, no_policy: U };
        assert_eq!(missing(controls), ["scratch image", "no engine policy"]);
    }
}
