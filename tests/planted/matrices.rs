//! Plants as matrices.

use std::collections::BTreeMap;
use std::path::Path;

use super::cross::ENGINE_AND_IMAGE;
use super::plants::{ENGINES, IMAGES, PAIRS, Plant};
use super::trees::Trees;

/// The host itself, its engine with an option where one is planted, and images where one is.
pub fn host_matrix(plant: &Plant, trees: &Trees) -> String {
    let mut text = format!("{HEAD}{}{}", engine("native", "native", ""), engine("built-in", "built-in", ""));
    text += "[[image]]\nname = \"scratch\"\nscratch = true\n";
    if !plant.options.is_empty() {
        text += &engine("planted", "built-in", plant.options);
    }
    if plant.expected.iter().any(|(cell, _)| !cell.ends_with(":-") && !cell.ends_with(":scratch")) {
        for (name, tree) in &trees.images {
            if *name == "tiny" || plant.expected.iter().any(|(cell, _)| cell.ends_with(&format!(":{name}"))) {
                text += &image(name, tree);
            }
        }
    }
    text
}

/// The machine as the plant makes it look, and as it is by SSH; an engine with the plant and one without.
pub fn host_and_engine_matrix(dir: &Path, plant: &Plant, ssh_config: &Path) -> String {
    let mut text = format!(
        "[matrix]\nname = \"planted\"\n[[host]]\nname = \"old\"\n\
         [[host]]\nname = \"new\"\nssh = \"box\"\nssh_config = \"{}\"\n",
        ssh_config.display()
    );
    text += &(engine("native", "native", "") + &engine("built-in", "built-in", ""));
    text += &engine("planted", "built-in", &options(dir, plant));
    text + "[[image]]\nname = \"scratch\"\nscratch = true\n"
}

fn image(name: &str, tree: &Path) -> String {
    format!("[[image]]\nname = \"{name}\"\nrootfs = \"{}\"\n", tree.display())
}

/// An engine of a kind that tells runtimes apart too.
fn engine(name: &str, kind: &str, options: &str) -> String {
    let kind = match kind {
        "podman" => "kind = \"podman\"\nruntime = \"runc\"".to_owned(),
        "runc" | "crun" => format!("kind = \"oci\"\nruntime = \"{kind}\""),
        kind => format!("kind = \"{kind}\""),
    };
    let options = if options.is_empty() { String::new() } else { format!("options = {{ {options} }}\n") };
    format!("[[engine]]\nname = \"{name}\"\n{kind}\n{options}")
}

const HEAD: &str = "[matrix]\nname = \"planted\"\n[[host]]\nname = \"local\"\n";

/// docker's default profile as the built-in engine has it.
const DEFAULT: &str = include_str!("../../src/engine/builtin/seccomp/default.json");

/// An engine per cause and kind, with two images; what is planted by a part of the cell's name.
pub fn engine_matrix(dir: &Path, trees: &Trees) -> (String, BTreeMap<String, Vec<&'static Plant>>) {
    let mut text = HEAD.to_owned();
    for (name, tree) in [("bookworm", &trees.bookworm), ("bullseye", &trees.bullseye)] {
        text += &image(name, tree);
    }
    for kind in ["native", "built-in", "docker"] {
        text += &engine(kind, kind, "");
    }
    let mut planted: BTreeMap<String, Vec<&Plant>> = BTreeMap::new();
    for plant in ENGINES.iter().chain(PAIRS) {
        let options = options(dir, plant);
        for kind in plant.engines {
            let name = format!("{kind}-{}", plant.name);
            text += &engine(&name, kind, &options);
            planted.entry(format!(":{name}:")).or_default().push(plant);
        }
    }
    (text, planted)
}

/// The options of a plant's engine; its profile is written where the matrix is.
fn options(dir: &Path, plant: &Plant) -> String {
    let mut options: Vec<String> = vec![];
    if !plant.rules.is_empty() {
        let profile = format!("{{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [{}]}}", plant.rules);
        std::fs::write(dir.join(format!("{}.json", plant.name)), profile).unwrap();
        options.push(format!("seccomp = \"{}.json\"", plant.name));
    }
    match plant.options {
        "" => {}
        // The default profile of an engine that does not know the call: its default answer is EPERM.
        "hole" => {
            let mut profile: serde_json::Value = serde_json::from_str(DEFAULT).unwrap();
            for rule in profile["syscalls"].as_array_mut().unwrap() {
                rule["names"].as_array_mut().unwrap().retain(|name| name != "clone3");
            }
            profile["syscalls"].as_array_mut().unwrap().retain(|rule| !rule["names"].as_array().unwrap().is_empty());
            std::fs::write(dir.join("hole.json"), profile.to_string()).unwrap();
            options.push("seccomp = \"hole.json\"".to_owned());
        }
        more => options.push(more.to_owned()),
    }
    options.join(", ")
}

/// The images under one engine, and pairs under engines of their own, each with a twin that has a whole image.
pub fn image_matrix(dir: &Path, trees: &Trees) -> (String, BTreeMap<String, Vec<&'static Plant>>) {
    let mut text = format!("{HEAD}{}{}", engine("native", "native", ""), engine("built-in", "built-in", ""));
    for (name, tree) in &trees.images {
        text += &image(name, tree);
    }
    let mut planted: BTreeMap<String, Vec<&Plant>> =
        IMAGES.iter().map(|plant| (format!(":{}", plant.name), vec![plant])).collect();
    for plant in ENGINE_AND_IMAGE {
        text += &engine(plant.name, "built-in", &options(dir, plant));
        planted.insert(format!(":{}:", plant.name), vec![plant]);
        let wanted = |name: &str| name == "tiny" || plant.expected.iter().any(|(image, _)| *image == name);
        for name in trees.images.keys().copied().filter(|name| !wanted(name)) {
            text += &format!("[[exclude]]\ncells = \"local:{}:{name}\"\nreason = \"not this pair\"\n", plant.name);
        }
    }
    (text, planted)
}
