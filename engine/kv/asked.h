/* engine/kv/asked.h - queries of the segment that is read, kept while it is, so that no second
 * reading is needed when it is packed by them (engine/kv/compress_fit.c).
 *
 *     segment   | token 0 ............ from ............. to |             |
 *                 read elsewhere, or    kept as they        to be read
 *                 before a change:      were read
 *                 read once more
 *
 * What a token's queries are follows from the keys before it. They are of use as long as those stay
 * as they are (seq.n_changes): then a second reading gives the same bits, and may make up for what
 * is missing, however much that is. So what becomes of a segment does not depend on what was kept.
 *
 * Segments that come back for a prompt, and go (daemon/hydrate.h), change those keys, too. A second
 * reading would have other queries then, no better ones, and what is packed so is nothing that
 * others find: what was kept stays of use (asked_stand). A fork has a copy of it where there is
 * room.
 *
 * Memory     a scratch of the compressor's, of which a sequence has a span for one segment. Who
 *            finds none takes that of a sequence nobody works on, or keeps nothing: it pays with a
 *            second reading.
 *
 * Threads    the scheduler's.
 * Ownership  a struct asked is its sequence's, stays where it is, and is dropped before the
 *            compressor.
 */
#ifndef ENGINE_KV_ASKED_H
#define ENGINE_KV_ASKED_H

#include "engine/run.h"

#include <stddef.h>

struct compressor;
struct compress_spec;

/* Queries of a KV head that are asked, at most, but for short segments' */
#define ASKED_ROWS 768u
/* Tokens of a segment that a second reading is worth which every segment needs. */
#define ASKED_AGAIN 128u

/* Which ones, see struct forward_asked. */
struct asked_shape {
    uint32_t tokens, heads, n;
};

/* All zero: nothing is kept. */
struct asked {
    float *all; /* span of the compressor's scratch */
    uint32_t segment, from, to;
    uint64_t n_changes; /* of the sequence, when they were read */
    bool resting;       /* nobody works on it: others may take the span */
};

/* while_read: they are kept while a segment is read, where all tokens are to be had for nothing. */
struct asked_shape asked_shape(uint32_t seg_len, uint32_t group, bool while_read);
/* Queries of the longer of the two shapes. */
uint32_t asked_most(uint32_t seg_len, uint32_t group);
struct forward_asked asked_rows(const struct asked_shape *k, uint32_t segment, float *all);
/* Of as many. */
size_t asked_floats(const struct compressor *c, uint32_t seg_len);

/* The run, which reads, is to be in a step: has it keep what it says of this segment. Not if the
 * compressor of the spec has no use for it. */
void asked_watch(struct compressor *c, const struct compress_spec *spec, struct asked *a,
                 uint32_t segment, struct forward_run *run);
/* The step with it is done, watched or not. */
void asked_ran(struct asked *a, const struct forward_run *run);

/* The sequence's keys have changed since its n_changes was that, in a way that is of no matter. */
void asked_stand(struct asked *a, const struct seq *s, uint64_t n_changes);
/* dst, of a fork of the sequence, has the same as a; nobody gives up anything for it. */
void asked_fork(struct compressor *c, const struct asked *a, const struct seq *s, struct asked *dst,
                const struct seq *fork);

/* Tokens of the segment, from its first on, of which nothing that is of use was kept. a may be
 * NULL. */
uint32_t asked_missing(const struct asked *a, const struct seq *s, uint32_t segment);

void asked_rest(struct asked *a);
/* Somebody works on it again, be it without reading on: its span is its own until it rests. */
void asked_work(struct asked *a);
void asked_drop(struct compressor *c, struct asked *a);

#endif
