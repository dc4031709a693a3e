/* client/gist_generate.c - answers of a session. */
#include "client/gist_open.h"

#include <errno.h>
#include <string.h>

/* Before the text that they are of. top_ids and top_logprobs are (n_ids, n_top). */
static void give_logprobs(struct gist_request *r, const struct wire_rep *rep)
{
    uint32_t n_top = rep->u.text.n_top;
    struct gist_logprob one;

    if (!r->on_logprob || !rep->u.text.logprobs)
        return;
    for (uint32_t i = 0; i < rep->u.text.n_ids; i++) {
        one = (struct gist_logprob){ .answer = rep->u.text.index,
                                     .id = rep->u.text.tokens[i],
                                     .logprob = rep->u.text.logprobs[i],
                                     .n_top = n_top };
        if (n_top > 0) {
            one.top_ids = rep->u.text.top_ids + (size_t)i * n_top;
            one.top_logprobs = rep->u.text.top_logprobs + (size_t)i * n_top;
        }
        r->on_logprob(r->arg, &one);
    }
}

/* Text that comes behind a callback's refusal is what the daemon had sent before it saw the cancel:
 * it is read and dropped, until the last reply ends the request. */
static int give_text(struct gist_request *r, const struct wire_rep *rep)
{
    const char *text = rep->u.text.text;
    size_t len = strlen(text);
    int no = 0;

    if (rep->last || (rep->u.text.index && rep->u.text.index >= r->n_answers))
        return -EPROTO;
    if (!r->err)
        give_logprobs(r, rep);
    if (r->err) /* the caller wants no more */
        return 0;
    if (r->on_answers)
        no = r->on_answers(r->arg, rep->u.text.index, text, len, rep->u.text.tokens,
                           rep->u.text.n_ids);
    else if (r->on_text)
        no = r->on_text(r->arg, text, len, rep->u.text.tokens, rep->u.text.n_ids);
    if (no != 0) {
        r->err = gist_set_error(r->conn, GIST_E_CANCELLED, -ECANCELED,
                                "the answer was cancelled: its callback returned non-zero");
        gist_request_cancel(r);
    }
    return 0;
}

/* One of several has ended; or the only one. Results lie in steps of what the caller's program
 * takes for their size, which may be of another version. */
static int give_result(struct gist_request *r, uint32_t answer, const struct gist_result *result)
{
    size_t len = r->conn->sizes.result;

    if (answer && answer >= r->n_answers)
        return -EPROTO;
    if (r->results)
        gist_copy_out(r->results + answer * len, len, result, sizeof(*result));
    if (r->on_answer && !r->err)
        r->on_answer(r->arg, answer, result);
    return 0;
}

/* Programs look it up among their own. How many those of a Resume were is not known here. */
static bool take_stop(const struct gist_request *r, const struct wire_rep *rep,
                      struct gist_result *result)
{
    if (result->reason == GIST_STOP)
        result->stop = rep->u.done.stop;
    return r->msg.kind != WIRE_GENERATE || result->stop <= r->msg.u.generate.n_stops;
}

int gist_keep_answer(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    struct gist_result result = { 0 };

    (void)bulk;
    if (rep->kind == WIRE_TEXT)
        return give_text(r, rep);
    if (rep->kind != WIRE_DONE || (!rep->last && r->n_answers < 2))
        return -EPROTO;
    result.reason = gist_reason_of(rep->u.done.reason);
    if (!take_stop(r, rep, &result))
        return -EPROTO;
    if (r->conn->first && result.reason == GIST_CUT) /* programs from before have no such */
        result.reason = GIST_LENGTH;
    gist_copy_usage(&result.usage, &rep->u.done.usage);
    if (rep->last) {
        r->result = result;
        r->cut = r->err != 0; /* the caller had refused its end */
    }
    return rep->last && r->n_answers > 1 ? 0 : give_result(r, rep->u.done.index, &result);
}

/* An older daemon would pass over what it does not know, and answer with any text. */
static int add_outputs(gist_session *s, const struct gist_sampling *p, struct gist_request *r)
{
    bool logprobs = p->logprobs > 0 || p->flags & GIST_SET_LOGPROBS;

    if ((p->grammar || logprobs) && !s->conn->info.outputs)
        return gist_set_error(s->conn, GIST_E_UNSUPPORTED, -ENOTSUP,
                              "gistd %s knows neither grammars nor log-probabilities: restart it "
                              "with a newer version",
                              s->conn->info.version);
    if (p->grammar == GIST_CALLS && !s->conn->calls)
        return gist_set_error(
            s->conn, GIST_E_UNSUPPORTED, -ENOTSUP,
            "gistd %s can't hold an answer to calls of tools or a format: restart "
            "it with a newer version",
            s->conn->info.version);
    r->msg.u.generate.grammar = (enum wire_grammar)p->grammar;
    r->bulk = (const uint8_t *)p->grammar_text;
    r->bulk_len = p->grammar_len;
    r->msg.u.generate.has_logprobs = logprobs;
    r->msg.u.generate.logprobs = p->logprobs;
    r->on_logprob = p->on_logprob;
    return 0;
}

/* 0 is what a field has that nobody set. Where it means something as well, a flag says that it was
 * set: has_top_p and the others. */
static int make_generate(gist_session *s, const struct gist_sampling *sampling,
                         struct gist_request *ret)
{
    struct gist_request r = gist_request_make(s->conn, WIRE_GENERATE);
    struct gist_sampling p;
    int err = gist_copy_sized(&p, sizeof(p), sampling);

    if (err == 0 && (p.flags & ~(GIST_SET_TOP_P | GIST_SET_REPEAT_PENALTY | GIST_SET_LOGPROBS |
                                 GIST_SET_DRAFT) ||
                     p.grammar > GIST_CALLS || (p.grammar_len > 0 && !p.grammar)))
        err = -EINVAL;
    if (err < 0)
        return gist_set_errno(s->conn, err);
    if (p.n_stop > WIRE_STOPS_MAX)
        return gist_set_error(s->conn, GIST_E_BAD_REQUEST, -EINVAL,
                              "%u stop strings in one request; %u are allowed", p.n_stop,
                              WIRE_STOPS_MAX);
    err = add_outputs(s, &p, &r);
    if (err < 0)
        return err;
    r.msg.u.generate.session = s->id;
    r.msg.u.generate.max_tokens = p.max_tokens;
    r.msg.u.generate.temperature = p.temperature;
    r.msg.u.generate.top_k = p.top_k;
    r.msg.u.generate.top_p = p.top_p;
    r.msg.u.generate.has_top_p = p.top_p != 0 || p.flags & GIST_SET_TOP_P;
    r.msg.u.generate.min_p = p.min_p;
    r.msg.u.generate.repeat_penalty = p.repeat_penalty;
    r.msg.u.generate.has_repeat_penalty =
        p.repeat_penalty != 0 || p.flags & GIST_SET_REPEAT_PENALTY;
    r.msg.u.generate.repeat_last_n = p.repeat_last_n;
    r.msg.u.generate.seed = p.seed;
    r.msg.u.generate.stops = p.stop;
    r.msg.u.generate.n_stops = p.n_stop;
    r.msg.u.generate.ignore_eog = p.ignore_eog;
    r.msg.u.generate.has_draft = p.draft != 0 || p.flags & GIST_SET_DRAFT;
    r.msg.u.generate.draft = p.draft;
    r.on_reply = gist_keep_answer;
    r.n_answers = 1;
    *ret = r;
    return 0;
}

int gist_generate(gist_session *s, const struct gist_sampling *sampling, gist_text_fn *on_text,
                  void *arg, struct gist_result *ret_result)
{
    struct gist_request r;
    int err = make_generate(s, sampling, &r);

    if (err < 0)
        return err;
    r.on_text = on_text;
    r.arg = arg;
    err = gist_run(&r, -1); /* on_text may have closed s */
    if (err == 0 || r.cut)
        gist_copy_out(ret_result, r.conn->sizes.result, &r.result, sizeof(r.result));
    return err;
}

int gist_generate_start(gist_session *s, const struct gist_sampling *sampling,
                        gist_text_fn *on_text, gist_done_fn *on_done, void *arg,
                        uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_generate(s, sampling, &r);

    if (err < 0)
        return err;
    r.on_text = on_text;
    return gist_start(&r, on_done, arg, ret_request);
}

static int make_several(gist_session *s, const struct gist_sampling *sampling, uint32_t n,
                        struct gist_request *ret)
{
    int err = n > 0 ? make_generate(s, sampling, ret) : gist_set_errno(s->conn, -EINVAL);

    if (err < 0)
        return err;
    if (n > 1 && !s->conn->info.several)
        return gist_set_error(s->conn, GIST_E_UNSUPPORTED, -ENOTSUP,
                              "gistd %s gives one answer to a request: restart it with a newer "
                              "version, or fork the session",
                              s->conn->info.version);
    ret->msg.u.generate.n = ret->n_answers = n;
    return 0;
}

int gist_generate_several(gist_session *s, const struct gist_sampling *sampling, uint32_t n,
                          gist_answers_fn *on_text, void *arg, struct gist_result *ret_results)
{
    struct gist_request r;
    int err = make_several(s, sampling, n, &r);

    if (err < 0)
        return err;
    r.on_answers = on_text;
    r.results = (uint8_t *)ret_results;
    r.arg = arg;
    return gist_run(&r, -1);
}

int gist_generate_several_start(gist_session *s, const struct gist_sampling *sampling, uint32_t n,
                                gist_answers_fn *on_text, gist_answer_fn *on_answer,
                                gist_done_fn *on_done, void *arg, uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_several(s, sampling, n, &r);

    if (err < 0)
        return err;
    r.on_answers = on_text;
    r.on_answer = on_answer;
    return gist_start(&r, on_done, arg, ret_request);
}
