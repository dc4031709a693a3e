/* daemon/req_segments.c - Segments: how a session's text is held.
 *
 * Answered at once, also while the session is at work and between the layers of a step: it looks
 * and changes nothing. Whether a segment is on the disk follows from the hash of all ids up to it,
 * a millisecond for a million of them; and only of those that may be there, full ones of a session
 * that is a function of its ids.
 */
#include "daemon/look.h"
#include "daemon/reply.h"
#include "daemon/sched.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* (from + n) flags, of which the last n are asked for. False: no memory. */
static bool ask_disk(const struct memory *m, uint32_t from, uint32_t n, struct wire_segment *rows)
{
    uint32_t full = m->seq->n_tokens / m->seq->seg_len;
    bool *stored;

    if (!m->kept.tier || !memory_exact(m))
        return true;
    full = full < from + n ? full : from + n;
    stored = calloc((size_t)full + 1, sizeof(*stored));
    if (!stored)
        return false;
    tier_stored(&m->kept, full, stored);
    for (uint32_t k = from; k < full; k++)
        rows[k - from].stored = stored[k];
    free(stored);
    return true;
}

static int segments_start(struct sched *s, struct request *r, const struct wire_req *req,
                          const uint8_t *bulk)
{
    const struct session *x = request_see_session(s, r->client, req->u.segments.session);
    uint32_t first = req->u.segments.first, n_all, n;
    const struct memory *m;
    struct wire_segment *rows;

    (void)bulk;
    if (!x) {
        request_fail(s, r, WIRE_E_NOT_FOUND, REQUEST_NO_NUMBERS,
                     "this user has no session %" PRIu64, req->u.segments.session);
        return 0;
    }
    m = &x->memory;
    n_all = look_count(m);
    n = first < n_all ? n_all - first : 0;
    n = n < WIRE_SEGMENTS_MAX ? n : WIRE_SEGMENTS_MAX;
    rows = calloc((size_t)n + 1, sizeof(*rows));
    if (!rows)
        return -ENOMEM;
    r->state = rows;
    for (uint32_t i = 0; i < n; i++)
        rows[i] = look_at(m, first + i);
    if (!ask_disk(m, first, n, rows))
        return -ENOMEM;
    r->last = (struct wire_rep){ .kind = WIRE_SEGMENT_MAP };
    r->last.u.segment_map = (struct wire_segment_map){ .row = rows,
                                                       .n_row = n,
                                                       .first = first,
                                                       .n_segments = n_all,
                                                       .segment = x->seq.seg_len,
                                                       .n_tokens = look_tokens(m),
                                                       .n_keys = look_keys(m),
                                                       .budget = m->policy.budget };
    /* How long a row is packed depends on its numbers: what does not fit is asked for by the next
     * request. */
    while (r->last.u.segment_map.n_row > 0 && !reply_fits(s, &r->last))
        r->last.u.segment_map.n_row /= 2;
    request_finish(s, r);
    return 0;
}

static void segments_fini(struct request *r)
{
    free(r->state);
}

const struct request_ops request_segments = { .name = "segments",
                                              .start = segments_start,
                                              .fini = segments_fini };
