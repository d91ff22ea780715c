// Touches 512 MiB, one at a time: enough for any limit a test sets, too little to harm a machine without one.
#include "subject.h"

enum { MIB = 1 << 20, MOST = 512 };

int subject(void) {
    for (int mib = 0; mib < MOST; mib++) {
        long at = call(SYS_mmap, 0, MIB, 3 /* read, write */, 0x22 /* private, anonymous */, -1, 0);
        if (at < 0 && at > -4096) return failed("mmap", at);
        for (int page = 0; page < MIB; page += 4096) ((volatile char *)at)[page] = 1;
    }
    put("ok\n");
    return 0;
}
