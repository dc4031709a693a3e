/* engine/file/packed.h - how the packed weights of a model lie in memory, and in an image of it.
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
 *            PACKED_VERSION, which changes when tiles do.
 *
 * Threads    immutable once it is built.
 * Errors     packed_open: -ENOMEM. packed_check: -EBADMSG, bytes that are not those of their sum.
 */
#ifndef ENGINE_FILE_PACKED_H
#define ENGINE_FILE_PACKED_H

#include "engine/file/quant.h"

#include <stddef.h>
#include <stdint.h>

#define PACKED_VERSION     1u
#define PACKED_ALIGN       4096u /* of extents */
#define PACKED_ALIGN_ITEM  64u   /* of tensors */
#define PACKED_PIECE       ((size_t)4 << 20)
#define PACKED_DIGEST_SIZE 16u

struct backend;

enum { PACKED_VECTORS, PACKED_EMBD, PACKED_OUTPUT, PACKED_LAYERS /* layer 0, and so on */ };

struct packed_extent {
    size_t off, len;
    size_t piece; /* bytes of one sum */
    uint32_t first_sum, n_sums;
};

/* xxh3-128 in canonical order, as base/digest.h writes it. */
struct packed_sum {
    uint8_t bytes[PACKED_DIGEST_SIZE];
};

struct packed {
    struct packed_extent *extents; /* (n_extents) */
    uint32_t n_extents;            /* PACKED_LAYERS + the model's layers */
    uint32_t n_sums;
    size_t len; /* of all */
    struct packed_sum layout;
};

/* --- building, in the order of extents -------------------------------------------------------- */

/* What a tensor is, for the layout's digest. */
struct packed_item {
    const char *name;
    enum quant type;
    uint32_t n_rows, n_cols, head_dim; /* head_dim: as engine/file/weights.h has it */
};

int packed_open(struct packed *a, uint32_t n_layer);
void packed_close(struct packed *a);
void packed_begin(struct packed *a, uint32_t extent, size_t piece);
/* Gives len bytes their place in the extent that was begun last; returns where. */
size_t packed_add(struct packed *a, const struct packed_item *item, size_t len);
void packed_end(struct packed *a);

/* --- sums ------------------------------------------------------------------------------------- */

/* The bytes of sum i. */
void packed_piece(const struct packed *a, uint32_t i, size_t *ret_off, size_t *ret_len);

/* Sums [first, first + n), by b's host threads (NULL: this one). base: where the arena's byte 0 is
 * or would be: only the pieces' own bytes are looked at, by the host. */
void packed_sums(const struct packed *a, struct backend *b, const uint8_t *base, uint32_t first,
                 uint32_t n, struct packed_sum *ret);
/* Whether the bytes are those of sums[first .. first + n) of all sums. */
int packed_check(const struct packed *a, struct backend *b, const uint8_t *base, uint32_t first,
                 uint32_t n, const struct packed_sum *sums);
struct packed_sum packed_digest(const struct packed *a, const struct packed_sum *sums);
struct packed_sum packed_hash(const void *bytes, size_t len);

#endif
