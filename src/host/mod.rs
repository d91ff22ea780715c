//! Hosts: how to reach a kernel, and what that kernel and hardware are.
//!
//! In: a host as the matrix declares it. Out: its facts, nothing volatile among them, so that hosts with equal facts are
//! of one class. Knows no engine and no image.

pub mod local;
pub mod vm;
