pub static CHECKS: &[crate::check::Check] = &[];
