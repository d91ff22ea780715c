//! The committed `matrix.toml`, which is also the first one a user reads: it must resolve, and promise what it shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use abicus::plan::{self, Role};
use abicus::spec::{self, Selection, World};

#[test]
fn the_committed_matrix_plans_nineteen_cells_of_which_seven_need_no_docker() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("matrix.toml")).unwrap();
    let world = World { base: PathBuf::from(root), exists: &|path| path.exists() };
    let matrix = spec::resolve(&text, "matrix.toml", &world).unwrap();

    let plan = plan::plan(&matrix, &Selection::default(), true);
    let mut cells: BTreeMap<String, usize> = BTreeMap::new();
    for planned in plan.cells.iter().filter(|planned| planned.role == Role::Cell) {
        *cells.entry(planned.cell.engine.to_string()).or_default() += 1;
    }
    let expected = [("built-in", 6), ("docker", 6), ("docker-unconfined", 6), ("native", 1)];
    assert_eq!(cells, BTreeMap::from(expected.map(|(engine, count)| (engine.to_owned(), count))));

    let optional: Vec<String> = matrix.engines.iter().filter(|e| e.optional).map(|e| e.id.to_string()).collect();
    assert_eq!(optional, ["docker", "docker-unconfined"], "only these may be absent from a machine");
}
