/* engine/file/stream.h - weights that pass through memory, for models that do not fit into it.
 *
 * Some extents of the arena (engine/file/packed.h) stay; the others are read from the model's image
 * in the order in which a step needs them, while those before them are computed with:
 *
 *     image    | vectors | embedding | output | layer 0 | layer 1 | layer 2 | layer 3 | ...
 *     memory   | vectors | layer 1 | ... | slot: layer 0 | slot: layer 2 | slot: layer 3 | rows |
 *                                             computed        ready           read
 *
 * The order is a circle: streamed layers, then the output matrix in slices of rows (when a step
 * wants outputs), then the first layer again, for the next step. Layers that stay lie evenly among
 * those that pass, so that the disk does not rest while they are computed. Rows of the embedding
 * that nobody keeps are read singly, by token id.
 *
 * Every piece is compared with its digest each time that it was read: what answers is what was
 * packed. A piece that can't be read or is not right is read once more, then the step fails, and
 * the next one begins anew.
 *
 * Threads    one, the backend's, whose host threads compare digests.
 * Ownership  stream_open takes the image; borrows model and backend.
 * Errors     stream_open: -ENOMEM, -ENOTSUP (the device has no memory that the host writes),
 *            -EINVAL (the budget is too small). Others: the errno of the I/O or -EBADMSG;
 *            stream_why has the sentence.
 */
#ifndef ENGINE_FILE_STREAM_H
#define ENGINE_FILE_STREAM_H

#include "engine/file/image_file.h"
#include "engine/file/model.h"

#include <stdbool.h>

#define STREAM_ROWS 16u

struct io_options;
struct stream;

struct stream_options {
    uint64_t budget;           /* bytes of memory for all weights */
    const struct model *model; /* planned: shapes and packed */
    struct backend *backend;
    const struct io_options *io;
    const struct model_progress *progress; /* may be NULL */
};

/* Whether the budget is enough, before an image is made: 0 or -EINVAL. model is planned. */
int stream_check(const struct model *m, uint64_t budget, struct why *why);

/* image is the stream's when it is open. */
int stream_open(const struct stream_options *o, struct image_file *image, struct stream **ret,
                struct why *why);
void stream_close(struct stream *s);
/* The model that it is of is there from now on. */
void stream_follow(struct stream *s, const struct model *model);

/* Where each extent is, for weights_bind_extents. Of one that does not stay it is an address that
 * may not be read; stream_layer says how far from there it really is. */
uint8_t *const *stream_bases(const struct stream *s);

/* A step begins. outputs: logits are wanted of it. */
void stream_begin(struct stream *s, bool outputs);
/* *ret_by: what is to be added to the layer's pointers, until the next call of stream_layer or
 * stream_output. */
int stream_layer(struct stream *s, uint32_t layer, ptrdiff_t *ret_by);

/* Whether these stay: then the model's own pointers are good. */
bool stream_keeps_embd(const struct stream *s);
bool stream_keeps_output(const struct stream *s);
/* The output matrix from row `row` on, as many rows as there are at once: row is 0 or behind the
 * rows of the call before. */
int stream_output(struct stream *s, uint32_t row, struct model_tensor *ret);
/* ret[i]: the embedding's tile that has row ids[i], n at most stream_n_rows, until the next call.
 */
uint32_t stream_n_rows(const struct stream *s); /* at most STREAM_ROWS */
int stream_rows(struct stream *s, const uint32_t *ids, uint32_t n, const void **ret);

/* The sentence of the last error. */
const char *stream_why(const struct stream *s);

/* Time so far that units took to be there and right: as long for one token as for many. */
uint64_t stream_taken_ns(const struct stream *s);

struct stream_stats {
    uint64_t memory;    /* bytes held */
    uint64_t resident;  /* of them what stays */
    uint64_t streamed;  /* bytes that pass for a step with outputs */
    uint64_t read;      /* bytes that were read so far */
    uint64_t step_ns;   /* that steps took so far */
    uint64_t waited_ns; /* of them for the disk alone */
    const char *io;
};
void stream_stats(const struct stream *s, struct stream_stats *ret);
/* All that it holds, for locking it. */
void *stream_mem(const struct stream *s, size_t *ret_len);

#endif
