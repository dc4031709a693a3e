/* bench/big_model.c - writes a GGUF file of Llama 3.1 8B's shape with random weights, to measure
 * with.
 *
 *     big_model FILE
 *
 * Types as in a Q4_K file: all matrices Q4_K, the output Q6_K; 4.6 GB. Weights have a deviation of
 * 0.02, so that activations stay finite. The tokenizer has the bytes and a few merges; the rest of
 * the vocabulary are unused tokens. Nothing it says means anything.
 *
 * The file is written piece by piece: memory holds a MiB of it at a time.
 */
#include "engine/file/gguf.h"
#include "tests/support/gguf_build.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define STD         0.02f
#define PIECE_BYTES ((size_t)1 << 20)

static int fail(const char *path, const char *what)
{
    (void)fprintf(stderr, "big_model: %s: %s\n", path, what);
    return 1;
}

/* All keys and small tensors; a hole where the matrices go. */
static void write_frame(const char *path)
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
    const uint64_t output[] = { shape.n_embd, shape.n_vocab };
    struct gguf_build *b = gguf_build_model(&shape);

    gguf_build_str(b, "general.name", "Random 8B");
    gguf_build_tensor(b, "output.weight", QUANT_Q6_K, 2, output, NULL);
    gguf_build_write(b, path);
    gguf_build_free(b);
}

static int write_values(int fd, const struct gguf_tensor *t, uint64_t seed, void *piece)
{
    const struct quant_info *info;
    enum quant type;
    size_t n_blocks, per_piece;
    off_t at = (off_t)t->off;

    if (quant_from_gguf(t->type, &type) < 0)
        return -1;
    info = quant_info(type);
    n_blocks = t->dims[0] / info->block_cols * t->dims[1];
    per_piece = PIECE_BYTES / info->block_bytes;
    while (n_blocks > 0) {
        size_t n = n_blocks < per_piece ? n_blocks : per_piece, len = n * info->block_bytes;

        gguf_build_values(type, n * info->block_cols, 0, STD, &seed, piece);
        if (pwrite(fd, piece, len, at) != (ssize_t)len)
            return -1;
        at += (off_t)len;
        n_blocks -= n;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct why why = { 0 };
    struct gguf *g = NULL;
    void *piece = malloc(PIECE_BYTES);
    int fd, failed = 0;

    if (argc != 2 || !piece)
        return fail("usage", "big_model FILE");
    write_frame(argv[1]);
    if (gguf_open(argv[1], &g, &why) < 0)
        return fail(argv[1], why.text);
    fd = open(argv[1], O_WRONLY | O_CLOEXEC);
    for (size_t i = 0; i < gguf_n_tensors(g) && !failed; i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);

        if (t->n_dims == 2) /* the vectors are written already */
            failed = write_values(fd, t, i, piece);
    }
    if (fd < 0 || failed || fsync(fd) < 0)
        return fail(argv[1], "can't write it");
    (void)close(fd);
    gguf_close(g);
    free(piece);
    return 0;
}
