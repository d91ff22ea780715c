//! What tests share.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a broken fixture has to stop the test")]
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod browser;
pub mod synthetic;
