/* client/gist_score.c - what needs no session: scores, logits, tokens. */
#include "client/gist_spans.h"

#include <errno.h>
#include <string.h>

/* --- scores ----------------------------------------------------------------------------------- */

/* Rows come in order. `first` counts from the beginning of this request, ids from that of the whole
 * list. */
int gist_keep_rows(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    uint64_t n = rep->u.score_rows.n;

    if (rep->u.score_rows.first != r->ids.n - r->had || rep->bulk_len != n * 8)
        return -EPROTO;
    if (n == 0 || r->err)
        return 0;
    if (gist_array_add(&r->ids, bulk, n, 4) < 0 ||
        gist_array_add(&r->logprobs, bulk + n * 4, n, 4) < 0)
        r->err = gist_set_errno(r->conn, -ENOMEM);
    return 0;
}

/* The rows stay where they lie: in the arena, until the callback returns. Aligned for floats: bulk
 * lies at a multiple of 64 in the arena. */
static int give_rows(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    uint32_t n = rep->u.score_rows.n, n_vocab = rep->u.score_rows.n_vocab;

    if (n_vocab == 0 || rep->bulk_len / 4 / n_vocab != n || rep->bulk_len % (4ull * n_vocab) != 0)
        return -EPROTO;
    if (r->err || n == 0)
        return 0;
    if (r->on_rows(r->arg, r->first + rep->u.score_rows.first, n, n_vocab,
                   (const float *)(const void *)bulk) != 0) {
        r->err = gist_set_error(r->conn, GIST_E_CANCELLED, -ECANCELED,
                                "the scoring was cancelled: its callback returned non-zero");
        gist_request_cancel(r);
    }
    return 0;
}

/* Each request of a long list ends with its own Done. */
static int keep_score(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    struct gist_usage usage;

    if (rep->kind == WIRE_SCORE_ROWS && !rep->last)
        return r->on_rows ? give_rows(r, rep, bulk) : gist_keep_rows(r, rep, bulk);
    if (rep->kind != WIRE_DONE || !rep->last)
        return -EPROTO;
    gist_copy_usage(&usage, &rep->u.done.usage);
    gist_add_usage(&r->result.usage, &usage);
    return 0;
}

/* The caller's options; memory goes into a form that requests take. */
struct score_opts {
    struct gist_score_opts o;
    struct wire_memory memory;
};

static int read_opts(gist_conn *c, const struct gist_score_opts *opts, struct score_opts *ret)
{
    int err;

    ret->memory = (struct wire_memory){ 0 };
    err = gist_copy_sized(&ret->o, sizeof(ret->o), opts);
    if (err == 0 && ret->o.flags & ~(GIST_SET_WINDOW | GIST_SET_SEGMENT))
        err = -EINVAL;
    if (err == 0)
        err = gist_copy_memory(&ret->memory, ret->o.memory);
    return err < 0 ? gist_set_errno(c, err) : 0;
}

static struct gist_request make_score(gist_conn *c, const struct score_opts *o,
                                      enum wire_score_kind kind, const void *bulk, size_t len)
{
    struct gist_request r = gist_request_make(c, WIRE_SCORE);

    r.msg.u.score.kind = kind;
    r.msg.u.score.want = WIRE_SCORE_LOGPROBS;
    r.msg.u.score.window = o->o.window;
    r.msg.u.score.has_window = o->o.window || o->o.flags & GIST_SET_WINDOW;
    r.msg.u.score.segment = o->o.segment;
    r.msg.u.score.has_segment = o->o.segment || o->o.flags & GIST_SET_SEGMENT;
    r.msg.u.score.memory = o->memory;
    r.bulk = bulk;
    r.bulk_len = len;
    r.on_reply = keep_score;
    return r;
}

/* What the daemon takes for a window that is not named: a context that stays whole has as many keys
 * as tokens. */
static uint32_t window_of(const gist_conn *c, const struct score_opts *o)
{
    const struct wire_memory *m = &o->memory;
    uint32_t context = c->info.context_max;
    bool whole = m->compressor == WIRE_COMPRESSOR_UNSAID && !(m->adapter && m->adapter[0]);

    if (o->o.window)
        return o->o.window;
    return whole && m->budget > 0 && m->budget < context ? m->budget : context;
}

/* How many ids go in one request. Windows are read each from nothing, so that a list may be cut
 * between two of them without a change of its scores, and the daemon need not keep all of it. */
static size_t ids_at_once(gist_conn *c, const struct score_opts *o)
{
    size_t most = gist_part_max(c) / sizeof(uint32_t);
    uint32_t window = window_of(c, o);

    if (window == 0 || window > most)
        return window ? window : most;
    return most - most % window;
}

/* As one to the caller, however many requests it takes. */
static int make_score_tokens(gist_conn *c, const uint32_t *ids, size_t n,
                             const struct gist_score_opts *opts, struct gist_request *ret)
{
    struct score_opts o;
    size_t len = n * sizeof(*ids), step;
    int err = gist_usable(c);

    if (err == 0)
        err = read_opts(c, opts, &o);
    if (err < 0)
        return err;
    step = ids_at_once(c, &o) * sizeof(*ids);
    *ret = make_score(c, &o, WIRE_SCORE_TOKENS, ids, len < step ? len : step);
    ret->step = step;
    ret->later = len - ret->bulk_len;
    return 0;
}

static int make_score_text(gist_conn *c, const char *text, size_t len,
                           const struct gist_score_opts *opts, struct gist_request *ret)
{
    struct score_opts o;
    int err = read_opts(c, opts, &o);

    if (err < 0)
        return err;
    *ret = make_score(c, &o, WIRE_SCORE_TEXT, text, len);
    return 0;
}

static struct gist_score score_of(const struct gist_request *r)
{
    return (struct gist_score){
        .ids = r->ids.mem, .logprobs = r->logprobs.mem, .n = r->ids.n, .usage = r->result.usage
    };
}

/* The arrays become the caller's with success. */
static int run_score(struct gist_request *r, struct gist_score *ret_score)
{
    int err = gist_run(r, -1);
    struct gist_score score = score_of(r);

    if (err < 0)
        gist_free_arrays(r);
    else
        gist_copy_out(ret_score, r->conn->sizes.score, &score, sizeof(score));
    return err;
}

/* The arrays stay the request's, and are gone when the callback returns. */
static void tell_score(struct gist_request *r, int err)
{
    struct gist_score score = score_of(r);

    r->end.score(r->arg, err, err == 0 ? &score : NULL);
}

static int start_score(struct gist_request *r, gist_score_fn *on_score, void *arg,
                       uint64_t *ret_request)
{
    r->end.score = on_score;
    r->tell = on_score ? tell_score : NULL;
    r->arg = arg;
    return gist_submit(r, ret_request);
}

int gist_score_text(gist_conn *c, const char *text, size_t len, const struct gist_score_opts *opts,
                    struct gist_score *ret_score)
{
    struct gist_request r;
    int err = make_score_text(c, text, len, opts, &r);

    return err < 0 ? err : run_score(&r, ret_score);
}

int gist_score_text_start(gist_conn *c, const char *text, size_t len,
                          const struct gist_score_opts *opts, gist_score_fn *on_score, void *arg,
                          uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_score_text(c, text, len, opts, &r);

    return err < 0 ? err : start_score(&r, on_score, arg, ret_request);
}

int gist_score_tokens(gist_conn *c, const uint32_t *ids, size_t n,
                      const struct gist_score_opts *opts, struct gist_score *ret_score)
{
    struct gist_request r;
    int err = make_score_tokens(c, ids, n, opts, &r);

    return err < 0 ? err : run_score(&r, ret_score);
}

int gist_score_tokens_start(gist_conn *c, const uint32_t *ids, size_t n,
                            const struct gist_score_opts *opts, gist_score_fn *on_score, void *arg,
                            uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_score_tokens(c, ids, n, opts, &r);

    return err < 0 ? err : start_score(&r, on_score, arg, ret_request);
}

static int make_logits(gist_conn *c, const uint32_t *ids, size_t n,
                       const struct gist_score_opts *opts, gist_rows_fn *on_rows, void *arg,
                       struct gist_request *ret)
{
    int err = on_rows ? make_score_tokens(c, ids, n, opts, ret) : gist_set_errno(c, -EINVAL);

    if (err < 0)
        return err;
    ret->msg.u.score.want = WIRE_SCORE_LOGITS;
    ret->on_rows = on_rows;
    ret->arg = arg;
    return 0;
}

int gist_score_logits(gist_conn *c, const uint32_t *ids, size_t n,
                      const struct gist_score_opts *opts, gist_rows_fn *on_rows, void *arg)
{
    struct gist_request r;
    int err = make_logits(c, ids, n, opts, on_rows, arg, &r);

    return err < 0 ? err : gist_run(&r, -1);
}

int gist_score_logits_start(gist_conn *c, const uint32_t *ids, size_t n,
                            const struct gist_score_opts *opts, gist_rows_fn *on_rows,
                            gist_done_fn *on_done, void *arg, uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_logits(c, ids, n, opts, on_rows, arg, &r);

    return err < 0 ? err : gist_start(&r, on_done, arg, ret_request);
}

/* --- tokens ----------------------------------------------------------------------------------- */

static int keep_tokens(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    size_t n = rep->u.tokens.n;

    if (rep->kind != WIRE_TOKENS || rep->bulk_len != (uint64_t)n * 4)
        return -EPROTO;
    if (r->err == 0 && gist_array_add(&r->ids, bulk, n, 4) < 0)
        r->err = gist_set_errno(r->conn, -ENOMEM);
    return 0;
}

static int make_tokenize(gist_conn *c, const char *text, size_t len, unsigned flags,
                         struct gist_request *ret)
{
    if (flags & ~GIST_SPECIAL)
        return gist_set_errno(c, -EINVAL);
    *ret = gist_request_make(c, WIRE_TOKENIZE);
    ret->msg.u.tokenize.special = flags & GIST_SPECIAL;
    ret->bulk = (const uint8_t *)text;
    ret->bulk_len = len;
    ret->on_reply = keep_tokens;
    return 0;
}

int gist_tokenize(gist_conn *c, const char *text, size_t len, unsigned flags, uint32_t **ret_ids,
                  size_t *ret_n)
{
    struct gist_request r;
    int err = make_tokenize(c, text, len, flags, &r);

    if (err < 0)
        return err;
    err = gist_run(&r, -1);
    if (err < 0) {
        gist_free_arrays(&r);
        return err;
    }
    *ret_ids = r.ids.mem;
    *ret_n = r.ids.n;
    return 0;
}

static void tell_tokens(struct gist_request *r, int err)
{
    r->end.tokens(r->arg, err, err == 0 ? r->ids.mem : NULL, err == 0 ? r->ids.n : 0);
}

int gist_tokenize_start(gist_conn *c, const char *text, size_t len, unsigned flags,
                        gist_tokens_fn *on_tokens, void *arg, uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_tokenize(c, text, len, flags, &r);

    if (err < 0)
        return err;
    r.end.tokens = on_tokens;
    r.tell = on_tokens ? tell_tokens : NULL;
    r.arg = arg;
    return gist_submit(&r, ret_request);
}

/* With a NUL behind it, which is not counted, for those who print it. */
static int keep_text(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)bulk;
    if (rep->kind != WIRE_TEXT)
        return -EPROTO;
    if (r->err == 0 &&
        (gist_array_add(&r->text, rep->u.text.text, strlen(rep->u.text.text), 1) < 0 ||
         (rep->last && gist_array_add(&r->text, "", 1, 1) < 0)))
        r->err = gist_set_errno(r->conn, -ENOMEM);
    return 0;
}

static struct gist_request make_detokenize(gist_conn *c, const uint32_t *ids, size_t n)
{
    struct gist_request r = gist_request_make(c, WIRE_DETOKENIZE);

    r.bulk = (const uint8_t *)ids;
    r.bulk_len = n * sizeof(*ids);
    r.on_reply = keep_text;
    return r;
}

int gist_detokenize(gist_conn *c, const uint32_t *ids, size_t n, char **ret_text, size_t *ret_len)
{
    struct gist_request r = make_detokenize(c, ids, n);
    int err = gist_run(&r, -1);

    if (err < 0) {
        gist_free_arrays(&r);
        return err;
    }
    *ret_text = r.text.mem;
    *ret_len = r.text.n - 1;
    return 0;
}

static void tell_string(struct gist_request *r, int err)
{
    r->end.string(r->arg, err, err == 0 ? r->text.mem : NULL, err == 0 ? r->text.n - 1 : 0);
}

int gist_detokenize_start(gist_conn *c, const uint32_t *ids, size_t n, gist_string_fn *on_string,
                          void *arg, uint64_t *ret_request)
{
    struct gist_request r = make_detokenize(c, ids, n);

    r.end.string = on_string;
    r.tell = on_string ? tell_string : NULL;
    r.arg = arg;
    return gist_submit(&r, ret_request);
}
