/* daemon/trace.h - where the time of a request went, and those of the last ones.
 *
 *     arrived    restore, hydrate    first step          answer is ready    it is out
 *     |---------------------------------|------------------------|---------------|
 *      queue, but for the two waits      prefill, compress,       ring: whenever something to say
 *                                        decode: steps it was in  found no room
 *
 * Each user has rows of his own, since whose prompt shared how much is nobody else's business; who
 * sends many requests pushes out his own. With more users than there are lists the one who was
 * longest without a request loses his.
 *
 * Threads    the scheduler's.
 * Ownership  a plain struct.
 */
#ifndef DAEMON_TRACE_H
#define DAEMON_TRACE_H

#include "base/clock.h"
#include "ipc/wire.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define TRACE_OWNERS 16u
#define TRACE_ROWS   WIRE_TRACES_MAX /* of an owner */
#define TRACE_NAME   32u

/* What a request that is open has so far; all else than number is in ns. */
struct trace_times {
    uint64_t number;
    uint64_t began_at, token_at, cancel_at, wait_at, blocked_at; /* of clock_ns; 0: not so */
    uint64_t step_at; /* of the step that was counted last: its parts may all have been in it */
    uint64_t restore, hydrate, prefill, compress, decode, ring;
};

struct trace_names {
    char what[TRACE_NAME], client[TRACE_NAME], ended[TRACE_NAME];
};

struct trace_row {
    struct wire_trace_row row; /* without its strings */
    struct trace_names names;
};

struct trace_owner {
    uid_t uid;
    uint64_t used; /* when last; 0: nobody's */
    uint32_t n;    /* rows that there ever were; the last TRACE_ROWS are there */
    struct trace_row rows[TRACE_ROWS];
};

struct trace {
    uint64_t clock;
    struct trace_owner owners[TRACE_OWNERS];
};

/* What is sent of it. A reply may have to wait for room in its ring, and by then the trace's own
 * rows may be of other requests: nothing here points into it. */
struct trace_rows {
    struct wire_trace_row row[WIRE_TRACES_MAX]; /* their strings are the next ones */
    struct trace_names names[WIRE_TRACES_MAX];
};

struct request;

/* It waits for the disk or for segments; and does so no more: to is what it waited for. */
static inline void trace_waits(struct trace_times *t)
{
    if (!t->wait_at)
        t->wait_at = clock_ns();
}

static inline void trace_waited(struct trace_times *t, uint64_t *to)
{
    if (t->wait_at)
        *to += clock_ns() - t->wait_at;
    t->wait_at = 0;
}

/* r has ended, with an answer or by the error of that name. The ring's part comes later
 * (trace_out): its row is found by its number. */
void trace_add(struct trace *t, const struct request *r, const char *ended);
void trace_out(struct trace *t, const struct request *r);

/* Rows of a user, the newest first, or the one of that number: how many. */
uint32_t trace_list(struct trace *t, uid_t uid, uint64_t number, struct trace_rows *ret);

#endif
