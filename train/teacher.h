/* train/teacher.h - what the base model said about each sequence, on disk, so that it is asked
 * once.
 *
 * For every row of a sequence that carries loss, in order: the base's most probable ids under full
 * attention, and their probabilities (train/net/head.h). A record a sequence, at a place that its
 * number gives; the file is sparse.
 *
 *     0         16         24      32          64                        64 + n record_len
 *     | magic   | version  | key   | n_rows, top, zeros | record 0 | record 1 | ...
 *     record    | xxh3-64 of the rest, 0: not there | u32 n | u32 ids (n_rows, top) |
 *               f32 p (n_rows, top) |
 *
 * key: a hash of everything that the answers depend on; a file with another one is not used but
 * refused.
 *
 * Threads    one at a time; two runs may share a file, as equal records are written alike.
 * Errors     teacher_open: -EINVAL with a sentence, -ENOMEM, or the errno of the I/O. A damaged
 *            record is one that is not there.
 */
#ifndef TRAIN_TEACHER_H
#define TRAIN_TEACHER_H

#include "base/why.h"

#include <stdbool.h>
#include <stdint.h>

struct teacher;

int teacher_open(const char *path, uint64_t key, uint32_t n_rows, uint32_t top,
                 struct teacher **ret, struct why *why);
void teacher_close(struct teacher *t);

/* ids, p: (n, top). false: no such record, or it is not of n rows. */
bool teacher_get(struct teacher *t, uint64_t index, uint32_t n, uint32_t *ret_ids, float *ret_p);
/* 0, or the errno of the I/O: then the record is not there. */
int teacher_put(struct teacher *t, uint64_t index, uint32_t n, const uint32_t *ids, const float *p);

#endif
