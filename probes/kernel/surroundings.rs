//! What surrounds a program: /proc, /sys and /dev, control groups, capabilities, security modules, namespaces, limits,
//! settings of the kernel, and what its modules enable.
//!
//! Goes in: nothing. Comes out: facts and answers. Must not know: which answers are good. `check.rs` says how to add one.
//!
//! Nothing here opens what would load a module, reads what can be read once only, or writes outside the process that asks; a
//! file it makes in /dev/shm or /tmp is gone when its check ends.

pub mod capability;
pub mod cgroup;
pub mod device;
pub mod fact;
pub mod limit;
mod look;
pub mod module;
pub mod namespace;
pub mod proc;
pub mod said;
pub mod security;
pub mod setting;
pub mod sys_files;
pub mod table;
