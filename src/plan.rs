//! Matrix + selection → [`Plan`]: the cells to run in order, the control cells attribution needs, and what is left out
//! with the reason. Pure: nothing is started, nothing is looked up.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::engine::EngineOptions;
use crate::id::{CellId, EngineId, HostId, ImageId};
use crate::image::Source;
use crate::spec::{EngineKind, EngineSpec, ImageSpec, Matrix, Selection};

/// Why a cell is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The user asked for it.
    Cell,
    /// Attribution: does it fail without engine and image? Then the host is at fault.
    ControlNative,
    /// Attribution: does it fail with this engine and the empty image? Then the engine is at fault.
    ControlScratch,
    /// Attribution: does it fail with this image and no policy of any engine? Then the image is at fault.
    ControlNoPolicy,
}

impl Role {
    /// Whether the cell was not asked for.
    pub fn is_control(self) -> bool {
        self != Self::Cell
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Cell => "cell",
            Self::ControlNative => "control: native",
            Self::ControlScratch => "control: scratch image",
            Self::ControlNoPolicy => "control: no engine policy",
        })
    }
}

/// A cell to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Which.
    pub cell: CellId,
    /// Why.
    pub role: Role,
}

/// A cell that will not run, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Which.
    pub cell: CellId,
    /// Why, in words.
    pub reason: String,
}

/// What a run will do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Controls first, then cells in the order of the matrix.
    pub cells: Vec<Planned>,
    /// What the matrix excludes.
    pub skips: Vec<Skipped>,
    /// Engines of the matrix, and those only controls need.
    pub engines: Vec<EngineSpec>,
    /// Images of the matrix, and those only controls need.
    pub images: Vec<ImageSpec>,
    /// Which engines and which image the control cells have; absent where no controls are wanted.
    pub controls: Option<ControlNames>,
}

/// What to look for among the cells to find the controls of one of them: some serve the user and attribution at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlNames {
    /// The engine without an image.
    pub native: EngineId,
    /// The engine without a policy.
    pub no_policy: EngineId,
    /// The empty image.
    pub scratch: ImageId,
}

/// How names begin that only control cells have.
pub(crate) const OWN: &str = "control.";
/// Name of the engine of [`Role::ControlNative`] cells, where the matrix has no native engine.
const NATIVE: &str = "control.native";
/// Name of the engine of [`Role::ControlNoPolicy`] cells.
const NO_POLICY: &str = "control.no-policy";
/// Name of the image of [`Role::ControlScratch`] cells, where the matrix has no scratch image.
const SCRATCH: &str = "control.scratch";

/// Plans the selected cells of a matrix and, if wanted, their controls.
pub fn plan(matrix: &Matrix, selection: &Selection, controls: bool) -> Plan {
    let mut plan = Plan {
        cells: vec![],
        skips: vec![],
        engines: matrix.engines.clone(),
        images: matrix.images.clone(),
        controls: None,
    };
    let labels: BTreeMap<&HostId, _> = matrix.hosts.iter().map(|host| (&host.id, &host.labels)).collect();
    let selected =
        |cell: &CellId| selection.matches(cell) && labels.get(&cell.host).is_some_and(|labels| selection.takes(labels));
    for cell in crate::spec::all_cells(matrix).filter(selected) {
        let excluded = matrix.excludes.iter().find(|exclude| exclude.cells.matches(&cell));
        match (excluded, lacks(matrix, &matrix.engines, &cell)) {
            (Some(exclude), _) => plan.skips.push(Skipped { cell, reason: format!("excluded: {}", exclude.reason) }),
            (None, Some(why)) => plan.skips.push(Skipped { cell, reason: why.to_owned() }),
            (None, None) => plan.cells.push(Planned { cell, role: Role::Cell }),
        }
    }
    if controls {
        add_controls(&mut plan, matrix);
    }
    plan
}

/// Why a cell cannot be, whatever is installed.
fn lacks(matrix: &Matrix, engines: &[EngineSpec], cell: &CellId) -> Option<&'static str> {
    let host = matrix.hosts.iter().find(|host| host.id == cell.host)?;
    let engine = engines.iter().find(|engine| engine.id == cell.engine)?;
    host.kind.lacks(engine.kind)
}

fn add_controls(plan: &mut Plan, matrix: &Matrix) {
    let asked: BTreeSet<CellId> = plan.cells.iter().map(|planned| planned.cell.clone()).collect();
    let hosts: BTreeSet<HostId> = asked.iter().map(|cell| cell.host.clone()).collect();
    let contained = |cell: &&CellId| !cell.image.is_none();
    let mut controls: BTreeSet<(Role, CellId)> = BTreeSet::new();

    let native = plan.engine_like(NATIVE, |engine| engine.kind == EngineKind::Native, EngineKind::Native);
    for host in &hosts {
        let cell = CellId { host: host.clone(), engine: native.clone(), image: ImageId::none() };
        controls.insert((Role::ControlNative, cell));
    }
    let mut names = None;
    if asked.iter().any(|cell| !cell.image.is_none()) {
        let scratch = plan.scratch_image();
        let bare = |engine: &EngineSpec| engine.kind == EngineKind::BuiltIn && engine.options == no_policy_options();
        let no_policy = plan.engine_like(NO_POLICY, bare, EngineKind::BuiltIn);
        for cell in asked.iter().filter(contained) {
            controls.insert((Role::ControlScratch, CellId { image: scratch.clone(), ..cell.clone() }));
            controls.insert((Role::ControlNoPolicy, CellId { engine: no_policy.clone(), ..cell.clone() }));
        }
        // The scratch image without policy separates an engine's policy from the kernel, too.
        for host in &hosts {
            let cell = CellId { host: host.clone(), engine: no_policy.clone(), image: scratch.clone() };
            controls.insert((Role::ControlNoPolicy, cell));
        }
        names = Some(ControlNames { native, no_policy, scratch });
    }
    plan.controls = names;
    // What the user excluded is not run for attribution either. A control that cannot be narrows what may be claimed of
    // that host, and judging sees that it is not there.
    let left_out: BTreeSet<&CellId> = plan.skips.iter().map(|skipped| &skipped.cell).collect();
    let wanted = |cell: &CellId| {
        !asked.contains(cell) && !left_out.contains(cell) && lacks(matrix, &plan.engines, cell).is_none()
    };
    let controls: Vec<Planned> =
        controls.into_iter().filter(|(_, cell)| wanted(cell)).map(|(role, cell)| Planned { cell, role }).collect();
    plan.cells = controls.into_iter().chain(std::mem::take(&mut plan.cells)).collect();
}

/// An engine as one declares it with a name and a kind only. The caller knows that the name is valid.
pub(crate) fn bare_engine(name: &str, kind: EngineKind) -> EngineSpec {
    let (id, options) = (EngineId::reserved(name), EngineOptions::default());
    EngineSpec { id, kind, runtime: None, script: None, options, optional: false, parallel: None }
}

/// As little between image and kernel as an engine can do.
fn no_policy_options() -> EngineOptions {
    EngineOptions { privileged: true, ..EngineOptions::default() }
}

impl Plan {
    /// The engine of the matrix that can serve as a control, or a new one under this name.
    fn engine_like(&mut self, name: &str, fits: impl Fn(&EngineSpec) -> bool, kind: EngineKind) -> EngineId {
        if let Some(engine) = self.engines.iter().find(|engine| fits(engine)) {
            return engine.id.clone();
        }
        let mut engine = bare_engine(name, kind);
        // A control that cannot run narrows what may be claimed; it is not an error of the run.
        engine.optional = true;
        if kind.has_image() {
            engine.options = no_policy_options();
        }
        let id = engine.id.clone();
        self.engines.push(engine);
        id
    }

    fn scratch_image(&mut self) -> ImageId {
        if let Some(image) = self.images.iter().find(|image| image.source == Source::Scratch) {
            return image.id.clone();
        }
        let id = ImageId::reserved(SCRATCH);
        self.images.push(ImageSpec { id: id.clone(), source: Source::Scratch, optional: true });
        id
    }

    /// The engine of a cell.
    pub fn engine(&self, id: &EngineId) -> Option<&EngineSpec> {
        self.engines.iter().find(|engine| engine.id == *id)
    }

    /// The image of a cell, where it has one.
    pub fn image(&self, id: &ImageId) -> Option<&ImageSpec> {
        self.images.iter().find(|image| image.id == *id)
    }

    /// How many cells the user asked for, and how many are controls.
    pub fn counts(&self) -> (usize, usize) {
        let controls = self.cells.iter().filter(|planned| planned.role.is_control()).count();
        (self.cells.len() - controls, controls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{World, resolve};

    fn matrix(text: &str) -> Matrix {
        resolve(text, "matrix.toml", &World { base: "/".into(), exists: &|_| true }).unwrap()
    }

    fn everything() -> Selection {
        Selection::default()
    }

    fn names(plan: &Plan) -> Vec<String> {
        plan.cells.iter().map(|planned| planned.cell.to_string()).collect()
    }

    const SMALL: &str = r#"
        image = [{ name = "a", rootfs = "a" }, { name = "b", rootfs = "b" }]
        host = [{ name = "local" }]
        engine = [{ name = "docker", kind = "docker" }, { name = "native", kind = "native" }]
    "#;

    #[test]
    fn native_has_one_cell_per_host_and_serves_as_its_control() {
        let plan = plan(&matrix(SMALL), &everything(), true);
        let cells = names(&plan);
        assert_eq!(cells.iter().filter(|name| name.contains(":native:")).count(), 1);
        assert!(cells.contains(&"local:native:-".to_owned()));
        assert_eq!(plan.counts().0, 3);
    }

    #[test]
    fn controls_are_added_once_and_come_first() {
        let plan = plan(&matrix(SMALL), &everything(), true);
        assert_eq!(
            names(&plan),
            [
                "local:docker:control.scratch",
                "local:control.no-policy:a",
                "local:control.no-policy:b",
                "local:control.no-policy:control.scratch",
                "local:docker:a",
                "local:docker:b",
                "local:native:-",
            ]
        );
    }

    #[test]
    fn a_selected_cell_brings_its_own_controls_only() {
        let selection = Selection::new(&["local:docker:a".into()], &[], &[], &[]).unwrap();
        let plan = plan(&matrix(SMALL), &selection, true);
        assert_eq!(plan.counts(), (1, 4));
        assert_eq!(plan.controls.as_ref().map(|names| names.scratch.to_string()).as_deref(), Some("control.scratch"));
        assert!(!names(&plan).iter().any(|name| name.ends_with(":b")));
    }

    #[test]
    fn excluded_cells_are_skips_with_the_users_reason() {
        let text = format!("{SMALL}\nexclude = [{{ cells = '*:docker:b', reason = 'too old' }}]");
        let plan = plan(&matrix(&text), &everything(), false);
        assert_eq!(plan.skips.len(), 1);
        assert_eq!(plan.skips[0].reason, "excluded: too old");
        assert!(!names(&plan).contains(&"local:docker:b".to_owned()));
    }

    #[test]
    fn a_host_behind_an_endpoint_has_no_cells_and_no_controls_but_those_of_its_engine() {
        let text = r#"
            image = [{ name = "a", rootfs = "a" }]
            host = [{ name = "far", endpoint = "tcp://far:2375" }]
            engine = [{ name = "docker", kind = "docker" }, { name = "built-in", kind = "built-in" }, { name = "runc", kind = "oci", runtime = "runc" }]
        "#;
        let plan = plan(&matrix(text), &everything(), true);
        assert_eq!(names(&plan), ["far:docker:control.scratch", "far:docker:a"]);
        let reasons: Vec<_> = plan.skips.iter().map(|skip| (skip.cell.to_string(), skip.reason.as_str())).collect();
        let why = "an endpoint reaches docker or podman only, not the host they are on";
        assert_eq!(reasons, [("far:built-in:a".to_owned(), why), ("far:runc:a".to_owned(), why)]);
    }

    #[test]
    fn an_excluded_cell_is_no_control_either() {
        let text = format!(
            "{SMALL}\nexclude = [{{ cells = '*:docker:b', reason = 'x' }}, {{ cells = '*:native:*', reason = 'no' }}]"
        );
        let plan = plan(&matrix(&text), &everything(), true);
        let skipped: Vec<String> = plan.skips.iter().map(|skip| skip.cell.to_string()).collect();
        assert_eq!(skipped, ["local:docker:b", "local:native:-"]);
        assert!(!names(&plan).iter().any(|name| skipped.contains(name)), "{:?}", names(&plan));
    }

    #[test]
    fn a_host_that_cannot_have_an_engine_has_no_cells_of_it() {
        let text = r#"
            image = [{ name = "a", rootfs = "a" }]
            host = [{ name = "v", vm = { kernel = "k" } }, { name = "d", vm = { disk = { suite = "s" } } }]
            engine = [{ name = "docker", kind = "docker" }, { name = "built-in", kind = "built-in" }]
        "#;
        let plan = plan(&matrix(text), &everything(), false);
        assert_eq!(names(&plan), ["v:built-in:a", "d:docker:a", "d:built-in:a"]);
        assert_eq!(plan.skips.len(), 1);
        assert!(plan.skips[0].reason.contains("kernel only"), "{}", plan.skips[0].reason);
    }
}
