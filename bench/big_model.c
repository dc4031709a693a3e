/* bench/big_model.c - writes a GGUF file of Llama 3.1 8B's shape with random weights, to measure
 * with.
 *
 *     big_model [-m] [-r] [-t] FILE
 *
 * Types as in a Q4_K file: all matrices Q4_K, the output Q6_K; 4.6 GB. -m: as in a Q4_K_M file,
 * where half of attn_v and ffn_down are Q6_K, too; 4.9 GB. Weights have a deviation of 0.02, so
 * that activations stay finite. The tokenizer has the bytes and a few merges; the rest of the
 * vocabulary are unused tokens. Nothing it says means anything.
 *
 * The file is written piece by piece: memory holds a MiB of it at a time. -r: each matrix is its
 * first MiB again and again, which is as good to time and takes seconds to write. -t: a tiny model
 * of the same types, to try all that with.
 */
#include "engine/file/gguf.h"
#include "tests/support/gguf_build.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define STD         0.02f
#define PIECE_BYTES ((size_t)1 << 20)

struct wanted {
    const char *path;
    bool mixed, repeats, tiny;
};

static int fail(const char *path, const char *what)
{
    (void)fprintf(stderr, "big_model: %s: %s\n", path, what);
    return 1;
}

static struct gguf_build_shape shape_of(const struct wanted *w)
{
    struct gguf_build_shape shape = {
        .arch = "llama",
        .n_layer = 32,
        .n_embd = 4096,
        .n_ff = 14336,
        .n_head = 32,
        .n_head_kv = 8,
        .head_dim = 128,
        .n_ctx = 131072,
        .n_vocab = 128256,
        .embd = QUANT_Q4_K,
        .attn = QUANT_Q4_K,
        .ffn = QUANT_Q4_K,
        .rope_freqs = true,
        .rope_base = 500000,
        .rms_eps = 1e-5f,
        .std = STD,
        .seed = 8,
        .sparse = true,
    };

    if (w->tiny) {
        shape.n_layer = 2;
        shape.n_embd = 256;
        shape.n_ff = 512;
        shape.n_head = 4;
        shape.n_head_kv = 2;
        shape.head_dim = 64;
        shape.n_vocab = GGUF_BUILD_N_VOCAB;
    }
    return shape;
}

/* Layers whose values and last projections llama.cpp keeps at 6 bits: the first and the last
 * eighth, and every third between them. */
static void mix(struct gguf_build *b, const struct gguf_build_shape *s)
{
    const uint64_t v[] = { s->n_embd, (uint64_t)s->n_head_kv * s->head_dim };
    const uint64_t down[] = { s->n_ff, s->n_embd };
    uint32_t eighth = s->n_layer / 8;
    char name[64];

    for (uint32_t i = 0; i < s->n_layer; i++) {
        if (i >= eighth && i < 7 * s->n_layer / 8 && (i - eighth) % 3 != 2)
            continue;
        (void)snprintf(name, sizeof(name), "blk.%u.attn_v.weight", i);
        gguf_build_tensor(b, name, QUANT_Q6_K, 2, v, NULL);
        (void)snprintf(name, sizeof(name), "blk.%u.ffn_down.weight", i);
        gguf_build_tensor(b, name, QUANT_Q6_K, 2, down, NULL);
    }
}

/* All keys and small tensors; a hole where the matrices go. */
static void write_frame(const struct wanted *w)
{
    struct gguf_build_shape shape = shape_of(w);
    const uint64_t output[] = { shape.n_embd, shape.n_vocab };
    struct gguf_build *b = gguf_build_model(&shape);

    gguf_build_str(b, "general.name", w->tiny ? "Random and tiny" : "Random 8B");
    gguf_build_tensor(b, "output.weight", QUANT_Q6_K, 2, output, NULL);
    if (w->mixed)
        mix(b, &shape);
    gguf_build_write(b, w->path);
    gguf_build_free(b);
}

static int write_values(int fd, const struct gguf_tensor *t, uint64_t seed, bool repeats,
                        void *piece)
{
    const struct quant_info *info;
    enum quant type;
    size_t n_blocks, per_piece;
    off_t at = (off_t)t->off;
    bool made = false;

    if (quant_from_gguf(t->type, &type) < 0)
        return -1;
    info = quant_info(type);
    n_blocks = t->dims[0] / info->block_cols * t->dims[1];
    per_piece = PIECE_BYTES / info->block_bytes;
    while (n_blocks > 0) {
        size_t n = n_blocks < per_piece ? n_blocks : per_piece, len = n * info->block_bytes;

        if (!made || !repeats)
            gguf_build_values(type, n * info->block_cols, 0, STD, &seed, piece);
        made = true;
        if (pwrite(fd, piece, len, at) != (ssize_t)len)
            return -1;
        at += (off_t)len;
        n_blocks -= n;
    }
    return 0;
}

/* Matrices alone: the vectors are written already. */
static int write_matrices(const struct wanted *w, void *piece)
{
    struct why why = { 0 };
    struct gguf *g = NULL;
    int fd, failed = 0;

    if (gguf_open(w->path, &g, &why) < 0)
        return fail(w->path, why.text);
    fd = open(w->path, O_WRONLY | O_CLOEXEC);
    for (size_t i = 0; i < gguf_n_tensors(g) && fd >= 0 && !failed; i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);

        if (t->n_dims == 2)
            failed = write_values(fd, t, i, w->repeats, piece);
    }
    gguf_close(g);
    if (fd < 0 || failed || fsync(fd) < 0)
        return fail(w->path, "can't write it");
    (void)close(fd);
    return 0;
}

int main(int argc, char **argv)
{
    struct wanted w = { .path = NULL };
    void *piece = malloc(PIECE_BYTES);
    int o, r;

    while ((o = getopt(argc, argv, "mrt")) != -1) {
        w.mixed |= o == 'm';
        w.repeats |= o == 'r';
        w.tiny |= o == 't';
        if (o == '?')
            return 1;
    }
    if (argc - optind != 1 || !piece)
        return fail("usage", "big_model [-m] [-r] [-t] FILE");
    w.path = argv[optind];
    write_frame(&w);
    r = write_matrices(&w, piece);
    free(piece);
    return r;
}
