// Opens the library of library.c at run time, and says what the loader says.
#include "subject.h"

void *dlopen(const char *name, int flags);
void *dlsym(void *handle, const char *name);
char *dlerror(void);

int subject(void) {
    void *library = dlopen("libsubject.so", 2 /* RTLD_NOW */);
    if (!library) {
        put(dlerror());
        put("\n");
        return 1;
    }
    int (*answer)(void) = (int (*)(void))dlsym(library, "library_answer");
    if (!answer || answer() != 42) return failed("library", -1);
    put("ok\n");
    return 0;
}
