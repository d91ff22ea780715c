//! Instructions on general registers, memory and 128-bit vectors, which need no more of the kernel than SSE does.
//!
//! Goes in: nothing. Comes out: rows. Must not know: how they are asked.

use super::feature::{Feature, features};
use crate::check::{Check, How};

features! {
    sse3 "pni" 2 (1, 0, 2, 0) 0 => 0x4010_0000_0000_0000; // 2.0 + 2.0
        "mov rax, 0x4000000000000000", "movq xmm0, rax", "movddup xmm0, xmm0", "haddpd xmm0, xmm0", "movq rax, xmm0";
    ssse3 "ssse3" 2 (1, 0, 2, 9) 0 => 0x0807_0605_0403_0201; // reversed
        "mov rax, 0x0102030405060708", "movq xmm0, rax", "mov rax, 0x0001020304050607", "movq xmm1, rax",
        "pshufb xmm0, xmm1", "movq rax, xmm0";
    sse4_1 "sse4_1" 2 (1, 0, 2, 19) 0 => 0x0000_0009_0000_0031; // 3 and 7 squared
        "mov rax, 0x0000000300000007", "movq xmm0, rax", "pmulld xmm0, xmm0", "pextrq rax, xmm0, 0";
    sse4_2 "sse4_2" 2 (1, 0, 2, 20) 0 => 0xe306_9283; // CRC-32C of 123456789
        "mov eax, 0xffffffff", "mov rcx, 0x3837363534333231", "crc32 rax, rcx", "mov ecx, 0x39", "crc32 eax, cl", "not eax";
    popcnt "popcnt" 2 (1, 0, 2, 23) 0 => 16;
        "mov eax, 0xff00ff", "popcnt rax, rax";
    cx16 "cx16" 2 (1, 0, 2, 13) 0 => 8; // stores 3 and 5 where it finds zeroes
        "xor eax, eax", "xor edx, edx", "mov ebx, 3", "mov ecx, 5", "lock cmpxchg16b [rdi]", "mov rax, [rdi]",
        "add rax, [rdi + 8]";
    lahf "lahf_lm" 2 (0x8000_0001, 0, 2, 0) 0 => 0x46; // the flags of equality
        "cmp eax, eax", "lahf", "movzx eax, ah";
    movbe "movbe" 3 (1, 0, 2, 22) 0 => 0x0807_0605_0403_0201;
        "mov rax, 0x0102030405060708", "mov [rdi], rax", "movbe rax, [rdi]";
    lzcnt "abm" 3 (0x8000_0001, 0, 2, 5) 0 => 63; // runs as bsr, which says 0, on processors without it
        "mov eax, 1", "lzcnt rax, rax";
    bmi1 "bmi1" 3 (7, 0, 1, 3) 0 => 0x130; // tzcnt(0) is 64; bsf, as which it may run, leaves 0
        "mov ecx, 0x0f", "mov edx, 0xff", "andn rax, rcx, rdx", "xor edx, edx", "xor ecx, ecx", "tzcnt rcx, rdx", "add rax, rcx";
    bmi2 "bmi2" 3 (7, 0, 1, 8) 0 => 0x2468;
        "mov eax, 0x12345678", "mov ecx, 0x0f0f0f0f", "pext rax, rax, rcx";
    adx "adx" 0 (7, 0, 1, 19) 0 => 42; // 41 and the carry of -1 + 1
        "mov rax, -1", "mov ecx, 1", "mov edx, 41", "xor ebx, ebx", "adcx rax, rcx", "adox rdx, rax", "adcx rdx, rbx",
        "mov rax, rdx";
    aes "aes" 0 (1, 0, 2, 25) 0 => 0x6363_6363_6363_6363; // the S-box of 0
        "pxor xmm0, xmm0", "pxor xmm1, xmm1", "aesenc xmm0, xmm1", "movq rax, xmm0";
    pclmulqdq "pclmulqdq" 0 (1, 0, 2, 1) 0 => 5; // (x + 1)², without carry
        "mov eax, 3", "movq xmm0, rax", "pclmulqdq xmm0, xmm0, 0", "movq rax, xmm0";
    sha "sha_ni" 0 (7, 0, 1, 29) 0 => 0x4000_0000; // 1 rotated by 30
        "mov eax, 1", "movd xmm0, eax", "pslldq xmm0, 12", "pxor xmm1, xmm1", "sha1nexte xmm0, xmm1", "psrldq xmm0, 12",
        "movd eax, xmm0";
    gfni "gfni" 0 (7, 0, 2, 8) 0 => 1; // 53 · ca of the AES specification
        "mov eax, 0x53", "movq xmm0, rax", "mov eax, 0xca", "movq xmm1, rax", "gf2p8mulb xmm0, xmm1", "movq rax, xmm0";
    sse4a "sse4a" 0 (0x8000_0001, 0, 2, 6) 0 => 0xbc;
        "mov eax, 0xabcd", "movq xmm0, rax", "extrq xmm0, 8, 4", "movq rax, xmm0";
    // Two numbers that differ: after a suspend some AMD processors said -1 for ever.
    rdrand "rdrand" 0 (1, 0, 2, 30) 0 => 1;
        "mov ecx, 1000", "2:", "rdrand rax", "jnc 3f", "rdrand rdx", "jnc 3f", "cmp rax, rdx", "je 3f", "mov eax, 1", "ret",
        "3:", "pause", "dec ecx", "jnz 2b", "xor eax, eax";
    rdseed "rdseed" 0 (7, 0, 1, 18) 0 => 1; // may run dry for a while
        "mov ecx, 20000", "2:", "rdseed rax", "jnc 3f", "rdseed rdx", "jnc 3f", "cmp rax, rdx", "je 3f", "mov eax, 1", "ret",
        "3:", "pause", "dec ecx", "jnz 2b", "xor eax, eax";
    clflush "clflush" 0 (1, 0, 3, 19) 0 => 42;
        "mov dword ptr [rdi], 42", "clflush [rdi]", "mfence", "mov eax, [rdi]";
    clflushopt "clflushopt" 0 (7, 0, 1, 23) 0 => 42;
        "mov dword ptr [rdi], 42", "clflushopt [rdi]", "mfence", "mov eax, [rdi]";
    clwb "clwb" 0 (7, 0, 1, 24) 0 => 42;
        "mov dword ptr [rdi], 42", "clwb [rdi]", "mfence", "mov eax, [rdi]";
    clzero "clzero" 0 (0x8000_0008, 0, 1, 0) 0 => 42;
        "mov dword ptr [rdi], 5", "mov rax, rdi", "clzero", "mfence", "mov eax, [rdi]", "add eax, 42";
    movdiri "movdiri" 0 (7, 0, 2, 27) 0 => 42;
        "mov eax, 42", "movdiri [rdi], rax", "sfence", "mov rax, [rdi]";
    movdir64b "movdir64b" 0 (7, 0, 2, 28) 0 => 42;
        "mov dword ptr [rdi], 42", "lea rax, [rdi + 64]", "movdir64b rax, [rdi]", "sfence", "mov rax, [rdi + 64]";
    serialize "" 0 (7, 0, 3, 14) 0 => 42;
        "mov eax, 42", "serialize";
    waitpkg "waitpkg" 0 (7, 0, 2, 5) 0 => 42; // until a time that is over
        "xor eax, eax", "xor edx, edx", "xor ecx, ecx", "tpause ecx", "mov eax, 42";
    // Commits, or aborts and takes back what it did; microcode may make it abort always.
    rtm "rtm" 0 (7, 0, 1, 11) 0 => 1;
        "mov ecx, 5", "xbegin 2f", "mov ecx, 9", "xend", "2:", "cmp ecx, 9", "je 3f", "cmp ecx, 5", "3:", "sete al",
        "movzx eax, al";
    // prctl(PR_SET_TSC) may forbid it.
    rdtsc "tsc" 0 (1, 0, 3, 4) 0 => 1;
        "rdtsc", "shl rdx, 32", "or rdx, rax", "mov rsi, rdx", "lfence", "rdtsc", "shl rdx, 32", "or rdx, rax", "cmp rdx, rsi",
        "setae al", "movzx eax, al";
    rdtscp "rdtscp" 0 (0x8000_0001, 0, 3, 27) 0 => 1;
        "rdtscp", "shl rdx, 32", "or rdx, rax", "mov rsi, rdx", "rdtscp", "shl rdx, 32", "or rdx, rax", "cmp rdx, rsi",
        "setae al", "movzx eax, al";
    // The same processor number as rdtscp, unless moved between the two.
    rdpid "rdpid" 0 (7, 0, 2, 22) 0 => 1;
        "mov ebx, 100", "2:", "rdtscp", "mov esi, ecx", "rdpid r8", "rdtscp", "cmp ecx, esi", "jne 3f", "cmp r8d, esi",
        "sete al", "movzx eax, al", "ret", "3:", "dec ebx", "jnz 2b", "xor eax, eax";
    // Only where the kernel allows it (linux 5.9).
    fsgsbase "fsgsbase" 0 (super::super::feature::HWCAP2, 0, 0, 1) 0 => 0x1234;
        "mov eax, 0x1234", "wrgsbase rax", "rdgsbase rcx", "xor edx, edx", "wrgsbase rdx", "mov rax, rcx";
    // CPUID's OSPKE: the kernel turned protection keys on. The rights of key 14 are changed and restored.
    pku "ospke" 0 (7, 0, 2, 4) 0 => 0x3000_0000;
        "xor ecx, ecx", "rdpkru", "mov esi, eax", "xor eax, 0x30000000", "wrpkru", "rdpkru", "mov r8d, eax", "mov eax, esi",
        "wrpkru", "mov eax, r8d", "xor eax, esi";
    xgetbv "" 3 (1, 0, 2, 27) 0 => 3; // OSXSAVE, which level 3 asks for
        "xor ecx, ecx", "xgetbv", "and eax, 3";
    xsave "xsave" 0 (1, 0, 2, 26) 3 => 0x1122_3344_5566_7788;
        "mov rax, 0x1122334455667788", "movq xmm0, rax", "mov eax, 3", "xor edx, edx", "xsave [rdi]", "mov rax, [rdi + 160]";
    xsaveopt "xsaveopt" 0 (13, 1, 0, 0) 3 => 0x1122_3344_5566_7788;
        "mov rax, 0x1122334455667788", "movq xmm0, rax", "mov eax, 3", "xor edx, edx", "xsaveopt [rdi]", "mov rax, [rdi + 160]";
    xsavec "xsavec" 0 (13, 1, 0, 1) 3 => 0x1122_3344_5566_7788;
        "mov rax, 0x1122334455667788", "movq xmm0, rax", "mov eax, 3", "xor edx, edx", "xsavec [rdi]", "mov rax, [rdi + 160]";
}
