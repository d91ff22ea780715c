//! Instructions on registers that the kernel must save: 256 and 512 bits, tiles. Each looks at the highest part of its result.
//!
//! Goes in: nothing. Comes out: rows. Must not know: how they are asked.

use super::feature::{Feature, features};
use crate::check::{Check, How};

/// Components of XCR0.
const AVX: u32 = 0x6;
const AVX512: u32 = 0xe6;

features! {
    avx "avx" 3 (1, 0, 2, 28) super::AVX => 0x4008_0000_0000_0000; // 1.5 + 1.5
        "mov rax, 0x3ff8000000000000", "mov [rdi], rax", "vbroadcastsd ymm0, [rdi]", "vaddpd ymm0, ymm0, ymm0",
        "vextractf128 xmm0, ymm0, 1", "vmovq rax, xmm0", "vzeroupper";
    f16c "f16c" 3 (1, 0, 2, 29) super::AVX => 0x3f80_0000; // 1.0
        "mov eax, 0x3c00", "vmovd xmm0, eax", "vcvtph2ps xmm0, xmm0", "vmovd eax, xmm0";
    fma "fma" 3 (1, 0, 2, 12) super::AVX => 0x3c90_0000_0000_0000; // 2^-54; rounded twice it would be 0
        "mov rax, 0x3ff0000002000000", "vmovq xmm0, rax", "mov rax, 0xbff0000004000000", "vmovq xmm1, rax",
        "vfmadd213sd xmm0, xmm0, xmm1", "vmovq rax, xmm0";
    avx2 "avx2" 3 (7, 0, 1, 5) super::AVX => 0x0000_002a_0000_002a;
        "mov eax, 21", "vmovd xmm0, eax", "vpbroadcastd ymm0, xmm0", "vpaddd ymm0, ymm0, ymm0", "vextracti128 xmm0, ymm0, 1",
        "vmovq rax, xmm0", "vzeroupper";
    vaes "vaes" 0 (7, 0, 2, 9) super::AVX => 0x6363_6363_6363_6363;
        "vpxor ymm0, ymm0, ymm0", "vaesenc ymm0, ymm0, ymm0", "vextracti128 xmm0, ymm0, 1", "vmovq rax, xmm0", "vzeroupper";
    vpclmulqdq "vpclmulqdq" 0 (7, 0, 2, 10) super::AVX => 5;
        "mov eax, 3", "vmovq xmm0, rax", "vpbroadcastq ymm0, xmm0", "vpclmulqdq ymm0, ymm0, ymm0, 0",
        "vextracti128 xmm0, ymm0, 1", "vmovq rax, xmm0", "vzeroupper";
    avx_vnni "avx_vnni" 0 (7, 1, 0, 4) super::AVX => 0x0000_0004_0000_0004; // 4 · 1 · 1
        "mov eax, 0x01010101", "vmovd xmm1, eax", "vpbroadcastd ymm1, xmm1", "vpxor ymm0, ymm0, ymm0",
        "{{vex}} vpdpbusd ymm0, ymm1, ymm1", "vextracti128 xmm0, ymm0, 1", "vmovq rax, xmm0", "vzeroupper";
    avx512f "avx512f" 4 (7, 0, 1, 16) super::AVX512 => 42;
        "mov eax, 21", "vpbroadcastq zmm16, rax", "vpaddq zmm16, zmm16, zmm16", "valignq zmm16, zmm16, zmm16, 7",
        "vmovq rax, xmm16";
    avx512bw "avx512bw" 4 (7, 0, 1, 30) super::AVX512 => 0x4242_4242_4242_4242;
        "mov eax, 0x21", "vpbroadcastb zmm0, eax", "vpaddb zmm0, zmm0, zmm0", "valignq zmm0, zmm0, zmm0, 7", "vmovq rax, xmm0",
        "vzeroupper";
    avx512cd "avx512cd" 4 (7, 0, 1, 28) super::AVX512 => 63;
        "mov eax, 1", "vpbroadcastq zmm0, rax", "vplzcntq zmm0, zmm0", "valignq zmm0, zmm0, zmm0, 7", "vmovq rax, xmm0",
        "vzeroupper";
    avx512dq "avx512dq" 4 (7, 0, 1, 17) super::AVX512 => 36;
        "mov eax, 6", "vpbroadcastq zmm0, rax", "vpmullq zmm0, zmm0, zmm0", "valignq zmm0, zmm0, zmm0, 7", "vmovq rax, xmm0",
        "vzeroupper";
    avx512vl "avx512vl" 4 (7, 0, 1, 31) super::AVX512 => 42;
        "mov eax, 21", "vpbroadcastq ymm16, rax", "vpaddq ymm16, ymm16, ymm16", "valignq ymm16, ymm16, ymm16, 3",
        "vmovq rax, xmm16";
    avx512ifma "avx512ifma" 0 (7, 0, 1, 21) super::AVX512 => 42; // 6 + 6 · 6
        "mov eax, 6", "vpbroadcastq zmm0, rax", "vpmadd52luq zmm0, zmm0, zmm0", "valignq zmm0, zmm0, zmm0, 7",
        "vmovq rax, xmm0", "vzeroupper";
    avx512vbmi "avx512vbmi" 0 (7, 0, 2, 1) super::AVX512 => 0x0808_0808_0808_0808;
        "mov rax, 0x0102030405060708", "vpbroadcastq zmm0, rax", "vpxorq zmm1, zmm1, zmm1", "vpermb zmm0, zmm1, zmm0",
        "valignq zmm0, zmm0, zmm0, 7", "vmovq rax, xmm0", "vzeroupper";
    avx512vbmi2 "avx512_vbmi2" 0 (7, 0, 2, 6) super::AVX512 => 0x0203_0405_0607_0801;
        "mov rax, 0x0102030405060708", "vpbroadcastq zmm0, rax", "vpshldq zmm0, zmm0, zmm0, 8", "valignq zmm0, zmm0, zmm0, 7",
        "vmovq rax, xmm0", "vzeroupper";
    avx512vnni "avx512_vnni" 0 (7, 0, 2, 11) super::AVX512 => 0x0000_0004_0000_0004;
        "mov eax, 0x01010101", "vpbroadcastd zmm1, eax", "vpxorq zmm0, zmm0, zmm0", "vpdpbusd zmm0, zmm1, zmm1",
        "valignq zmm0, zmm0, zmm0, 7", "vmovq rax, xmm0", "vzeroupper";
    avx512bitalg "avx512_bitalg" 0 (7, 0, 2, 12) super::AVX512 => 0x0404_0404_0404_0404;
        "mov eax, 0x0f0f0f0f", "vpbroadcastd zmm0, eax", "vpopcntb zmm0, zmm0", "valignq zmm0, zmm0, zmm0, 7",
        "vmovq rax, xmm0", "vzeroupper";
    avx512vpopcntdq "avx512_vpopcntdq" 0 (7, 0, 2, 14) super::AVX512 => 8;
        "mov eax, 0xff", "vpbroadcastq zmm0, rax", "vpopcntq zmm0, zmm0", "valignq zmm0, zmm0, zmm0, 7", "vmovq rax, xmm0",
        "vzeroupper";
    avx512bf16 "avx512_bf16" 0 (7, 1, 0, 5) super::AVX512 => 0x3f80_3f80_3f80_3f80; // 1.0
        "mov eax, 0x3f800000", "vpbroadcastd zmm0, eax", "vcvtneps2bf16 ymm0, zmm0", "vextracti128 xmm0, ymm0, 1",
        "vmovq rax, xmm0", "vzeroupper";
    avx512fp16 "" 0 (7, 0, 3, 23) super::AVX512 => 0x4000_4000_4000_4000; // 1.0 + 1.0
        "mov eax, 0x3c003c00", "vpbroadcastd zmm0, eax", "vaddph zmm0, zmm0, zmm0", "valignq zmm0, zmm0, zmm0, 7",
        "vmovq rax, xmm0", "vzeroupper";
}
