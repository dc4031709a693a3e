/* engine/kv/scratch.h - a bounded piece of memory that is lent out for a while.
 *
 *     | span | span |      | span |            |     handed out front to back, first fit
 *
 * It is reserved once, in memory of a backend (engine/backend.h) or of the process, when it is
 * opened or when it is first used. Where the host may write it, what was touched goes back to the
 * system when a span does, but for the first part, which small spans live in: it costs what is in
 * use, and never more than its length.
 *
 * Threads    one at a time.
 * Errors     scratch_open: -ENOMEM. scratch_take: NULL, when no gap is as long now, or when there
 * is no memory for one that is opened by scratch_promise.
 */
#ifndef ENGINE_KV_SCRATCH_H
#define ENGINE_KV_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

#define SCRATCH_SPANS_MAX 32u

struct backend;

struct scratch {
    struct backend *backend; /* NULL: the process's memory */
    uint8_t *mem;
    size_t len, used; /* bytes; used is the sum of the spans' */
    size_t touched;   /* nothing from here on has memory */
    uint32_t n;
    struct {
        size_t off, len;
    } spans[SCRATCH_SPANS_MAX]; /* ascending */
};

int scratch_open(struct scratch *s, struct backend *b, size_t len);
/* Its memory is taken at the first use, for what can be done without. */
void scratch_promise(struct scratch *s, struct backend *b, size_t len);
void scratch_close(struct scratch *s);
/* Its memory goes until the next use; no span is out. */
void scratch_leave(struct scratch *s);

/* len bytes, aligned to 64, whatever was in them. */
void *scratch_take(struct scratch *s, size_t len);
void scratch_give(struct scratch *s, void *p); /* NULL: nothing */

#endif
