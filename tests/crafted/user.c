// Uses the library of library.c, which the loader finds for it.
#include "subject.h"

int library_answer(void);

int subject(void) {
    if (library_answer() != 42) return failed("library", -1);
    put("ok\n");
    return 0;
}
