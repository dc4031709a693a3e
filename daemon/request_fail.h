/* daemon/request_fail.h - what a request fails with: a code, numbers and a sentence.
 *
 * A failure ends the request: its session is what undo() leaves, and the error is its last reply.
 *
 * Threads    the scheduler's.
 */
#ifndef DAEMON_REQUEST_FAIL_H
#define DAEMON_REQUEST_FAIL_H

#include "engine/kv/pool.h"
#include "ipc/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct forward_run;
struct memory_need;
struct request;
struct sched;

struct request_numbers {
    uint64_t had, asked, limit;
};
void request_fail(struct sched *s, struct request *r, enum wire_error code,
                  struct request_numbers numbers, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
#define REQUEST_NO_NUMBERS ((struct request_numbers){ 0, 0, 0 })
/* CANCELLED, "cancelled" and what became of its work; or of one that has expired DEADLINE_EXCEEDED,
 * and that its deadline has passed. */
void request_fail_cancelled(struct sched *s, struct request *r, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* LIMIT or NO_MEMORY, as e is -EDQUOT of daemon/held.h or not. */
void request_fail_memory(struct sched *s, struct request *r, int e);

/* Who computes could not: -EIO and the like. */
void request_fail_step(struct sched *s, struct request *r, int e);

/* Log-probabilities or logits are numbers. If one is not the request fails with a sentence, and
 * false: nothing may be sampled, scored or kept from them. */
bool request_finite(struct sched *s, struct request *r, const float *x, size_t n);
void request_fail_finite(struct sched *s, struct request *r);
/* Logits of outputs [first, first + n) of the last step, to ret, all of them numbers. False:
 * likewise. */
bool request_take_logits(struct sched *s, struct request *r, uint32_t first, uint32_t n,
                         float *ret);

/* For lack of `need` pages: LIMIT where the client's own limit stands against them, else POOL_FULL.
 * what wants them: "reading 5 more tokens". */
void request_fail_pages(struct sched *s, struct request *r, const struct pool_account *account,
                        uint64_t need, const char *what, ...) __attribute__((format(printf, 5, 6)));

/* What memory_plan said of a run that it could not plan: the same, or CONTEXT_LENGTH_EXCEEDED. */
void request_fail_need(struct sched *s, struct request *r, const struct memory_need *need,
                       const struct forward_run *run);

/* Lowers *max to what the request's memory has room for. None at all: CONTEXT_LENGTH_EXCEEDED is
 * answered, and false. */
bool request_room(struct sched *s, struct request *r, uint32_t *max);

#endif
