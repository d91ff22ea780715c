// Asks for the time at the fixed addresses of the vsyscall page, as gettimeofday, time and getcpu of glibc before 2.14
// (static programs: before 2.31) do. Linux since 4.16 only emulates the page, and many kernels are configured without.
// Built as a program (-DPROGRAM), as a library (-DLIBRARY), and as a program that uses that library (neither).
#ifndef LIBRARY
#include "subject.h"
#endif

struct timeval {
    long seconds, microseconds;
};

#if defined(PROGRAM) || defined(LIBRARY)
#define PAGE 0xffffffffff600000ul

long old_time(void) { return ((long (*)(long *))(PAGE + 0x400))(0); }

long old_gettimeofday(struct timeval *now) {
    return ((long (*)(struct timeval *, void *))(PAGE))(now, 0);
}

long old_getcpu(unsigned *cpu) {
    return ((long (*)(unsigned *, unsigned *, void *))(PAGE + 0x800))(cpu, 0, 0);
}
#else
long old_time(void);
long old_gettimeofday(struct timeval *now);
long old_getcpu(unsigned *cpu);
#endif

#ifndef LIBRARY
int subject(void) {
    struct timeval now = {0, 0};
    unsigned cpu = 0;
    long seconds = old_time();
    if (old_gettimeofday(&now) != 0) return failed("gettimeofday", -1);
    if (old_getcpu(&cpu) != 0) return failed("getcpu", -1);
    // Both clocks are read within a moment of each other.
    if (seconds < 1000000000 || now.seconds - seconds > 5) {
        put("the vsyscall page tells a wrong time\n");
        return 1;
    }
    put("ok\n");
    return 0;
}
#endif
