// Writes what breaks terminals, pages and parsers, and ends in the middle of a line.
#include "subject.h"

#define LITERAL(text) put_bytes(text, sizeof text - 1)

int subject(void) {
    LITERAL("<script>alert(1)</script><img src=x onerror=alert(2)>&amp;\"'`${x}{{ x }}{% x %}\n");
    LITERAL("control \0\1\2\b\a\f\v\177 end\n");
    LITERAL("terminal \033[2J\033[31mred\033]0;title\007\033P+q\033\\ \302\233 end\r\rover\n");
    LITERAL("invalid \xff\xfe \xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80 \xe2\x82 end\n");
    LITERAL("invisible \xe2\x80\xae\xe2\x80\x8b\xef\xbb\xbf\xe2\x80\xa8 end\n");
    LITERAL("=cmd|' /C calc'!A0,@SUM(1+1),+1,-1\n");
    LITERAL("{\"abicus\":1,\"probe\":\"kernel\",\"version\":\"</script>\",\"arch\":\"x\",\"planned\":18446744073709551616}\n");
    LITERAL("{\"check\":\"../../etc/passwd\",\"saw\":\"ok\"}\n{\"check\":1,\"saw\":[[[[[[[[\n");
    static char line[1 << 20];
    for (unsigned i = 0; i < sizeof line; i++) line[i] = 'x';
    put_bytes(line, sizeof line);
    LITERAL("\n{\"check\":\"syscall.read\",\"sa");
    return 0;
}
