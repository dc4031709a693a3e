/* tests/tool_logits.c - MODEL IDS WINDOW [CPU [KV [SEGMENT [THREADS [STEP]]]]]: logits to standard
 * output.
 *
 * For tests/reference/kl.py and kl_device.py. IDS is a file of 32-bit ids. They are read in windows
 * that do not overlap, each from nothing; for every id in turn a row of n_vocab floats is written,
 * the logits after it. CPU: scalar, avx2, auto (the default). KV: f16 (the default), f32. STEP:
 * tokens that are read at a time, up to 256. Prints the tokens a second to standard error.
 */
#include "tests/support/rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STEP 256u /* tokens a step: 50 MB of logits for a vocabulary of 49,152 */

static uint32_t *read_ids(const char *path, uint32_t *ret_n)
{
    FILE *f = fopen(path, "rb");
    uint32_t *ids = NULL;
    long len;

    if (!f || fseek(f, 0, SEEK_END) < 0 || (len = ftell(f)) < 0 || fseek(f, 0, SEEK_SET) < 0)
        goto fail;
    ids = malloc((size_t)len + 1);
    *ret_n = (uint32_t)((size_t)len / sizeof(*ids));
    if (!ids || fread(ids, sizeof(*ids), *ret_n, f) != *ret_n)
        goto fail;
    fclose(f);
    return ids;

fail:
    perror(path);
    exit(1);
}

static int dump_window(struct rig *r, const uint32_t *ids, uint32_t n, uint32_t seg_len,
                       uint32_t step, float *logits)
{
    struct seq s;
    int err = rig_seq(r, n, seg_len, 0, &s);

    if (err < 0)
        return err;
    for (uint32_t at = 0; at < n && err == 0; at += STEP) {
        uint32_t part = n - at < STEP ? n - at : STEP;

        err = rig_feed(r, &s, ids + at, part, step, logits);
        if (err == 0 && fwrite(logits, sizeof(float) * r->model->n_vocab, part, stdout) != part)
            err = -EIO;
    }
    seq_close(&s);
    return err;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    struct rig_opts opts = { .cpu = "auto", .kv = KV_F16, .threads = 2, .max_batch = STEP };
    uint32_t window, n, seg_len = SEQ_SEGMENT_DEFAULT, step = STEP;
    struct why why = { 0 };
    struct rig r;
    uint32_t *ids;
    float *logits;
    double start;
    int err = 0;

    if (argc < 4) {
        fputs("usage: tool_logits MODEL IDS WINDOW [CPU [KV [SEGMENT [THREADS [STEP]]]]]\n",
              stderr);
        return 2;
    }
    opts.model = argv[1];
    opts.max_tokens = window = (uint32_t)strtoul(argv[3], NULL, 10);
    opts.cpu = argc > 4 ? argv[4] : opts.cpu;
    if (argc > 5 && strcmp(argv[5], "f16") != 0)
        opts.kv = strcmp(argv[5], "f32") == 0 ? KV_F32 : KV_Q8_0;
    seg_len = argc > 6 ? (uint32_t)strtoul(argv[6], NULL, 10) : seg_len;
    opts.threads = argc > 7 ? (uint32_t)strtoul(argv[7], NULL, 10) : opts.threads;
    step = argc > 8 ? (uint32_t)strtoul(argv[8], NULL, 10) : step;
    if (window == 0 || step == 0 || step > STEP || rig_open(&r, &opts, &why) < 0) {
        fprintf(stderr, "tool_logits: %s\n",
                why.text[0] ? why.text : "a window or step of no tokens");
        return 1;
    }
    ids = read_ids(argv[2], &n);
    logits = malloc((size_t)STEP * r.model->n_vocab * sizeof(*logits));
    if (!logits)
        return 1;

    start = now();
    for (uint32_t at = 0; at < n && err == 0; at += window)
        err = dump_window(&r, ids + at, n - at < window ? n - at : window, seg_len, step, logits);
    if (err == 0 && fflush(stdout) == EOF)
        err = -errno;
    if (err < 0)
        fprintf(stderr, "tool_logits: %s\n", strerror(-err));
    else
        fprintf(stderr, "%u tokens, %.0f a second with their logits\n", n, n / (now() - start));
    free(logits);
    free(ids);
    rig_close(&r);
    return err < 0;
}
