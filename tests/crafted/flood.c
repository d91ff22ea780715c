// Writes lines without end; after 4 GiB somebody has forgotten to stop it, and it stops by itself.
#include "subject.h"

int subject(void) {
    static char block[1 << 16];
    for (unsigned i = 0; i < sizeof block; i++) block[i] = i % 64 == 63 ? '\n' : 'f';
    for (int i = 0; i < 1 << 16; i++) put_bytes(block, sizeof block);
    return 0;
}
