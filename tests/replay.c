/* tests/replay.c - runs a fuzzer over its kept inputs, without libFuzzer: with any
 * compiler, under any sanitizer.
 *
 * usage: replay_NAME tests/corpora/NAME      (the lines are those of scripts/corpora)
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static _Noreturn void fail(const char *what, const char *which)
{
    (void)fprintf(stderr, "%s: %s\n", which, what);
    exit(1);
}

static uint8_t byte_of(const char *hex, const char *path)
{
    char two[3] = { hex[0], hex[0] ? hex[1] : '\0', '\0' }, *end;
    unsigned long x = strtoul(two, &end, 16);

    if (end != two + 2)
        fail("two hexadecimal digits were expected", path);
    return (uint8_t)x;
}

/* In place: an input is never longer than its line. */
static size_t decode(char *line, const char *path)
{
    bool is_text = line[0] == 't';
    uint8_t *to = (uint8_t *)line;
    const char *p = line + 2;
    size_t n = 0;

    if ((line[0] != 't' && line[0] != 'x') || line[1] != ' ')
        fail("a line begins with 't ', 'x ' or '#'", path);
    while (*p) {
        if (is_text && *p != '\\') {
            to[n++] = (uint8_t)*p++;
            continue;
        }
        p += is_text ? 2 : 0;
        to[n++] = byte_of(p, path);
        p += 2;
    }
    return n;
}

int main(int argc, char **argv)
{
    char *line = NULL;
    unsigned n = 0;
    size_t cap = 0;
    ssize_t len;
    FILE *f;

    if (argc != 2)
        fail("usage: replay_NAME tests/corpora/NAME", argv[0]);
    if (LLVMFuzzerInitialize)
        (void)LLVMFuzzerInitialize(&argc, &argv);
    f = fopen(argv[1], "r");
    if (!f)
        fail("it can't be opened", argv[1]);
    while ((len = getline(&line, &cap, f)) > 0) {
        uint8_t *exact; /* its very end: what reads further is found */
        size_t size;

        if (line[0] == '#')
            continue;
        if (line[len - 1] == '\n')
            line[len - 1] = '\0';
        size = decode(line, argv[1]);
        exact = malloc(size ? size : 1);
        if (!exact)
            fail("out of memory", argv[1]);
        memcpy(exact, line, size);
        (void)LLVMFuzzerTestOneInput(exact, size);
        free(exact);
        n++;
    }
    free(line);
    (void)fclose(f);
    (void)printf("%u inputs\n", n);
    return n > 0 ? 0 : 1;
}
