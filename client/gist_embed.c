/* client/gist_embed.c - a row of numbers for each of several texts. */
#include "client/gist_spans.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Rows come in order and are kept in ids (how many tokens) and logprobs (the numbers), until it is
 * known that there are all of them. No more rows than there are texts, and all of one length:
 * n_embd is that of the first reply. */
static int keep_rows(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    uint64_t n = rep->u.embedding.n, n_embd = rep->u.embedding.n_embd;

    if (rep->u.embedding.first != r->ids.n || n > r->msg.u.embed.n - r->ids.n || n_embd == 0 ||
        rep->bulk_len / sizeof(float) / n_embd != n ||
        rep->bulk_len % (n_embd * sizeof(float)) != 0 || (r->n_embd && r->n_embd != n_embd))
        return -EPROTO;
    r->n_embd = (uint32_t)n_embd;
    if (n == 0 || r->err)
        return 0;
    if (gist_array_add(&r->ids, rep->u.embedding.n_tokens, n, 4) < 0 ||
        gist_array_add(&r->logprobs, bulk, n * n_embd, 4) < 0)
        r->err = gist_set_errno(r->conn, -ENOMEM);
    return 0;
}

/* The two arrays change hands as they are. */
static struct gist_embeddings *make(struct gist_request *r, const struct wire_rep *rep)
{
    struct gist_embeddings *all = calloc(1, sizeof(*all));

    if (!all)
        return NULL;
    *all = (struct gist_embeddings){ .size = sizeof(*all),
                                     .vectors = r->logprobs.mem,
                                     .n = r->ids.n,
                                     .n_embd = r->n_embd,
                                     .n_tokens = r->ids.mem };
    gist_copy_usage(&all->usage, &rep->u.embedding.usage);
    r->ids = r->logprobs = (struct gist_array){ 0 };
    return all;
}

/* All rows must be there at the end, each of one length: a caller takes them for a matrix. */
static int keep_embeddings(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    if (rep->kind != WIRE_EMBEDDING)
        return -EPROTO;
    if (!rep->last)
        return keep_rows(r, rep, bulk);
    if (r->err)
        return 0;
    if (r->ids.n != r->msg.u.embed.n)
        return -EPROTO;
    r->embeddings = make(r, rep);
    if (!r->embeddings)
        r->err = gist_set_errno(r->conn, -ENOMEM);
    return 0;
}

/* What *ret_all holds is the caller's to free. */
static int make_request(gist_conn *c, const struct gist_span *texts, size_t n,
                        const struct gist_embed_opts *opts, struct gist_request *ret,
                        struct gist_gathered *ret_all)
{
    struct gist_embed_opts o;
    int err = gist_copy_sized(&o, sizeof(o), opts);

    if (err == 0 && (o.flags & ~(GIST_NORMALISE | GIST_SPECIAL | GIST_TOKENS) ||
                     o.pooling > GIST_POOL_LAST || o.priority > GIST_BACKGROUND))
        err = -EINVAL;
    if (err < 0)
        return gist_set_errno(c, err);
    if (n > WIRE_TEXTS_MAX)
        return gist_set_error(c, GIST_E_BAD_REQUEST, -EMSGSIZE,
                              "%zu texts in one request; %u are allowed", n, WIRE_TEXTS_MAX);
    err = gist_gather_spans(c, texts, n, o.flags & GIST_TOKENS ? sizeof(uint32_t) : 1, ret_all);
    if (err < 0)
        return err;
    *ret = gist_request_make(c, WIRE_EMBED);
    ret->msg.u.embed.kind = o.flags & GIST_TOKENS ? WIRE_SCORE_TOKENS : WIRE_SCORE_TEXT;
    ret->msg.u.embed.pooling = o.pooling == GIST_POOL_LAST ? WIRE_POOLING_LAST : WIRE_POOLING_MEAN;
    ret->msg.u.embed.priority = o.priority == GIST_BACKGROUND ? WIRE_BACKGROUND : WIRE_INTERACTIVE;
    ret->msg.u.embed.normalise = o.flags & GIST_NORMALISE;
    ret->msg.u.embed.special = o.flags & GIST_SPECIAL;
    ret->msg.u.embed.lens = ret_all->lens;
    ret->msg.u.embed.n = (uint32_t)n;
    ret->bulk = ret_all->bytes;
    ret->bulk_len = ret_all->len;
    ret->on_reply = keep_embeddings;
    return 0;
}

int gist_embed(gist_conn *c, const struct gist_span *texts, size_t n,
               const struct gist_embed_opts *opts, struct gist_embeddings **ret_embeddings)
{
    struct gist_gathered all;
    struct gist_request r;
    int err = make_request(c, texts, n, opts, &r, &all);

    if (err < 0)
        return err;
    err = gist_run_spans(&r, &all);
    if (err < 0)
        gist_embeddings_free(r.embeddings);
    else
        *ret_embeddings = r.embeddings;
    return err;
}

static void tell_embeddings(struct gist_request *r, int err)
{
    r->end.embeddings(r->arg, err, err == 0 ? r->embeddings : NULL);
}

int gist_embed_start(gist_conn *c, const struct gist_span *texts, size_t n,
                     const struct gist_embed_opts *opts, gist_embeddings_fn *on_done, void *arg,
                     uint64_t *ret_request)
{
    struct gist_gathered all;
    struct gist_request r;
    int err = make_request(c, texts, n, opts, &r, &all);

    if (err < 0)
        return err;
    r.end.embeddings = on_done;
    r.tell = on_done ? tell_embeddings : NULL;
    r.arg = arg;
    err = gist_submit(&r, ret_request);
    free(all.lens);
    return err;
}

void gist_embeddings_free(struct gist_embeddings *embeddings)
{
    if (!embeddings)
        return;
    free((void *)(uintptr_t)embeddings->vectors);
    free((void *)(uintptr_t)embeddings->n_tokens);
    free(embeddings);
}
