//! Finding and removing what runs left in an engine: containers by label, cached images by label.

use bollard::query_parameters::RemoveImageOptionsBuilder;
use serde_json::{Value, json};

use crate::engine::{CELL_LABEL, RUN_LABEL};
use crate::fault::{Fault, Phase};
use crate::id::RunId;

use super::api::{Api, CALL, CallError};
use super::cell::remove;
use super::prepare::CACHE_LABEL;

/// Removes the containers of one run, or of every run, and names them.
pub(super) async fn containers(api: &Api, run: Option<&RunId>) -> Result<Vec<String>, Fault> {
    let label = run.map_or_else(|| RUN_LABEL.to_owned(), |run| format!("{RUN_LABEL}={run}"));
    let list = list(api, "/containers/json?all=1&", &label).await?;
    let mut removed = vec![];
    for container in list {
        let Some(id) = container["Id"].as_str() else { continue };
        remove(api, id, CALL).await.map_err(|e| e.fault(Phase::Cleanup, &format!("remove container {id}")))?;
        let labels = &container["Labels"];
        let said = |key: &str| labels[key].as_str().unwrap_or("?").to_owned();
        removed.push(format!("container {:.12} of cell {} in run {}", id, said(CELL_LABEL), said(RUN_LABEL)));
    }
    Ok(removed)
}

/// Removes the images abicus imported, and names them.
pub(super) async fn images(api: &Api) -> Result<Vec<String>, Fault> {
    let mut removed = vec![];
    for image in list(api, "/images/json?", CACHE_LABEL).await? {
        let Some(id) = image["Id"].as_str() else { continue };
        let options = RemoveImageOptionsBuilder::default().force(true).build();
        match api.call(CALL, api.docker.remove_image(id, Some(options), None)).await {
            Ok(_) => {}
            Err(error) if error.status() == Some(404) => {}
            Err(error) => return Err(error.fault(Phase::Cleanup, &format!("remove image {id}"))),
        }
        let name = image["RepoTags"].as_array().and_then(|tags| tags.first()).and_then(Value::as_str).unwrap_or(id);
        removed.push(format!("image {name}"));
    }
    Ok(removed)
}

async fn list(api: &Api, path: &str, label: &str) -> Result<Vec<Value>, Fault> {
    let filters = percent(&json!({"label": [label]}).to_string());
    match api.get(&format!("{path}filters={filters}")).await {
        Ok(Value::Array(list)) => Ok(list),
        Ok(_) => Err(CallError::Broken("not a list".to_owned()).fault(Phase::Cleanup, path)),
        Err(error) => Err(error.fault(Phase::Cleanup, "list what is left")),
    }
}

fn percent(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_filter_cannot_leave_its_place_in_the_address() {
        assert_eq!(super::percent("a=\"&b#"), "a%3D%22%26b%23");
    }
}
