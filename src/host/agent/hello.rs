//! The agent's greeting.
//!
//! In: a stream that may begin with anything: banners, a login shell's chatter. Out: the [`Site`], or what was there
//! instead. Nothing is believed before the magic, and little after it.

use std::collections::HashMap;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::frame::{HEADER, Head, MAGIC, MAX_FRAME, VERSION, kind, u32_at};
use crate::host::Site;

/// Most bytes skipped on the way to the magic: a long message of the day.
const MAX_NOISE: usize = 256 << 10;
/// Longest text of the greeting believed.
const MAX_TEXT: usize = 512;

pub(super) async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Result<Site, String> {
    skip_noise(reader).await?;
    let broken = |e: std::io::Error| format!("the agent's greeting was cut off: {e}");
    let mut head = [0; HEADER];
    reader.read_exact(&mut head).await.map_err(broken)?;
    let head = Head::read(&head).filter(|head| head.kind == kind::HELLO && head.length <= MAX_FRAME);
    let Some(head) = head else { return Err("the agent's greeting makes no sense".to_owned()) };
    let mut payload = vec![0; head.length];
    reader.read_exact(&mut payload).await.map_err(broken)?;
    site(&payload)
}

/// Reads up to the end of the magic, and not a byte more.
async fn skip_noise(reader: &mut (impl AsyncRead + Unpin)) -> Result<(), String> {
    let mut noise = vec![];
    while !noise.ends_with(&MAGIC) {
        match reader.read_u8().await {
            Ok(byte) => noise.push(byte),
            Err(_) => return Err(format!("the agent did not start{}", quoted(&noise))),
        }
        if noise.len() > MAX_NOISE {
            return Err(format!("no agent answers, but somebody who talks a lot{}", quoted(&noise)));
        }
    }
    Ok(())
}

/// The last line of what was said instead.
fn quoted(noise: &[u8]) -> String {
    let text = String::from_utf8_lossy(noise);
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    last.map(|line| format!(": `{}`", line.chars().take(200).collect::<String>())).unwrap_or_default()
}

fn site(payload: &[u8]) -> Result<Site, String> {
    match u32_at(payload, 0) {
        Some(VERSION) => {}
        other => return Err(format!("the agent speaks version {}, not {VERSION}", other.unwrap_or(0))),
    }
    let text = String::from_utf8_lossy(&payload[4..]);
    let words: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let word = |key: &str| {
        let value = words.get(key).filter(|value| !value.is_empty() && value.len() <= MAX_TEXT);
        let clean = value.filter(|value| !value.chars().any(char::is_control));
        clean.map(|value| (*value).to_owned()).ok_or_else(|| format!("the agent's greeting has no sound `{key}`"))
    };
    let number = |key: &str, most: u64| {
        let number = word(key)?.parse().ok().filter(|number| *number <= most);
        number.ok_or_else(|| format!("the agent's greeting has no sound `{key}`"))
    };
    let dir = word("dir").and_then(|dir| match dir.starts_with('/') {
        true => Ok(dir),
        false => Err("the agent's directory is not an absolute path".to_owned()),
    })?;
    Ok(Site {
        kernel_release: word("release")?,
        kernel_version: word("version")?,
        machine: word("machine")?,
        page_size: number("page", 1 << 30)?,
        cpus: number("cpus", 1 << 16)?.max(1),
        uid: number("uid", u32::MAX.into())? as u32,
        gid: number("gid", u32::MAX.into())? as u32,
        launcher: format!("{dir}/launch"),
        mount_point: format!("{dir}/mnt"),
        dir,
    })
}
