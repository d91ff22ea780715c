//! System call numbers of the architectures one x86-64 kernel serves. Pure.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What one kernel can be called as. The number decides between x86-64 and x32; the kernel says which else it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    X86_64,
    X32,
    I386,
}

const X32_BIT: u32 = 1 << 30;

/// Columns: x86-64, i386, x32.
static NUMBERS: LazyLock<HashMap<&'static str, [Option<u32>; 3]>> = LazyLock::new(|| {
    include_str!("numbers.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split(' ');
            let name = words.next()?;
            let mut number = || words.next().and_then(|word| word.parse().ok());
            Some((name, [number(), number(), number()]))
        })
        .collect()
});

impl Architecture {
    pub(crate) const ALL: [Self; 3] = [Self::X86_64, Self::X32, Self::I386];

    /// The number of a system call, where this architecture has it.
    pub(crate) fn number(self, name: &str) -> Option<u32> {
        let [x86_64, i386, x32] = NUMBERS.get(name)?;
        match self {
            Self::X86_64 => *x86_64,
            Self::I386 => *i386,
            Self::X32 => x32.map(|number| number | X32_BIT),
        }
    }

    /// The name in profiles.
    pub(crate) fn scmp(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X32 => "SCMP_ARCH_X32",
            Self::I386 => "SCMP_ARCH_X86",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_has_three_columns() {
        let lines = include_str!("numbers.txt").lines().filter(|line| !line.starts_with('#'));
        assert_eq!(lines.map(|line| assert_eq!(line.split(' ').count(), 4, "{line}")).count(), NUMBERS.len());
    }

    #[test]
    fn numbers_are_those_of_the_kernels_headers() {
        let all = |name| Architecture::ALL.map(|arch| arch.number(name));
        assert_eq!(all("execve"), [Some(59), Some(520 | X32_BIT), Some(11)]);
        assert_eq!(all("clone3"), [Some(435), Some(435 | X32_BIT), Some(435)]);
        assert_eq!(all("socketcall"), [None, None, Some(102)]);
        assert_eq!(all("no_such_call"), [None, None, None]);
    }
}
