//! String functions of our own, the yardstick for those of the libc.
//!
//! Goes in: memory. Comes out: what the functions of C do. Must not know: the libc. They are plain: one vector width each,
//! no tricks for alignment or caches. Where even these are faster, the libc chose badly. Only for what the benchmark hands
//! them: lengths of at least one vector, texts without page borders closer than a vector behind their end.

use core::arch::x86_64::*;

/// The vectors this CPU and this kernel allow, from CPUID and XCR0.
pub fn has_avx2() -> bool {
    extended(5) && extended_state(6)
}

pub fn has_avx512() -> bool {
    // AVX512F and AVX512BW, and all their registers saved by the kernel.
    extended(16) && extended(30) && extended_state(0xe6)
}

fn extended(bit: u32) -> bool {
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx >> bit & 1 == 1
}

fn extended_state(mask: u32) -> bool {
    const OSXSAVE: u32 = 1 << 27;
    if __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let low: u32;
    // SAFETY: the kernel has enabled the instruction, as OSXSAVE says.
    unsafe { core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack)) };
    low & mask == mask
}

/// # Safety
/// As memcpy.
pub unsafe extern "C" fn copy_rep(to: usize, from: usize, size: usize) -> usize {
    // SAFETY: the caller answers for the blocks.
    unsafe {
        core::arch::asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") size => _, options(nostack));
    }
    to
}

/// # Safety
/// As memset.
pub unsafe extern "C" fn set_rep(to: usize, byte: usize, size: usize) -> usize {
    // SAFETY: the caller answers for the block.
    unsafe {
        core::arch::asm!("rep stosb", inout("rdi") to => _, in("al") byte as u8, inout("rcx") size => _, options(nostack));
    }
    to
}

macro_rules! blocks {
    ($feature:literal, $vector:ty, $width:literal, $load:ident, $store:ident, $fill:ident, $copy:ident, $set:ident) => {
        /// # Safety
        /// As memcpy, for at least one vector, on a CPU that has them.
        #[target_feature(enable = $feature)]
        pub unsafe extern "C" fn $copy(to: usize, from: usize, size: usize) -> usize {
            // SAFETY: the caller answers for the blocks; the last vector overlaps the one before.
            unsafe {
                let last: $vector = $load((from + size - $width) as *const _);
                let mut at = 0;
                while at + $width <= size {
                    $store((to + at) as *mut _, $load((from + at) as *const _));
                    at += $width;
                }
                $store((to + size - $width) as *mut _, last);
            }
            to
        }

        /// # Safety
        /// As memset, for at least one vector, on a CPU that has them.
        #[target_feature(enable = $feature)]
        pub unsafe extern "C" fn $set(to: usize, byte: usize, size: usize) -> usize {
            // SAFETY: the caller answers for the block; the last vector overlaps the one before.
            unsafe {
                let fill: $vector = $fill(byte as i8);
                let mut at = 0;
                while at + $width <= size {
                    $store((to + at) as *mut _, fill);
                    at += $width;
                }
                $store((to + size - $width) as *mut _, fill);
            }
            to
        }
    };
}
blocks!("avx2", __m256i, 32, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_set1_epi8, copy_avx2, set_avx2);
blocks!(
    "avx512f,avx512bw",
    __m512i,
    64,
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    _mm512_set1_epi8,
    copy_avx512,
    set_avx512
);

/// The position of the first byte that is zero or `byte`.
///
/// # Safety
/// Such a byte follows, and a vector beyond it can be read.
#[target_feature(enable = "avx2")]
unsafe fn scan(text: usize, byte: u8) -> usize {
    // SAFETY: the caller answers for what is read.
    unsafe {
        let (zero, wanted) = (_mm256_setzero_si256(), _mm256_set1_epi8(byte as i8));
        let mut at = text;
        loop {
            let block = _mm256_loadu_si256(at as *const _);
            let hit = _mm256_or_si256(_mm256_cmpeq_epi8(block, zero), _mm256_cmpeq_epi8(block, wanted));
            let mask = _mm256_movemask_epi8(hit) as u32;
            if mask != 0 {
                return at - text + mask.trailing_zeros() as usize;
            }
            at += 32;
        }
    }
}

/// # Safety
/// As strlen, and a vector beyond the end can be read.
#[target_feature(enable = "avx2")]
pub unsafe extern "C" fn length_avx2(text: usize, _: usize, _: usize) -> usize {
    // SAFETY: as above.
    unsafe { scan(text, 0) }
}

/// # Safety
/// As memchr for a byte that is there, with no zero before it.
#[target_feature(enable = "avx2")]
pub unsafe extern "C" fn find_avx2(text: usize, byte: usize, _: usize) -> usize {
    // SAFETY: as above.
    unsafe { text + scan(text, byte as u8) }
}

/// # Safety
/// As strcpy for a text of at least one vector, and a vector beyond its end can be read.
#[target_feature(enable = "avx2")]
pub unsafe extern "C" fn copy_text_avx2(to: usize, from: usize, _: usize) -> usize {
    // SAFETY: as above.
    unsafe { copy_avx2(to, from, scan(from, 0) + 1) }
}

/// # Safety
/// As strcmp for equal texts, and a vector beyond their end can be read.
#[target_feature(enable = "avx2")]
pub unsafe extern "C" fn compare_avx2(a: usize, b: usize, _: usize) -> usize {
    // SAFETY: as above.
    unsafe {
        let mut at = 0;
        loop {
            let (x, y) = (_mm256_loadu_si256((a + at) as *const _), _mm256_loadu_si256((b + at) as *const _));
            let same = _mm256_movemask_epi8(_mm256_cmpeq_epi8(x, y)) as u32;
            let end = _mm256_movemask_epi8(_mm256_cmpeq_epi8(x, _mm256_setzero_si256())) as u32;
            if same != u32::MAX || end != 0 {
                let stop = (!same | end).trailing_zeros();
                return (same >> stop & 1 == 0) as usize;
            }
            at += 32;
        }
    }
}
