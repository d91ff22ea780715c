// What the crafted programs share: an entry and raw system calls, for x86-64 and i386. No libc, so that nothing but the
// one thing an image is made for can be in the way.
#pragma once

typedef unsigned long word;

#if defined(__x86_64__)
enum { SYS_write = 1, SYS_open = 2, SYS_mmap = 9, SYS_sigaction = 13, SYS_pause = 34, SYS_exit_group = 231 };
static long call(long n, long a, long b, long c, long d, long e, long f) {
    long r;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return r;
}
#elif defined(__i386__)
enum { SYS_write = 4, SYS_exit_group = 252 };
static long call(long n, long a, long b, long c, long d, long e, long f) {
    long r;
    (void)d, (void)e, (void)f;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
    return r;
}
#endif

static word length(const char *text) {
    word n = 0;
    while (text[n]) n++;
    return n;
}

// Writes all of it; what cannot be written ends the program, as SIGPIPE would.
static void put_bytes(const char *bytes, word n) {
    while (n > 0) {
        long written = call(SYS_write, 1, (long)bytes, n, 0, 0, 0);
        if (written <= 0) call(SYS_exit_group, 9, 0, 0, 0, 0, 0);
        bytes += written;
        n -= written;
    }
}

__attribute__((unused)) static void put(const char *text) { put_bytes(text, length(text)); }

__attribute__((unused)) static void put_number(word number) {
    char digits[24];
    int at = sizeof digits;
    do digits[--at] = '0' + number % 10;
    while (number /= 10);
    put_bytes(digits + at, sizeof digits - at);
}

// "WHAT: errno N", and 1.
__attribute__((unused)) static int failed(const char *what, long result) {
    put(what);
    put(": errno ");
    put_number(-result);
    put("\n");
    return 1;
}

int subject(void);

__attribute__((noreturn, used)) static void begin(void) {
    call(SYS_exit_group, subject(), 0, 0, 0, 0, 0);
    __builtin_unreachable();
}

// The stack is aligned by hand: what begin calls may use SSE.
#if defined(__x86_64__)
__asm__(".globl _start\n_start: xor %ebp, %ebp\n and $-16, %rsp\n call begin\n hlt\n");
#elif defined(__i386__)
__asm__(".globl _start\n_start: xor %ebp, %ebp\n and $-16, %esp\n call begin\n hlt\n");
#endif
