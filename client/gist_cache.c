/* client/gist_cache.c - what the daemon keeps on disk of this user's sessions. */
#include "client/gist_internal.h"

#include <errno.h>
#include <stdlib.h>

_Static_assert((int)GIST_CACHE_STAT == (int)WIRE_CACHE_STAT, "verbs");
_Static_assert((int)GIST_CACHE_FORGET == (int)WIRE_CACHE_FORGET, "verbs");

static void copy_sum(const struct wire_cache_rows *w, struct gist_cache_sum *to)
{
    *to = (struct gist_cache_sum){ .records = w->records,
                                   .bytes = w->bytes,
                                   .tokens = w->tokens,
                                   .packed_records = w->packed_records,
                                   .packed_bytes = w->packed_bytes,
                                   .bad_records = w->bad_records,
                                   .bad_bytes = w->bad_bytes,
                                   .unread_records = w->unread_records,
                                   .total = w->total };
}

/* As long as the caller knows them. */
static void copy_rows(const struct wire_cache_rows *w, uint8_t *to, size_t len)
{
    for (uint32_t i = 0; i < w->n_row; i++) {
        const struct gist_cache_row one = { .id = w->row[i].id,
                                            .bytes = w->row[i].bytes,
                                            .used_s = w->row[i].used_s,
                                            .cost_ns = w->row[i].cost_ns,
                                            .n_tokens = w->row[i].tokens,
                                            .n_keys = w->row[i].keys,
                                            .depth = w->row[i].depth,
                                            .packed = w->row[i].packed };

        gist_copy_out(to + i * len, len, &one, sizeof(one));
    }
}

/* What comes behind a callback's refusal was sent before the daemon saw the cancel. The sum of each
 * reply is that of all so far, so the last one stands in the end. */
static int take_rows(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    const struct wire_cache_rows *w = &rep->u.cache_rows;
    size_t len = r->conn->sizes.cache_row;
    void *rows;
    int no;

    (void)bulk;
    if (rep->kind != WIRE_CACHE_ROWS || w->n_row > WIRE_CACHE_ROWS_MAX)
        return -EPROTO;
    copy_sum(w, &r->cache);
    if (rep->last || r->err || !r->on_cache)
        return 0;
    rows = malloc(w->n_row * len + 1);
    if (!rows) {
        r->err = gist_set_errno(r->conn, -ENOMEM);
        gist_request_cancel(r);
        return 0;
    }
    copy_rows(w, rows, len);
    no = r->on_cache(r->arg, rows, w->n_row, &r->cache);
    free(rows);
    if (no != 0) {
        r->err = gist_set_error(r->conn, GIST_E_CANCELLED, -ECANCELED,
                                "the request was cancelled: its callback returned non-zero");
        gist_request_cancel(r);
    }
    return 0;
}

static int make_cache(gist_conn *c, enum gist_cache_verb verb, const struct gist_cache_opts *opts,
                      gist_cache_fn *on_rows, void *arg, struct gist_request *ret)
{
    struct gist_cache_opts o;
    int err = gist_copy_sized(&o, sizeof(o), opts);

    if (err == 0 && ((unsigned)verb > GIST_CACHE_FORGET || o.flags & ~GIST_CACHE_PUBLIC))
        err = -EINVAL;
    if (err < 0)
        return gist_set_errno(c, err);
    *ret = gist_request_make(c, WIRE_CACHE);
    ret->msg.u.cache.verb = (enum wire_cache_verb)verb;
    ret->msg.u.cache.after = o.after;
    ret->msg.u.cache.bytes = o.bytes;
    ret->msg.u.cache.public_records = o.flags & GIST_CACHE_PUBLIC;
    ret->on_reply = take_rows;
    ret->on_cache = on_rows;
    ret->arg = arg;
    return 0;
}

int gist_cache(gist_conn *c, enum gist_cache_verb verb, const struct gist_cache_opts *opts,
               gist_cache_fn *on_rows, void *arg, struct gist_cache_sum *ret_sum)
{
    struct gist_request r;
    int err = make_cache(c, verb, opts, on_rows, arg, &r);

    if (err == 0)
        err = gist_run(&r, -1);
    if (err == 0)
        gist_copy_out(ret_sum, c->sizes.cache_sum, &r.cache, sizeof(r.cache));
    return err;
}

static void tell_cache(struct gist_request *r, int err)
{
    r->end.cache(r->arg, err, err == 0 ? &r->cache : NULL);
}

int gist_cache_start(gist_conn *c, enum gist_cache_verb verb, const struct gist_cache_opts *opts,
                     gist_cache_fn *on_rows, gist_cache_done_fn *on_done, void *arg,
                     uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_cache(c, verb, opts, on_rows, arg, &r);

    if (err < 0)
        return err;
    r.end.cache = on_done;
    r.tell = on_done ? tell_cache : NULL;
    return gist_submit(&r, ret_request);
}
