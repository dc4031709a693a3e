/* bench/load.c - how fast weights come from a GGUF file into memory that is there already.
 *
 *     load FILE [cold|warm] [THREADS]
 *
 * cold: past the page cache, which is emptied of the file before; warm: from the page cache, which
 * is filled with it before. Times are of the pass alone (engine/file/weights_read.c): read, hashed,
 * checked for NaN and packed; the memory was touched before, since what a fresh page costs is the
 * machine's business and not the disk's. One line.
 */
#include "engine/backend.h"
#include "engine/file/feed.h"
#include "engine/file/hparams.h"
#include "engine/file/weights.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int fail(const struct why *why, const char *what)
{
    (void)fprintf(stderr, "load: %s%s%s\n", what, why ? ": " : "", why ? why->text : "");
    return 1;
}

/* The page cache has all of it, or nothing. */
static int prepare(const struct gguf *g, bool cold)
{
    static char piece[1 << 20];

    if (cold)
        return fsync(gguf_fd(g)) < 0 || posix_fadvise(gguf_fd(g), 0, 0, POSIX_FADV_DONTNEED) != 0;
    for (uint64_t at = 0; at < gguf_len(g); at += sizeof(piece))
        if (pread(gguf_fd(g), piece, sizeof(piece), (off_t)at) < 0)
            return -1;
    return 0;
}

static int load(const char *path, bool cold, uint32_t threads)
{
    const struct backend_options o = {
        .cpu = "auto", .threads = threads, .pin = true, .max_rows = 16
    };
    struct feed_options way = { .direct = cold };
    struct model m = { .arch = MODEL_LLAMA };
    const float *factors = NULL;
    struct why why = { "" };
    struct backend *b;
    struct weights w;
    struct gguf *g;
    char digest[33];
    double start;
    float scale;
    void *mem;

    if (backend_open(&backend_cpu, &o, &b, &why) < 0 || gguf_open(path, &g, &why) < 0 ||
        hparams_read(g, &m, &scale, &why) < 0 || weights_plan(g, &m, &factors, &w, &why) < 0)
        return fail(&why, "opening");
    if (backend_alloc(b, m.packed.len, &mem) < 0 || backend_populate(b, mem, m.packed.len) < 0)
        return fail(NULL, "no memory");
    if (prepare(g, cold) != 0)
        return fail(NULL, "the page cache");
    w.read = &way;
    start = now_s();
    if (weights_read(&w, b, mem, NULL, digest) < 0)
        return fail(&why, "reading");
    start = now_s() - start;
    printf("%llu bytes in %.3f s: %.3f GB/s, %s, digest %s\n", (unsigned long long)gguf_len(g),
           start, (double)gguf_len(g) / start / 1e9, cold ? "cold" : "warm", digest);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 4)
        return fail(NULL, "usage: load FILE [cold|warm] [THREADS]");
    return load(argv[1], argc < 3 || strcmp(argv[2], "warm") != 0,
                argc < 4 ? 0 : (uint32_t)atoi(argv[3]));
}
