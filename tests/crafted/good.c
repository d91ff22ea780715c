// Nothing is in its way: what fails here is the rig's fault. Also the program of the i386 image.
#include "subject.h"

int subject(void) {
    put("ok\n");
    return 0;
}
