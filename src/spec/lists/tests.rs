use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use super::super::{HostKind, World};
use super::*;

const REST: &str = "[[engine]]\nname = 'native'\nkind = 'native'\n";

/// What a matrix with these files around it comes to: each host with how it is reached and its labels.
fn hosts(matrix: &str, files: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let known: BTreeMap<PathBuf, String> =
        files.iter().map(|(name, text)| (Path::new("/m").join(name), (*text).to_owned())).collect();
    let read = |path: &Path| known.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
    let list = |dir: &Path| {
        let names = known.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    };
    let files = Files { base: "/m".into(), home: Some("/home/ann".into()), read: &read, list: &list };
    let world = World { base: "/m".into(), exists: &|_| true };
    let expanded = expand(matrix, "m.toml", &files).map_err(|errors| errors.to_string())?;
    let matrix = expanded.resolve("m.toml", &world).map_err(|errors| errors.to_string())?;
    // What is kept is read alike, whatever becomes of the files.
    let nothing = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    let nobody = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    let gone = Files { base: "/m".into(), home: None, read: &nothing, list: &nobody };
    assert_eq!(expand(&expanded.text, "m.toml", &gone).unwrap().resolve("m.toml", &world).unwrap(), matrix);
    Ok(matrix.hosts.iter().map(told).collect())
}

fn told(host: &crate::spec::HostSpec) -> String {
    let how = match &host.kind {
        HostKind::Local => "local".to_owned(),
        HostKind::Ssh(spec) => match &spec.config {
            Some(config) => format!("{} by {}", spec.destination, config.display()),
            None => spec.destination.clone(),
        },
        other => format!("{other:?}"),
    };
    let labels: Vec<_> = host.labels.iter().map(|(key, value)| format!(" {key}={value}")).collect();
    format!("{}: {how}{}", host.id, labels.concat())
}

#[test]
fn files_of_hosts_are_part_of_the_matrix() {
    let one = "# rack\n[[host]]\nname = 'a'\nssh = 'a'\nlabels = { site = 'lab' }\n";
    let two = "[[host]]\nname = 'b'\nssh = 'b'";
    let matrix = format!("include = [\n  'hosts.d/*.toml',  # all\n  'c.toml',\n]\n[[host]]\nname = 'local'\n{REST}");
    let files = [("hosts.d/2.toml", two), ("hosts.d/1.toml", one), ("hosts.d/.1.toml", "x"), ("hosts.d/README", "x")];
    let files = [&files[..], &[("c.toml", "[[host]]\nname = 'c'\n")]].concat();
    assert_eq!(hosts(&matrix, &files).unwrap(), ["local: local", "a: a site=lab", "b: b", "c: local"]);
    let text = format!("include = 'hosts.d/1.toml'\n{REST}");
    assert_eq!(hosts(&text, &files).unwrap(), ["a: a site=lab"]);
}

const INI: &str = "\
lonely ansible_host=10.0.0.9
[web]
web[01:03].example ansible_user='deploy' # three
old:2222
[db]
db-[a:b] ansible_host=10.0.0.1 ansible_port=22022 ansible_password=\"not # ours\"
here ansible_connection=local
[prod:children]
web
db
[prod:vars]
ansible_user = root
[db:vars]
ansible_ssh_user=postgres
";

#[test]
fn an_inventory_in_ini_says_who_and_where_and_its_groups_are_labels() {
    let matrix = |pattern: &str| {
        format!(
            "{REST}[[hosts]]\nansible = 'inv.ini'\npattern = '{pattern}'\nlabels = {{ site = 'lab' }}\nparallel = 2\n"
        )
    };
    let files = [("inv.ini", INI)];
    assert_eq!(
        hosts(&matrix("web*"), &files).unwrap(),
        [
            "web01.example: deploy@web01.example group.prod=yes group.web=yes site=lab",
            "web02.example: deploy@web02.example group.prod=yes group.web=yes site=lab",
            "web03.example: deploy@web03.example group.prod=yes group.web=yes site=lab",
            "old: ssh://root@old:2222 group.prod=yes group.web=yes site=lab",
        ]
    );
    assert_eq!(
        hosts(&matrix("db"), &files).unwrap(),
        [
            "db-a: ssh://root@10.0.0.1:22022 group.db=yes group.prod=yes site=lab",
            "db-b: ssh://root@10.0.0.1:22022 group.db=yes group.prod=yes site=lab",
            "here: local group.db=yes group.prod=yes site=lab",
        ]
    );
    assert_eq!(hosts(&matrix("lonely"), &files).unwrap(), ["lonely: 10.0.0.9 site=lab"]);
}

#[test]
fn an_inventory_in_yaml_says_the_same() {
    let yaml = "all:\n  vars:\n    ansible_user: ann\n  hosts:\n    lonely:\n  children:\n    web:\n      hosts:\n        web[1:2]:\n          \
                ansible_port: 2222\n      vars: { ansible_user: deploy, list: [1, 2] }\n    prod:\n      children:\n        web:\n";
    let matrix = format!("{REST}[[hosts]]\nansible = 'inv.yml'\n");
    assert_eq!(
        hosts(&matrix, &[("inv.yml", yaml)]).unwrap(),
        [
            "lonely: ann@lonely",
            "web1: ssh://deploy@web1:2222 group.prod=yes group.web=yes",
            "web2: ssh://deploy@web2:2222 group.prod=yes group.web=yes",
        ]
    );
}

#[test]
fn an_ssh_configuration_names_hosts_and_what_is_only_a_pattern_names_none() {
    let config = "Include more\nHost rack1 rack2 *.lab !rack9\n  User ann # Host no\nHost=\"gate\"\nhost rack1\nHost *\n  Include even\n";
    let own = [("/home/ann/.ssh/config", config), ("/home/ann/.ssh/more", "Host rack7\n")];
    let matrix = |path: &str| format!("{REST}[[hosts]]\nssh_config = '{path}'\npattern = 'rack*'\n");
    assert_eq!(hosts(&matrix("~/.ssh/config"), &own).unwrap(), ["rack7: rack7", "rack1: rack1", "rack2: rack2"]);
    let other = [("conf/lab", "Host rack3\n")];
    assert_eq!(hosts(&matrix("conf/lab"), &other).unwrap(), ["rack3: rack3 by /m/conf/lab"]);
}

#[test]
fn what_is_wrong_with_a_list_is_said_where_it_is() {
    let include = |name: &str| format!("include = ['{name}']\n[[host]]\nname = 'a'\n{REST}");
    let ansible = |rest: &str| format!("{REST}[[hosts]]\nansible = 'inv.ini'\n{rest}");
    for (matrix, file, said) in [
        (include("no.toml"), "", "/m/no.toml:1:1: "),
        (include("hosts.d/*.toml"), "", "m.toml:1:11: `hosts.d/*.toml` matches no file"),
        (include("*/x.toml"), "", "only what follows the last `/`"),
        (include("f"), "[[host]]\nname = 'b'\nsssh = 'x'\n", "/m/f:3:1: unknown field `sssh`"),
        (include("f"), "\n\n[[host]]\nname = 'a'\n", "/m/f:4:8: host `a` is declared twice"),
        (include("f"), "[[host]]\nname = 'b'\nssh = '-x'\n", "/m/f:3:7: `-x` is not a destination"),
        (include("f"), "host = [{ name = 'b' }]", "/m/f:1:1: a file that is included"),
        (include("f"), "[[engine]]\nname = 'b'\nkind = 'native'\n", "/m/f:1:3: unknown field `engine`"),
        (ansible("pattern = 'db*'"), "x", "m.toml:6:11: no host of `inv.ini` matches `db*`\n  help: it has x"),
        (ansible(""), "[a\nx\n", "m.toml:5:11: /m/inv.ini:1: `[a` is not the head"),
        (ansible(""), "x y\n", "/m/inv.ini:1: `y` is not `variable=value`"),
        (ansible(""), "x[5:1]\n", "`[5:1]` of `x[5:1]` is not a range"),
        (ansible(""), "\nx ansible_host='{{ a }}'\n", "/m/inv.ini:2: host `x`: `{{ a }}` is a template"),
        (ansible(""), "x ansible_connection=winrm\n", "it is reached by `winrm`"),
        (ansible(""), "\n\nx ansible_host='$(id)'\n", "/m/inv.ini:3:1: `$(id)` is not a destination"),
        (ansible("") + "[[host]]\nname = 'x'\n", "x\n", "/m/inv.ini:1:1: host `x` is declared twice"),
        (ansible("ssh_config = 'x'"), "", "m.toml:4:1: a list of hosts has one source"),
        (ansible("patern = 'x'"), "", "did you mean `pattern`?"),
        (format!("{REST}[[hosts]]\nansible = 'no.ini'\n"), "", "m.toml:5:11: /m/no.ini: "),
        (format!("host = [{{ name = 'b' }}]\n{}", ansible("")), "x", "write hosts as `[[host]]` tables"),
    ] {
        let error = hosts(&matrix, &[("f", file), ("inv.ini", file)]).unwrap_err();
        assert!(error.contains(said), "expected {said}\ngot {error}");
    }
    let yaml =
        hosts(&format!("{REST}[[hosts]]\nansible = 'i.yml'\n"), &[("i.yml", "all:\n  hosts: [a]\n")]).unwrap_err();
    assert!(yaml.contains("/m/i.yml:2: here should be a mapping of hosts"), "{yaml}");
}
