// A library of one function. How it is assembled and linked makes it special: see `build`.
#ifdef ABI_NOTE
// The note of a library that needs Linux 99.0.0: name size, description size, type 1, "GNU", then Linux and the version.
// Real ones say 3.17 (Qt 5) and are met on older kernels.
__asm__(".section .note.ABI-tag, \"a\", @note\n"
        ".balign 4\n"
        ".long 4, 16, 1\n"
        ".asciz \"GNU\"\n"
        ".long 0, 99, 0, 0\n"
        ".previous\n");
#endif

int library_answer(void) { return 42; }
