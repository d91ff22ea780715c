// Makes a file at PLACE: the images are made so that it cannot.
#include "subject.h"

int subject(void) {
    long file = call(SYS_open, (long)PLACE, 0102 /* O_RDWR | O_CREAT */, 0600, 0, 0, 0);
    if (file < 0) return failed("open " PLACE, file);
    if (call(SYS_write, file, (long)"x", 1, 0, 0, 0) != 1) return failed("write " PLACE, -1);
    put("ok\n");
    return 0;
}
