//! A catalogue with the requirements a team's profile has. In: both. Out: the changed catalogue, and what was changed and why.
//! Pure.

use crate::catalog::{Catalogue, Requirement};
use crate::id::CheckId;
use crate::spec::Profile;

/// A requirement that the profile changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of which check.
    pub check: CheckId,
    /// What the catalogue says.
    pub from: Requirement,
    /// What the profile says.
    pub to: Requirement,
    /// Why, in the user's words.
    pub reason: String,
}

/// Applies a profile. The last rule that matches a check counts.
pub fn apply(catalogue: &Catalogue, profile: &Profile) -> (Catalogue, Vec<Change>) {
    let mut changes = vec![];
    let changed = catalogue.with_requirements(|row| {
        let rules = profile.rules.iter().rev();
        let rule = rules.into_iter().find(|rule| rule.checks.iter().any(|glob| glob.matches(&row.id)));
        let Some(rule) = rule.filter(|rule| rule.requirement != row.requirement) else { return row.requirement };
        changes.push(Change {
            check: row.id.clone(),
            from: row.requirement,
            to: rule.requirement,
            reason: rule.reason.clone(),
        });
        rule.requirement
    });
    (changed, changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Check;
    use crate::spec::ProfileRule;

    #[test]
    fn the_last_rule_that_matches_counts_and_what_changes_nothing_is_no_change() {
        let rows: String = ["io.read", "io.write", "cpu.avx"]
            .map(|id| {
                let check = Check::works(id.parse().unwrap());
                format!("[[check]]\n{}", toml::to_string(&check).unwrap())
            })
            .concat();
        let catalogue = Catalogue::parse([("t.toml", rows.as_str())]).unwrap();
        let rule = |glob: &str, requirement, reason: &str| ProfileRule {
            checks: vec![glob.parse().unwrap()],
            requirement,
            reason: reason.into(),
        };
        let profile = Profile {
            name: "p".into(),
            rules: vec![
                rule("io.*", Requirement::May, "nobody writes"),
                rule("io.read", Requirement::Should, "somebody reads"),
                rule("cpu.*", Requirement::Must, "as it is"),
            ],
        };
        let (changed, changes) = apply(&catalogue, &profile);
        let requirement = |id: &str| changed.requirement(&id.parse().unwrap());
        assert_eq!(requirement("io.read"), Requirement::Should);
        assert_eq!(requirement("io.write"), Requirement::May);
        assert_eq!(requirement("cpu.avx"), Requirement::Must);
        let told: Vec<_> = changes.iter().map(|change| (change.check.as_str(), change.reason.as_str())).collect();
        assert_eq!(told, [("io.read", "somebody reads"), ("io.write", "nobody writes")]);
    }
}
