/* client/gist_session.c - sessions: open, append, generate, close. */
#include "client/gist_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- opening and closing ---------------------------------------------------------------------- */

static int keep_session(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)bulk;
    if (rep->kind != WIRE_SESSION_OPENED || !rep->last)
        return -EPROTO;
    r->session = rep->u.session_opened.session;
    gist_copy_usage(&r->result.usage, &rep->u.session_opened.usage);
    return 0;
}

gist_session *gist_session_keep(gist_session *s, const struct gist_request *r)
{
    gist_conn *c = r->conn;

    *s = (gist_session){
        .next = c->sessions, .conn = c, .id = r->session, .opened = r->result.usage
    };
    c->sessions = s;
    return s;
}

void gist_session_usage(const gist_session *s, struct gist_usage *ret_usage)
{
    *ret_usage = s->opened;
}

int gist_open(gist_conn *c, const struct gist_policy *policy, gist_session **ret_session)
{
    struct gist_request r = gist_request_make(c, WIRE_OPEN_SESSION);
    struct gist_policy p;
    gist_session *s;
    int err = gist_copy_sized(&p, sizeof(p), policy);

    if (err == 0 && p.flags & ~(GIST_AUTO | GIST_PUBLIC | GIST_PRIVATE | GIST_SET_SEGMENT))
        err = -EINVAL;
    if (err == 0)
        err = gist_copy_memory(&r.msg.u.open_session.memory, p.memory);
    if (err < 0)
        return gist_set_errno(c, err);
    if (p.n_documents > WIRE_DOCUMENTS_MAX)
        return gist_set_error(c, GIST_E_BAD_REQUEST, -EINVAL,
                              "%zu documents for one session; %u are allowed", p.n_documents,
                              WIRE_DOCUMENTS_MAX);
    /* Before the request: a session that the daemon has and we could not keep would be lost. */
    s = calloc(1, sizeof(*s));
    if (!s)
        return gist_set_errno(c, -ENOMEM);
    if (p.flags & GIST_AUTO)
        r.msg.u.open_session.memory.automatic = true;
    r.msg.u.open_session.segment = p.segment;
    r.msg.u.open_session.has_segment = p.segment || p.flags & GIST_SET_SEGMENT;
    r.msg.u.open_session.priority =
        p.priority == GIST_BACKGROUND ? WIRE_BACKGROUND : WIRE_INTERACTIVE;
    r.msg.u.open_session.label = p.label;
    r.msg.u.open_session.public_prefix = p.flags & GIST_PUBLIC;
    r.msg.u.open_session.is_private = p.flags & GIST_PRIVATE;
    r.msg.u.open_session.documents = p.documents;
    r.msg.u.open_session.n_documents = (uint32_t)p.n_documents;
    r.on_reply = keep_session;
    err = gist_run(&r, -1);
    if (err < 0) {
        free(s);
        return err;
    }
    *ret_session = gist_session_keep(s, &r);
    return 0;
}

int gist_fork(gist_session *s, const char *label, gist_session **ret_session)
{
    struct gist_request r = gist_request_make(s->conn, WIRE_FORK);
    gist_session *t = calloc(1, sizeof(*t));
    int err;

    if (!t)
        return gist_set_errno(s->conn, -ENOMEM);
    r.msg.u.fork.session = s->id;
    r.msg.u.fork.label = label;
    r.on_reply = keep_session;
    err = gist_run(&r, -1);
    if (err < 0) {
        free(t);
        return err;
    }
    *ret_session = gist_session_keep(t, &r);
    return 0;
}

static int check_rewound(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)bulk;
    return rep->kind == WIRE_REWOUND && rep->last &&
                   rep->u.rewound.n_tokens == r->msg.u.rewind.n_tokens
               ? 0
               : -EPROTO;
}

int gist_rewind(gist_session *s, uint32_t n_tokens)
{
    struct gist_request r = gist_request_make(s->conn, WIRE_REWIND);

    r.msg.u.rewind.session = s->id;
    r.msg.u.rewind.n_tokens = n_tokens;
    r.on_reply = check_rewound;
    return gist_run(&r, -1);
}

void gist_close(gist_session *s)
{
    struct gist_request r;
    gist_session **p;

    if (!s)
        return;
    r = gist_request_make(s->conn, WIRE_CLOSE_SESSION);
    r.msg.u.close_session.session = s->id;
    (void)gist_submit(&r, NULL); /* a dead connection has no sessions any more */
    for (p = &s->conn->sessions; *p != s; p = &(*p)->next)
        ;
    *p = s->next;
    free(s);
}

uint64_t gist_session_id(const gist_session *s)
{
    return s->id;
}

/* --- appending -------------------------------------------------------------------------------- */

void gist_on_progress(gist_session *s, gist_progress_fn *on_progress, void *arg)
{
    s->on_progress = on_progress;
    s->progress_arg = arg;
}

/* The daemon's first word may come late: what was found is told apart from what was read since. */
static void tell_read(struct gist_request *r, const struct wire_rep *rep)
{
    uint32_t n_read = rep->u.appended.n_read, n_all = rep->u.appended.n_all;

    if (!r->progress_begun && rep->u.appended.n_found < n_read)
        r->on_progress(r->progress_arg, rep->u.appended.n_found, n_all);
    r->progress_begun = true;
    r->on_progress(r->progress_arg, n_read, n_all);
}

static int keep_appended(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)bulk;
    if (rep->kind != WIRE_APPENDED || (!rep->last && !r->on_progress))
        return -EPROTO;
    if (rep->last)
        gist_copy_usage(&r->result.usage, &rep->u.appended.usage);
    else
        tell_read(r, rep);
    return 0;
}

static int run_append(struct gist_request *r, struct gist_usage *ret_usage)
{
    int err;

    r->on_reply = keep_appended;
    err = gist_run(r, -1);
    if (err == 0 && ret_usage)
        *ret_usage = r->result.usage;
    return err;
}

static int start_append(struct gist_request *r, gist_done_fn *on_done, void *arg,
                        uint64_t *ret_request)
{
    r->on_reply = keep_appended;
    r->on_done = on_done;
    r->arg = arg;
    return gist_submit(r, ret_request);
}

static struct gist_request make_append(gist_session *s, enum wire_append_kind kind,
                                       const void *bulk, size_t len)
{
    struct gist_request r = gist_request_make(s->conn, WIRE_APPEND);

    r.msg.u.append.session = s->id;
    r.msg.u.append.kind = kind;
    r.msg.u.append.progress = s->on_progress != NULL;
    r.on_progress = s->on_progress;
    r.progress_arg = s->progress_arg;
    r.bulk = bulk;
    r.bulk_len = len;
    return r;
}

static struct gist_request make_append_text(gist_session *s, const char *text, size_t len,
                                            unsigned flags)
{
    struct gist_request r = make_append(s, WIRE_APPEND_TEXT, text, len);

    r.msg.u.append.special = flags & GIST_SPECIAL;
    return r;
}

int gist_append_text(gist_session *s, const char *text, size_t len, unsigned flags,
                     struct gist_usage *ret_usage)
{
    struct gist_request r = make_append_text(s, text, len, flags);

    if (flags & ~GIST_SPECIAL)
        return gist_set_errno(s->conn, -EINVAL);
    return run_append(&r, ret_usage);
}

int gist_append_text_start(gist_session *s, const char *text, size_t len, unsigned flags,
                           gist_done_fn *on_done, void *arg, uint64_t *ret_request)
{
    struct gist_request r = make_append_text(s, text, len, flags);

    if (flags & ~GIST_SPECIAL)
        return gist_set_errno(s->conn, -EINVAL);
    return start_append(&r, on_done, arg, ret_request);
}

int gist_append_tokens(gist_session *s, const uint32_t *ids, size_t n, struct gist_usage *ret_usage)
{
    struct gist_request r = make_append(s, WIRE_APPEND_TOKENS, ids, n * sizeof(*ids));

    return run_append(&r, ret_usage);
}

int gist_append_tokens_start(gist_session *s, const uint32_t *ids, size_t n, gist_done_fn *on_done,
                             void *arg, uint64_t *ret_request)
{
    struct gist_request r = make_append(s, WIRE_APPEND_TOKENS, ids, n * sizeof(*ids));

    return start_append(&r, on_done, arg, ret_request);
}

/* The texts of all messages, one after the other, and the table that says where each ends. */
static int gather_chat(const struct gist_message *msgs, size_t n,
                       struct wire_chat_message **ret_list, char **ret_text, size_t *ret_len)
{
    struct wire_chat_message *list;
    size_t len = 0;
    char *text, *p;

    list = calloc(n ? n : 1, sizeof(*list));
    if (!list)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        list[i].role = msgs[i].role;
        list[i].text_len = strlen(msgs[i].text);
        len += list[i].text_len;
    }
    text = p = malloc(len + 1);
    if (!text) {
        free(list);
        return -ENOMEM;
    }
    for (size_t i = 0; i < n; i++)
        p = mempcpy(p, msgs[i].text, list[i].text_len);
    *ret_list = list;
    *ret_text = text;
    *ret_len = len;
    return 0;
}

/* The request of an append of messages; the table and the text that it points to are the caller's
 * to free. */
static int make_append_chat(gist_session *s, const struct gist_message *msgs, size_t n,
                            unsigned flags, struct gist_request *ret,
                            struct wire_chat_message **ret_list, char **ret_text)
{
    size_t len;
    int err;

    if (flags & ~GIST_OPEN_ANSWER)
        return gist_set_errno(s->conn, -EINVAL);
    if (n > WIRE_MESSAGES_MAX)
        return gist_set_error(s->conn, GIST_E_BAD_REQUEST, -EMSGSIZE,
                              "%zu chat messages in one request; %u are allowed", n,
                              WIRE_MESSAGES_MAX);
    err = gather_chat(msgs, n, ret_list, ret_text, &len);
    if (err < 0)
        return gist_set_errno(s->conn, err);
    *ret = make_append(s, WIRE_APPEND_CHAT, *ret_text, len);
    ret->msg.u.append.messages = *ret_list;
    ret->msg.u.append.n_messages = (uint32_t)n;
    ret->msg.u.append.open_answer = flags & GIST_OPEN_ANSWER;
    return 0;
}

int gist_append_chat(gist_session *s, const struct gist_message *msgs, size_t n, unsigned flags,
                     struct gist_usage *ret_usage)
{
    struct wire_chat_message *list;
    struct gist_request r;
    char *text;
    int err = make_append_chat(s, msgs, n, flags, &r, &list, &text);

    if (err < 0)
        return err;
    err = run_append(&r, ret_usage);
    free(list);
    free(text);
    return err;
}

int gist_append_chat_start(gist_session *s, const struct gist_message *msgs, size_t n,
                           unsigned flags, gist_done_fn *on_done, void *arg, uint64_t *ret_request)
{
    struct wire_chat_message *list;
    struct gist_request r;
    char *text;
    int err = make_append_chat(s, msgs, n, flags, &r, &list, &text);

    if (err < 0)
        return err;
    err = start_append(&r, on_done, arg, ret_request);
    free(list);
    free(text);
    return err;
}

/* --- generating ------------------------------------------------------------------------------- */

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

    if (rep->last || (rep->u.text.index && rep->u.text.index >= r->msg.u.generate.n))
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

/* One of several has ended; or the only one. */
static int give_result(struct gist_request *r, uint32_t answer, const struct gist_result *result)
{
    if (answer && answer >= r->msg.u.generate.n)
        return -EPROTO;
    if (r->results)
        r->results[answer] = *result;
    if (r->on_answer && !r->err)
        r->on_answer(r->arg, answer, result);
    return 0;
}

static int keep_answer(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    static const enum gist_reason reasons[] = {
        [WIRE_REASON_END_OF_TEXT] = GIST_END_OF_TEXT,
        [WIRE_REASON_STOP] = GIST_STOP,
        [WIRE_REASON_LENGTH] = GIST_LENGTH,
        [WIRE_REASON_CONTEXT_FULL] = GIST_CONTEXT_FULL,
        [WIRE_REASON_POOL_FULL] = GIST_POOL_FULL,
    };
    struct gist_result result = { 0 };

    (void)bulk;
    if (rep->kind == WIRE_TEXT)
        return give_text(r, rep);
    if (rep->kind != WIRE_DONE || (!rep->last && r->msg.u.generate.n < 2))
        return -EPROTO;
    result.reason = reasons[rep->u.done.reason];
    gist_copy_usage(&result.usage, &rep->u.done.usage);
    if (rep->last)
        r->result = result;
    return rep->last && r->msg.u.generate.n > 1 ? 0 : give_result(r, rep->u.done.index, &result);
}

/* An older daemon would pass over what it does not know, and answer with any text. */
static int add_outputs(gist_session *s, const struct gist_sampling *p, struct gist_request *r)
{
    bool logprobs = p->logprobs > 0 || p->flags & GIST_SET_LOGPROBS;

    if ((p->grammar || logprobs) && !s->conn->outputs)
        return gist_set_error(s->conn, GIST_E_UNSUPPORTED, -ENOTSUP,
                              "gistd %s knows neither grammars nor log-probabilities: restart it "
                              "with a newer version",
                              s->conn->info.version);
    r->msg.u.generate.grammar = (enum wire_grammar)p->grammar;
    r->bulk = (const uint8_t *)p->grammar_text;
    r->bulk_len = p->grammar_len;
    r->msg.u.generate.has_logprobs = logprobs;
    r->msg.u.generate.logprobs = p->logprobs;
    r->on_logprob = p->on_logprob;
    return 0;
}

static int make_generate(gist_session *s, const struct gist_sampling *sampling,
                         struct gist_request *ret)
{
    struct gist_request r = gist_request_make(s->conn, WIRE_GENERATE);
    struct gist_sampling p;
    int err = gist_copy_sized(&p, sizeof(p), sampling);

    if (err == 0 && (p.flags & ~(GIST_SET_TOP_P | GIST_SET_REPEAT_PENALTY | GIST_SET_LOGPROBS |
                                 GIST_SET_DRAFT) ||
                     p.grammar > GIST_JSON_SCHEMA || (p.grammar_len > 0 && !p.grammar)))
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
    r.on_reply = keep_answer;
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
    err = gist_run(&r, -1);
    if (err == 0 && ret_result)
        *ret_result = r.result;
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
    r.on_done = on_done;
    r.arg = arg;
    return gist_submit(&r, ret_request);
}

static int make_several(gist_session *s, const struct gist_sampling *sampling, uint32_t n,
                        struct gist_request *ret)
{
    int err = n > 0 ? make_generate(s, sampling, ret) : gist_set_errno(s->conn, -EINVAL);

    if (err < 0)
        return err;
    if (n > 1 && !s->conn->several)
        return gist_set_error(s->conn, GIST_E_UNSUPPORTED, -ENOTSUP,
                              "gistd %s gives one answer to a request: restart it with a newer "
                              "version, or fork the session",
                              s->conn->info.version);
    ret->msg.u.generate.n = n;
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
    r.results = ret_results;
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
    r.on_done = on_done;
    r.arg = arg;
    return gist_submit(&r, ret_request);
}
