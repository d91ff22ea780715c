//! How many guests run at a time: as many as this machine has processors and memory for. Guests that starve each other
//! run into their deadlines, and take longer all together than one after the other.

use std::sync::LazyLock;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Memory QEMU takes beside the guest's own, MiB.
const OVERHEAD: u64 = 256;
/// Memory left to everybody else, MiB.
const RESERVE: u64 = 1024;

/// Of this process: what guests take is taken from the one machine, whoever starts them.
static CAPACITY: LazyLock<Capacity> = LazyLock::new(|| {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Capacity::new(cpus, available(&meminfo).unwrap_or(4096))
});

struct Capacity {
    cpus: (Semaphore, u32),
    memory: (Semaphore, u32),
}

/// Held while a guest runs.
#[derive(Debug)]
pub struct Slot {
    _cpus: SemaphorePermit<'static>,
    _memory: SemaphorePermit<'static>,
}

/// MiB that can be had without pushing anybody out.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

impl Capacity {
    fn new(cpus: u64, memory: u64) -> Self {
        let cpus = u32::try_from(cpus).unwrap_or(u32::MAX >> 3).max(1);
        let memory = u32::try_from(memory.saturating_sub(RESERVE)).unwrap_or(u32::MAX >> 3).max(1);
        Self { cpus: (Semaphore::new(cpus as usize), cpus), memory: (Semaphore::new(memory as usize), memory) }
    }

    /// A guest larger than the machine takes all of it rather than waiting for ever.
    fn shares(&self, cpus: u32, memory: u64) -> (u32, u32) {
        let memory = u32::try_from((memory >> 20) + OVERHEAD).unwrap_or(u32::MAX);
        (cpus.clamp(1, self.cpus.1), memory.min(self.memory.1))
    }
}

/// Waits until there is room for a guest of so many processors and bytes.
pub async fn room(cpus: u32, memory: u64) -> Option<Slot> {
    let capacity = &*CAPACITY;
    let (cpus, memory) = capacity.shares(cpus, memory);
    // Always in this order, so that two that wait do not wait for each other.
    let cpus = capacity.cpus.0.acquire_many(cpus).await.ok()?;
    let memory = capacity.memory.0.acquire_many(memory).await.ok()?;
    Some(Slot { _cpus: cpus, _memory: memory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_takes_its_share_and_never_more_than_there_is() {
        let capacity = Capacity::new(2, 4096);
        assert_eq!(capacity.shares(1, 512 << 20), (1, 768));
        assert_eq!(capacity.shares(64, 1 << 40), (2, 3072));
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:    2097152 kB\n"), Some(2048));
    }
}
