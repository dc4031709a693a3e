/* client/gist_choices.c - several continuations of a session, scored. */
#include "client/gist_spans.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* All in one piece of memory, in which the ids and their numbers lie behind the rest. */
static struct gist_choices *make_choices(const struct gist_request *r, const struct wire_rep *rep)
{
    size_t n = rep->u.chosen.n, n_ids = r->ids.n;
    struct gist_choices *all = calloc(1, sizeof(*all) + n * sizeof(*all->choices) +
                                             n_ids * (sizeof(uint32_t) + sizeof(float)));
    struct gist_choice *one;
    float *logprobs;
    uint32_t *ids;

    if (!all)
        return NULL;
    one = (struct gist_choice *)(all + 1);
    ids = (uint32_t *)(one + n);
    logprobs = (float *)(ids + n_ids);
    if (n_ids > 0) {
        memcpy(ids, r->ids.mem, n_ids * sizeof(*ids));
        memcpy(logprobs, r->logprobs.mem, n_ids * sizeof(*logprobs));
    }
    *all = (struct gist_choices){ .size = sizeof(*all),
                                  .choices = one,
                                  .n = n,
                                  .best = rep->u.chosen.best,
                                  .best_mean = rep->u.chosen.best_mean };
    gist_copy_usage(&all->usage, &rep->u.chosen.usage);
    for (size_t i = 0; i < n; i++) {
        one[i] =
            (struct gist_choice){ ids, logprobs, rep->u.chosen.n_tokens[i], rep->u.chosen.sums[i] };
        ids += one[i].n;
        logprobs += one[i].n;
    }
    return all;
}

/* The rows come first, then how many of them belong to which continuation: those must add up. */
static int keep_chosen(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    uint64_t n_ids = 0;

    if (rep->kind == WIRE_SCORE_ROWS && !rep->last)
        return gist_keep_rows(r, rep, bulk);
    if (rep->kind != WIRE_CHOSEN || !rep->last || rep->u.chosen.n != r->msg.u.score_choices.n)
        return -EPROTO;
    for (uint32_t i = 0; i < rep->u.chosen.n; i++)
        n_ids += rep->u.chosen.n_tokens[i];
    if (r->err)
        return 0;
    if (n_ids != r->ids.n)
        return -EPROTO;
    r->choices = make_choices(r, rep);
    if (!r->choices)
        r->err = gist_set_errno(r->conn, -ENOMEM);
    return 0;
}

/* What *ret_all holds is the caller's to free. */
static int make_request(gist_session *s, const struct gist_span *choices, size_t n, unsigned flags,
                        struct gist_request *ret, struct gist_gathered *ret_all)
{
    int err;

    if (flags & ~(GIST_SPECIAL | GIST_TOKENS))
        return gist_set_errno(s->conn, -EINVAL);
    if (n > WIRE_CHOICES_MAX)
        return gist_set_error(s->conn, GIST_E_BAD_REQUEST, -EMSGSIZE,
                              "%zu continuations in one request; %u are allowed", n,
                              WIRE_CHOICES_MAX);
    err =
        gist_gather_spans(s->conn, choices, n, flags & GIST_TOKENS ? sizeof(uint32_t) : 1, ret_all);
    if (err < 0)
        return err;
    *ret = gist_request_make(s->conn, WIRE_SCORE_CHOICES);
    ret->msg.u.score_choices.session = s->id;
    ret->msg.u.score_choices.kind = flags & GIST_TOKENS ? WIRE_SCORE_TOKENS : WIRE_SCORE_TEXT;
    ret->msg.u.score_choices.special = flags & GIST_SPECIAL;
    ret->msg.u.score_choices.lens = ret_all->lens;
    ret->msg.u.score_choices.n = (uint32_t)n;
    ret->bulk = ret_all->bytes;
    ret->bulk_len = ret_all->len;
    ret->on_reply = keep_chosen;
    return 0;
}

int gist_score_choices(gist_session *s, const struct gist_span *choices, size_t n, unsigned flags,
                       struct gist_choices **ret_choices)
{
    struct gist_gathered all;
    struct gist_request r;
    int err = make_request(s, choices, n, flags, &r, &all);

    if (err < 0)
        return err;
    err = gist_run_spans(&r, &all);
    if (err < 0)
        gist_choices_free(r.choices);
    else
        *ret_choices = r.choices;
    return err;
}

static void tell_choices(struct gist_request *r, int err)
{
    r->end.choices(r->arg, err, err == 0 ? r->choices : NULL);
}

int gist_score_choices_start(gist_session *s, const struct gist_span *choices, size_t n,
                             unsigned flags, gist_choices_fn *on_done, void *arg,
                             uint64_t *ret_request)
{
    struct gist_gathered all;
    struct gist_request r;
    int err = make_request(s, choices, n, flags, &r, &all);

    if (err < 0)
        return err;
    r.end.choices = on_done;
    r.tell = on_done ? tell_choices : NULL;
    r.arg = arg;
    err = gist_submit(&r, ret_request);
    free(all.lens);
    return err;
}

void gist_choices_free(struct gist_choices *choices)
{
    free(choices);
}
