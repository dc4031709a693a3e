/* tests/tool_tokenize.c - MODEL TEXT IDS [SLICE]: writes the ids of a text file as 32-bit integers.
 *
 * For tests/reference/tokenizer_equal.py. Special tokens in the text are text. Decodes the ids
 * again and exits 1 when that does not give the text (bytes that the vocabulary lacks left out);
 * what the normal form of a text is where the model has one, the caller looks at.
 * Prints
 *
 *     bytes N  tokens N  lost N  MB/s X          (of processor time)
 */
#include "engine/text/vocab.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static char *read_file(const char *path, size_t *ret_len)
{
    FILE *f = fopen(path, "rb");
    char *text = NULL;
    long len;

    if (!f || fseek(f, 0, SEEK_END) < 0 || (len = ftell(f)) < 0 || fseek(f, 0, SEEK_SET) < 0)
        goto fail;
    text = malloc((size_t)len + 1);
    if (!text || fread(text, 1, (size_t)len, f) != (size_t)len)
        goto fail;
    fclose(f);
    *ret_len = (size_t)len;
    return text;

fail:
    perror(path);
    exit(1);
}

/* Whether the ids stand for the text: each byte in turn, or one of those that are `lost`. */
static int decodes_back(const struct vocab *v, const uint32_t *ids, size_t n_ids, const char *text,
                        size_t len, size_t lost)
{
    size_t at = 0, n, i, j;

    for (i = 0; i < n_ids; i++) {
        const uint8_t *bytes = vocab_bytes(v, ids[i], &n);

        for (j = 0; j < n; j++, at++) {
            while (lost > 0 && at < len && (uint8_t)text[at] != bytes[j]) {
                at++;
                lost--;
            }
            if (at == len || (uint8_t)text[at] != bytes[j])
                return 0;
        }
    }
    return len - at == lost;
}

int main(int argc, char **argv)
{
    size_t slice, len, cap, n, n_ids = 0;
    struct vocab_encoder *e = NULL;
    struct vocab *v = NULL;
    struct gguf *g = NULL;
    struct why why = { 0 };
    uint32_t *ids;
    double t0, seconds;
    char *text;
    int ended;
    FILE *out;

    if (argc < 4) {
        fprintf(stderr, "usage: tool_tokenize MODEL TEXT IDS [SLICE]\n");
        return 1;
    }
    slice = argc > 4 ? strtoul(argv[4], NULL, 10) : 4096;
    text = read_file(argv[2], &len);
    cap = VOCAB_IDS_MAX(len) + 1;
    ids = malloc(cap * sizeof(*ids));
    if (!ids || gguf_open(argv[1], &g, &why) < 0 || vocab_open(g, &v, &why) < 0 ||
        vocab_encoder_new(v, &e) < 0) {
        fprintf(stderr, "%s\n", why.text[0] ? why.text : "no memory");
        return 1;
    }
    t0 = cpu_seconds();
    vocab_encoder_start(e, text, len, false);
    do {
        ended = vocab_encoder_next(e, ids + n_ids, slice < cap - n_ids ? slice : cap - n_ids, &n);
        if (ended < 0) {
            fprintf(stderr, "no memory\n");
            return 1;
        }
        n_ids += n;
    } while (!ended);
    seconds = cpu_seconds() - t0;
    if (!vocab_is_nfc(v) && !decodes_back(v, ids, n_ids, text, len, vocab_encoder_lost(e))) {
        fprintf(stderr, "the ids do not decode to the text\n");
        return 1;
    }
    out = fopen(argv[3], "wb");
    if (!out || fwrite(ids, sizeof(*ids), n_ids, out) != n_ids || fclose(out) != 0) {
        perror(argv[3]);
        return 1;
    }
    printf("bytes %zu  tokens %zu  lost %zu  MB/s %.1f\n", len, n_ids, vocab_encoder_lost(e),
           1e-6 * (double)len / seconds);
    vocab_encoder_free(e);
    vocab_close(v);
    gguf_close(g);
    free(ids);
    free(text);
    return 0;
}
