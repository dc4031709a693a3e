#include "daemon/trace.h"

#include "daemon/client.h"
#include "daemon/session.h"

#include <stdio.h>
#include <time.h>

/* NULL: he has none. */
static struct trace_owner *find(struct trace *t, uid_t uid)
{
    for (uint32_t i = 0; i < TRACE_OWNERS; i++)
        if (t->owners[i].used && t->owners[i].uid == uid)
            return &t->owners[i];
    return NULL;
}

/* used 0 is a place that nobody had, and so the first to be taken. */
static struct trace_owner *take(struct trace *t, uid_t uid)
{
    struct trace_owner *o = find(t, uid);

    if (!o) {
        o = &t->owners[0];
        for (uint32_t i = 1; i < TRACE_OWNERS; i++)
            if (t->owners[i].used < o->used)
                o = &t->owners[i];
        o->uid = uid;
        o->n = 0;
    }
    o->used = ++t->clock;
    return o;
}

static void name(char to[TRACE_NAME], const char *from)
{
    request_label(to, TRACE_NAME, from);
}

/* When it ended, and its session is still known. What it never came to counts until now. */
void trace_add(struct trace *t, const struct request *r, const char *ended)
{
    struct trace_owner *o = take(t, r->client->uid);
    struct trace_row *row = &o->rows[o->n++ % TRACE_ROWS];
    const struct trace_times *x = &r->times;
    uint64_t now = clock_ns(), until = x->began_at ? x->began_at : now;
    uint64_t waited = x->restore + x->hydrate, before = until - r->arrived_ns;

    row->row = (struct wire_trace_row){
        .number = x->number,
        .session = r->session ? r->session->id : 0,
        .at_s = (uint64_t)time(NULL) - (now - r->arrived_ns) / CLOCK_S,
        .total_ns = now - r->arrived_ns,
        .queue_ns = before > waited ? before - waited : 0,
        .restore_ns = x->restore,
        .hydrate_ns = x->hydrate,
        .prefill_ns = x->prefill,
        .compress_ns = x->compress,
        .decode_ns = x->decode,
        .first_token_ns = r->usage.first_token_ns,
        .ring_ns = x->ring,
        .computed_tokens = r->usage.computed_tokens,
        .found_tokens = r->usage.shared_tokens + r->usage.restored_tokens,
        .generated_tokens = r->usage.generated_tokens,
        .drafted_tokens = r->usage.drafted_tokens,
        .accepted_tokens = r->usage.accepted_tokens,
    };
    name(row->names.what, r->ops->name);
    name(row->names.client, r->client->name);
    name(row->names.ended, ended);
}

/* Its last reply had to wait, which is known only now: the row was made before. */
void trace_out(struct trace *t, const struct request *r)
{
    struct trace_owner *o = r->times.ring ? find(t, r->client->uid) : NULL;

    for (uint32_t i = 0; o && i < TRACE_ROWS; i++)
        if (o->rows[i].row.number == r->times.number)
            o->rows[i].row.ring_ns = r->times.ring;
}

uint32_t trace_list(struct trace *t, uid_t uid, uint64_t number, struct trace_rows *ret)
{
    struct trace_owner *o = find(t, uid);
    uint32_t n = 0;

    for (uint32_t i = 0; o && i < TRACE_ROWS && i < o->n; i++) {
        const struct trace_row *row = &o->rows[(o->n - 1 - i) % TRACE_ROWS];

        if (number && row->row.number != number)
            continue;
        ret->names[n] = row->names;
        ret->row[n] = row->row;
        ret->row[n].what = ret->names[n].what;
        ret->row[n].client = ret->names[n].client;
        ret->row[n].ended = ret->names[n].ended;
        n++;
    }
    return n;
}
