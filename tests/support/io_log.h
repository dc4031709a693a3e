/* tests/support/io_log.h - what was done to a folder, and what a power cut leaves of it.
 *
 * The log begins with the folder as it is, which counts as durable. Each operation has a begin and
 * an end in it, so there is a point before, between and after all of them:
 *
 *     point  0    1         2        3     4        5
 *            |----|---------|--------|-----|--------|
 *              write begins  sync ..   write ends .. sync ends
 *
 * What is durable at a point
 *   D1  A write, and the length that it or an IO_ALLOC gave the file, once an IO_SYNC of that file
 *       has ended which began after the write had ended (its chain was handed over later, or it is
 *       linked behind the write).
 *   D2  A name that was made, renamed or removed, once an IO_SYNC of the folder has, likewise. A
 *       sync of the file says nothing about its name.
 *   D3  All else that had begun may be there or not: a name independently of the bytes, each
 *       sector of 512 bytes of a write independently of the others, a length with or without what
 *       was written there (zeros, then). A rename is whole or not at all.
 *
 * What goes past the io is not seen: folders made by it are taken as durable, files as not there.
 *
 * Threads    one, that of the io.
 * Errors     aborts: a test can't go on without it.
 */
#ifndef TESTS_SUPPORT_IO_LOG_H
#define TESTS_SUPPORT_IO_LOG_H

#include "store/io.h"

struct io_log;

struct io_log *io_log_new(const char *folder);
void io_log_free(struct io_log *l);

size_t io_log_points(const struct io_log *l);
/* Writes to the new folder `to` what is found after a cut at that point. Seed 0: only what is
 * durable; 1: all that had begun; others: anything between, the same for the same seed. Of these
 * the odd ones keep names in the order of their making, as a journal does. */
void io_log_cut(const struct io_log *l, size_t point, uint64_t seed, const char *to);
/* "before: rename a to b, of chain 7, ended: 0". For a failing test's message. */
const char *io_log_say(const struct io_log *l, size_t point, char ret[256]);

/* --- of the io that is logged: tests/support/io_faulty.c
 * ----------------------------------------*/

/* All of a chain share a number; handed over: when it was, as a point. Returns the entry's number.
 */
size_t io_log_begin(struct io_log *l, const struct io_op *op, uint64_t chain, size_t handed_over);
void io_log_end(struct io_log *l, size_t entry, int64_t result);

#endif
