/* engine/file/feed.h - the bytes of a large file in order, read ahead of who looks at them.
 *
 * What is in the page cache comes from there, copied by the host threads of a backend as slices of
 * the job that works on the bytes before. What is not is read past it (O_DIRECT), many pieces at
 * once, while that job runs. Piece by piece it is one or the other:
 *
 *     file     | ...... | piece k - 1 | piece k | k + 1 | k + 2 | k + 3 | ...
 *                         given back    looked at  ready   to be    queued
 *                                                          copied   (disk)
 *     memory   a ring of pieces, mapped twice, one behind the other: any span of it lies in one
 *              piece of memory, wherever the ring ends
 *
 * A direct read leaves the page cache as it was: whoever has files in it loses none to a model that
 * is packed into other memory anyway.
 *
 * Threads    one; feed_slice any, between feed_begin and feed_end.
 * Ownership  borrows gguf and backend.
 * Errors     -EINVAL: the file is shorter than it was; -ENOMEM, or the errno of the I/O. why has
 * the sentence.
 */
#ifndef ENGINE_FILE_FEED_H
#define ENGINE_FILE_FEED_H

#include "engine/backend.h"
#include "engine/file/gguf.h"

struct feed;
struct io_options;

#define FEED_PIECE ((size_t)1 << 20)

struct feed_options {
    uint64_t from;               /* the first byte; all up to the file's end come */
    size_t longest;              /* that is ever looked at */
    size_t ahead;                /* bytes read ahead; 0: 32 MiB */
    const struct io_options *io; /* NULL: as the system has it */
    bool direct;                 /* past the page cache even where that has it; for tests */
};

int feed_open(const struct gguf *g, struct backend *b, const struct feed_options *o,
              struct feed **ret, struct why *why);
void feed_close(struct feed *f);

uint64_t feed_at(const struct feed *f); /* in the file */

/* The next n bytes, which stay until they are passed. */
int feed_look(struct feed *f, size_t n, const uint8_t **ret);
void feed_pass(struct feed *f, size_t n);

/* What can be copied beside the caller's own work: that many slices, each to be called once. */
uint32_t feed_begin(struct feed *f);
void feed_slice(struct feed *f, uint32_t i);
void feed_end(struct feed *f);

/* Bytes that came past the page cache, and from it. */
void feed_counts(const struct feed *f, uint64_t *ret_direct, uint64_t *ret_cached);

#endif
