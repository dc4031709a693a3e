/* daemon/texts.h - several texts of one request, or lists of ids, that come one after the other.
 *
 *     ids    | b a a a | b d d | b c |     three of them, b before each: what each has before it
 *              first ...end
 *
 * Each is encoded alone, in slices, and has the ids that an append of it alone would have.
 *
 * Threads    the scheduler's.
 * Ownership  texts_start/texts_fini, in the state of a request; charged to its client.
 * Errors     texts_start: -ENOMEM, -EDQUOT. What else is wrong was answered, and the request has
 *            ended.
 */
#ifndef DAEMON_TEXTS_H
#define DAEMON_TEXTS_H

#include "daemon/encode.h"
#include "ipc/wire.h"

#include <stdbool.h>

struct request;
struct sched;

struct texts_one {
    uint64_t len;      /* bytes */
    size_t first, end; /* of ids, those before it included */
};

/* What a request says of them. */
struct texts_said {
    const char *what; /* one of them: "continuation" */
    const uint64_t *lens;
    uint32_t n;
    enum wire_score_kind kind;
    bool special;
};

struct texts {
    const char *what;
    enum wire_score_kind kind;
    bool special, encoding, known;
    uint32_t n, n_encoded;
    bool has_before;
    uint32_t before;        /* the id before each */
    struct texts_one *list; /* (n) */
    size_t list_len;
    struct encode_text bytes;
    size_t off; /* of the next one that is encoded */
    struct encode encode;
    size_t unknown; /* ids that may not be the vocabulary's: the last ones */
};

/* Whether lengths and data belong together. False: that was answered. */
bool texts_check(struct sched *s, struct request *r, const struct texts_said *said);
/* Takes the data from r->parts. before: NULL, or an id that stands before each. */
int texts_start(struct sched *s, struct request *r, struct texts *t, const struct texts_said *said,
                const uint32_t *before);
/* In work(): a slice. True: all are ids of the vocabulary, and none has none. */
bool texts_work(struct sched *s, struct request *r, struct texts *t);
void texts_fini(struct texts *t);

/* Without those before it. */
uint32_t texts_count(const struct texts *t, uint32_t i);

#endif
