/* engine/file/arena.h - how the packed weights of a model lie in memory, and in an image of it.
 *
 * The layout follows from the model's shape and types alone, never from the order in which its file
 * has them. What a step needs as a whole is one extent:
 *
 *     | vectors | embedding | output | layer 0 | layer 1 | ... | layer n - 1 |
 *     0         each extent begins at a multiple of 4096, zeros before it
 *
 *     vectors   output_norm, rope_freqs
 *     layer     its matrices, then its vectors, in the order of weights.c's table, each at a
 *               multiple of 64; a tied model has an output of no bytes
 *
 * Sums       xxh3-128 of pieces of an extent, from its beginning: of 4 MiB, in the embedding and
 *            the output of a tile (16 rows), so that single rows can be checked. An extent's last
 *            piece is what is left. The digest of the arena's bytes is that of all its sums; zeros
 *            between extents are in none.
 * Layout     a digest of every tensor's name, type, shape, order of rows and place, and of
 *            ARENA_VERSION, which changes when tiles do.
 *
 * Threads    immutable once it is built.
 * Errors     arena_open: -ENOMEM. arena_check: -EBADMSG, bytes that are not those of their sum.
 */
#ifndef ENGINE_FILE_ARENA_H
#define ENGINE_FILE_ARENA_H

#include "engine/file/quant.h"

#include <stddef.h>
#include <stdint.h>

#define ARENA_VERSION     1u
#define ARENA_ALIGN       4096u /* of extents */
#define ARENA_ALIGN_ITEM  64u   /* of tensors */
#define ARENA_PIECE       ((size_t)4 << 20)
#define ARENA_DIGEST_SIZE 16u

struct backend;

enum { ARENA_VECTORS, ARENA_EMBD, ARENA_OUTPUT, ARENA_LAYERS /* layer 0, and so on */ };

struct arena_extent {
    size_t off, len;
    size_t piece; /* bytes of one sum */
    uint32_t first_sum, n_sums;
};

/* xxh3-128 in canonical order, as base/digest.h writes it. */
struct arena_sum {
    uint8_t bytes[ARENA_DIGEST_SIZE];
};

struct arena {
    struct arena_extent *extents; /* (n_extents) */
    uint32_t n_extents;           /* ARENA_LAYERS + the model's layers */
    uint32_t n_sums;
    size_t len; /* of all */
    struct arena_sum layout;
};

/* --- building, in the order of extents -------------------------------------------------------- */

/* What a tensor is, for the layout's digest. */
struct arena_item {
    const char *name;
    enum quant type;
    uint32_t n_rows, n_cols, head_dim; /* head_dim: as engine/file/weights.h has it */
};

int arena_open(struct arena *a, uint32_t n_layer);
void arena_close(struct arena *a);
void arena_begin(struct arena *a, uint32_t extent, size_t piece);
/* Gives len bytes their place in the extent that was begun last; returns where. */
size_t arena_add(struct arena *a, const struct arena_item *item, size_t len);
void arena_end(struct arena *a);

/* --- sums ------------------------------------------------------------------------------------- */

/* The bytes of sum i. */
void arena_piece(const struct arena *a, uint32_t i, size_t *ret_off, size_t *ret_len);

/* Sums [first, first + n), by b's host threads (NULL: this one). base: where the arena's byte 0 is
 * or would be: only the pieces' own bytes are looked at, by the host. */
void arena_sums(const struct arena *a, struct backend *b, const uint8_t *base, uint32_t first,
                uint32_t n, struct arena_sum *ret);
/* Whether the bytes are those of sums[first .. first + n) of all sums. */
int arena_check(const struct arena *a, struct backend *b, const uint8_t *base, uint32_t first,
                uint32_t n, const struct arena_sum *sums);
struct arena_sum arena_digest(const struct arena *a, const struct arena_sum *sums);
struct arena_sum arena_hash(const void *bytes, size_t len);

#endif
