// Says that it is there, then never ends, and ignores what politely asks it to.
#include "subject.h"

int subject(void) {
    struct {
        long handler, flags, restorer, mask;
    } ignore = {1 /* SIG_IGN */, 0, 0, 0};
    const int signals[] = {1 /* SIGHUP */, 2 /* SIGINT */, 15 /* SIGTERM */};
    for (int i = 0; i < 3; i++) call(SYS_sigaction, signals[i], (long)&ignore, 0, 8, 0, 0);
    put("hanging\n");
    for (;;) call(SYS_pause, 0, 0, 0, 0, 0, 0);
}
