/* ipc/wire_rep.c - replies, between our structs and protobuf-c's, as wire_req.c does for requests.
 *
 * A reply is read by a client that may be older than the daemon, or connected to a liar. What is
 * new to it is passed over where that is safe, as the schema says at its head; lists that belong
 * together must have the same length, and indices point into them, since the caller will use them
 * without another look. */

#include "ipc/wire_pb.h"

#include <errno.h>
#include <string.h>

_Static_assert(WIRE_WELCOME + WIRE_BODY_BASE == (int)GISTD__REPLY__BODY_WELCOME, "kind");
_Static_assert(WIRE_STATS + WIRE_BODY_BASE == (int)GISTD__REPLY__BODY_STATS, "kind");
_Static_assert(WIRE_REWOUND + WIRE_BODY_BASE == (int)GISTD__REPLY__BODY_REWOUND, "kind");
_Static_assert(WIRE_CACHE_ROWS + WIRE_BODY_BASE == (int)GISTD__REPLY__BODY_CACHE_ROWS, "kind");
_Static_assert(WIRE_DOCUMENT_ADDED + WIRE_BODY_BASE == (int)GISTD__REPLY__BODY_DOCUMENT_ADDED,
               "kind");
_Static_assert(WIRE_CHOSEN + WIRE_BODY_BASE == (int)GISTD__REPLY__BODY_CHOSEN, "kind");
_Static_assert(WIRE_LOADING + WIRE_BODY_BASE == (int)GISTD__REPLY__BODY_LOADING, "kind");
_Static_assert(WIRE_RESUMED + WIRE_BODY_BASE == (int)GISTD__REPLY__BODY_RESUMED, "kind");
_Static_assert((int)WIRE_ROW_DAMAGED == (int)GISTD__LISTED__STATE__DAMAGED, "enum");

/* --- packing ---------------------------------------------------------------------------------- */

/* One at a time, on the stack of wire_rep_pack. A usage stands beside it: several kinds have one.
 */
union rep_body {
    Gistd__Welcome welcome;
    Gistd__SessionOpened session_opened;
    Gistd__Appended appended;
    Gistd__Text text;
    Gistd__Done done;
    Gistd__ScoreRows score_rows;
    Gistd__Tokens tokens;
    Gistd__Stats stats;
    Gistd__Error error;
    Gistd__Cancelled cancelled;
    Gistd__SessionClosed session_closed;
    Gistd__Rewound rewound;
    Gistd__CacheRows cache_rows;
    Gistd__Saved saved;
    Gistd__Restored restored;
    Gistd__Listed listed;
    Gistd__Deleted deleted;
    Gistd__DocumentAdded document_added;
    Gistd__Traced traced;
    Gistd__Chosen chosen;
    Gistd__Embedding embedding;
    Gistd__SegmentMap segment_map;
    Gistd__Loading loading;
    Gistd__Kept kept;
    Gistd__Attached attached;
    Gistd__Resumed resumed;
};

static void build_usage(const struct wire_usage *u, Gistd__Usage *m)
{
    gistd__usage__init(m);
    m->prompt_tokens = u->prompt_tokens;
    m->computed_tokens = u->computed_tokens;
    m->generated_tokens = u->generated_tokens;
    m->prompt_ns = u->prompt_ns;
    m->first_token_ns = u->first_token_ns;
    m->generate_ns = u->generate_ns;
    m->raw_tokens = u->raw_tokens;
    m->gist_tokens = u->gist_tokens;
    m->gists = u->gists;
    m->shared_tokens = u->shared_tokens;
    m->restored_tokens = u->restored_tokens;
    m->approximate_tokens = u->approximate_tokens;
    m->hydrated_tokens = u->hydrated_tokens;
    m->hydrated_disk_tokens = u->hydrated_disk_tokens;
    m->recomputed_tokens = u->recomputed_tokens;
    m->missed_tokens = u->missed_tokens;
    m->ratio = u->ratio;
    m->drafted_tokens = u->drafted_tokens;
    m->accepted_tokens = u->accepted_tokens;
    /* The zeros at the end are left out, and with them most of the list. */
    m->n_at_ratio = WIRE_RATIOS;
    while (m->n_at_ratio > 0 && u->at_ratio[m->n_at_ratio - 1] == 0)
        m->n_at_ratio--;
    m->at_ratio = (uint32_t *)(uintptr_t)u->at_ratio; /* packing only reads */
}

/* At most WIRE_CACHE_ROWS_MAX; the daemon sends as many such replies as its rows take. */
static int build_cache_row_list(struct wire_scratch *s, const struct wire_cache_rows *c,
                                Gistd__CacheRows *m)
{
    Gistd__CacheRows__Row **list = wire_scratch_list(s, c->n_row, sizeof(**list));

    if (!list)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < c->n_row; i++) {
        const struct wire_cache_row *x = &c->row[i];
        Gistd__CacheRows__Row *one = list[i];

        gistd__cache_rows__row__init(one);
        one->id = x->id;
        one->bytes = x->bytes;
        one->used_s = x->used_s;
        one->cost_ns = x->cost_ns;
        one->tokens = x->tokens;
        one->keys = x->keys;
        one->depth = x->depth;
        one->packed = x->packed;
    }
    m->row = list;
    m->n_row = c->n_row;
    return 0;
}

static int build_cache_rows(struct wire_scratch *s, const struct wire_cache_rows *c,
                            Gistd__CacheRows *m)
{
    gistd__cache_rows__init(m);
    m->records = c->records;
    m->bytes = c->bytes;
    m->tokens = c->tokens;
    m->packed_records = c->packed_records;
    m->packed_bytes = c->packed_bytes;
    m->bad_records = c->bad_records;
    m->bad_bytes = c->bad_bytes;
    m->total = c->total;
    m->unread_records = c->unread_records;
    return build_cache_row_list(s, c, m);
}

/* What this daemon can do is told by fields here and not by a version: a client looks for what it
 * wants to use. */
static void build_welcome(const struct wire_rep *r, Gistd__Welcome *m)
{
    gistd__welcome__init(m);
    m->version = wire_str(r->u.welcome.version);
    m->model = wire_str(r->u.welcome.model);
    m->model_digest = wire_str(r->u.welcome.model_digest);
    m->n_vocab = r->u.welcome.n_vocab;
    m->context_max = r->u.welcome.context_max;
    m->chat = r->u.welcome.chat;
    m->segment_default = r->u.welcome.segment_default;
    m->outputs = r->u.welcome.outputs;
    m->several = r->u.welcome.several;
    m->realms = r->u.welcome.realms;
    m->tools = r->u.welcome.tools;
    m->deadlines = r->u.welcome.deadlines;
    m->keep_seconds = r->u.welcome.keep_seconds;
    m->calls = r->u.welcome.calls;
}

/* Three numbers beside the sentence, so that a program need not read it. */
static void build_error(const struct wire_rep *r, Gistd__Error *m, Gistd__Usage *usage)
{
    gistd__error__init(m);
    m->code = (Gistd__Error__Code)r->u.error.code;
    m->text = wire_str(r->u.error.text);
    m->had = r->u.error.had;
    m->asked = r->u.error.asked;
    m->limit = r->u.error.limit;
    if (!r->u.error.has_usage)
        return;
    build_usage(&r->u.error.usage, usage);
    m->usage = usage;
}

static int build_listed(struct wire_scratch *s, const struct wire_rep *r, Gistd__Listed *m)
{
    uint32_t n = r->u.listed.n_rows;
    Gistd__Listed__Row **list = wire_scratch_list(s, n, sizeof(**list));

    gistd__listed__init(m);
    if (n > WIRE_ROWS_MAX || !list)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < n; i++) {
        const struct wire_row *x = &r->u.listed.rows[i];
        Gistd__Listed__Row *one = list[i];

        gistd__listed__row__init(one);
        one->name = wire_str(x->name);
        one->state = (Gistd__Listed__State)x->state;
        one->n_tokens = x->n_tokens;
        one->n_read = x->n_read;
        one->pinned = x->pinned;
        one->kept = x->kept;
        one->at_s = x->at_s;
        one->bytes = x->bytes;
        one->label = wire_str(x->label);
        one->model = wire_str(x->model);
    }
    m->row = list;
    m->n_row = n;
    return 0;
}

static void build_restored(const struct wire_rep *r, Gistd__Restored *m, Gistd__Usage *usage)
{
    gistd__restored__init(m);
    build_usage(&r->u.restored.usage, usage);
    m->session = r->u.restored.session;
    m->context_max = r->u.restored.context_max;
    m->n_tokens = r->u.restored.n_tokens;
    m->usage = usage;
}

static void build_document_added(const struct wire_rep *r, Gistd__DocumentAdded *m,
                                 Gistd__Usage *usage)
{
    gistd__document_added__init(m);
    build_usage(&r->u.document_added.usage, usage);
    m->n_tokens = r->u.document_added.n_tokens;
    m->n_read = r->u.document_added.n_read;
    m->kept = r->u.document_added.kept;
    m->usage = usage;
}

/* protobuf-c's lists have no const; packing only reads. */
static void build_chosen(const struct wire_rep *r, Gistd__Chosen *m, Gistd__Usage *usage)
{
    gistd__chosen__init(m);
    build_usage(&r->u.chosen.usage, usage);
    m->n_tokens = (uint32_t *)(uintptr_t)r->u.chosen.n_tokens;
    m->sum = (double *)(uintptr_t)r->u.chosen.sums;
    m->n_n_tokens = m->n_sum = r->u.chosen.n;
    m->best = r->u.chosen.best;
    m->best_mean = r->u.chosen.best_mean;
    m->usage = usage;
}

static void build_embedding(const struct wire_rep *r, Gistd__Embedding *m, Gistd__Usage *usage)
{
    gistd__embedding__init(m);
    build_usage(&r->u.embedding.usage, usage);
    m->first = r->u.embedding.first;
    m->n = r->u.embedding.n;
    m->n_embd = r->u.embedding.n_embd;
    m->n_tokens = (uint32_t *)(uintptr_t)r->u.embedding.n_tokens;
    m->n_n_tokens = r->u.embedding.n;
    m->usage = usage;
}

static int build_rep_body(struct wire_scratch *s, const struct wire_rep *r, union rep_body *b,
                          Gistd__Usage *usage)
{
    switch (r->kind) {
    case WIRE_WELCOME:
        build_welcome(r, &b->welcome);
        return 0;
    case WIRE_SESSION_OPENED:
        gistd__session_opened__init(&b->session_opened);
        b->session_opened.session = r->u.session_opened.session;
        b->session_opened.context_max = r->u.session_opened.context_max;
        build_usage(&r->u.session_opened.usage, usage);
        b->session_opened.usage = usage;
        return 0;
    case WIRE_APPENDED:
        gistd__appended__init(&b->appended);
        build_usage(&r->u.appended.usage, usage);
        b->appended.n_tokens = r->u.appended.n_tokens;
        b->appended.n_read = r->u.appended.n_read;
        b->appended.n_all = r->u.appended.n_all;
        b->appended.n_found = r->u.appended.n_found;
        b->appended.usage = usage;
        return 0;
    case WIRE_TEXT:
        wire_build_text(r, &b->text);
        return 0;
    case WIRE_DONE:
        gistd__done__init(&b->done);
        build_usage(&r->u.done.usage, usage);
        b->done.reason = (Gistd__Done__Reason)r->u.done.reason;
        b->done.usage = usage;
        b->done.index = r->u.done.index;
        b->done.stop = r->u.done.stop;
        return 0;
    case WIRE_SCORE_ROWS:
        gistd__score_rows__init(&b->score_rows);
        b->score_rows.first = r->u.score_rows.first;
        b->score_rows.n = r->u.score_rows.n;
        b->score_rows.n_vocab = r->u.score_rows.n_vocab;
        return 0;
    case WIRE_TOKENS:
        gistd__tokens__init(&b->tokens);
        b->tokens.n = r->u.tokens.n;
        return 0;
    case WIRE_STATS:
        return wire_build_stats(s, &r->u.stats, &b->stats);
    case WIRE_TRACED:
        return wire_build_traced(s, &r->u.traced, &b->traced);
    case WIRE_SEGMENT_MAP:
        return wire_build_segment_map(s, &r->u.segment_map, &b->segment_map);
    case WIRE_CACHE_ROWS:
        return build_cache_rows(s, &r->u.cache_rows, &b->cache_rows);
    case WIRE_ERROR:
        build_error(r, &b->error, usage);
        return 0;
    case WIRE_CANCELLED:
        gistd__cancelled__init(&b->cancelled);
        b->cancelled.found = r->u.cancelled.found;
        return 0;
    case WIRE_LOADING:
        gistd__loading__init(&b->loading);
        b->loading.percent = r->u.loading.percent;
        return 0;
    case WIRE_KEPT:
        wire_build_kept(&r->u.kept, &b->kept);
        return 0;
    case WIRE_ATTACHED:
        wire_build_attached(&r->u.attached, &b->attached);
        return 0;
    case WIRE_RESUMED:
        gistd__resumed__init(&b->resumed);
        b->resumed.first = r->u.resumed.first;
        b->resumed.answers = r->u.resumed.answers;
        return 0;
    case WIRE_SESSION_CLOSED:
        gistd__session_closed__init(&b->session_closed);
        b->session_closed.n_tokens = r->u.session_closed.n_tokens;
        return 0;
    case WIRE_REWOUND:
        gistd__rewound__init(&b->rewound);
        b->rewound.n_tokens = r->u.rewound.n_tokens;
        return 0;
    case WIRE_SAVED:
        gistd__saved__init(&b->saved);
        b->saved.n_tokens = r->u.saved.n_tokens;
        b->saved.bytes = r->u.saved.bytes;
        return 0;
    case WIRE_RESTORED:
        build_restored(r, &b->restored, usage);
        return 0;
    case WIRE_LISTED:
        return build_listed(s, r, &b->listed);
    case WIRE_DELETED:
        gistd__deleted__init(&b->deleted);
        return 0;
    case WIRE_DOCUMENT_ADDED:
        build_document_added(r, &b->document_added, usage);
        return 0;
    case WIRE_CHOSEN:
        build_chosen(r, &b->chosen, usage);
        return 0;
    case WIRE_EMBEDDING:
        build_embedding(r, &b->embedding, usage);
        return 0;
    case WIRE_PONG: /* a plain one */
    case WIRE_REP__N:
        break;
    }
    return -EBADMSG;
}

int wire_rep_pack(struct wire_scratch *s, const struct wire_rep *r, uint8_t *buf, size_t cap,
                  size_t *ret_len)
{
    Gistd__Reply m = GISTD__REPLY__INIT;
    union rep_body body;
    Gistd__Usage usage;
    int err;

    if (r->kind == WIRE_PONG)
        return plain_pack(&(struct plain){ r->id, r->bulk_len, r->last, wire_body_tag(WIRE_PONG) },
                          buf, cap, ret_len);
    wire_scratch_reset(s);
    err = build_rep_body(s, r, &body, &usage);
    if (err < 0)
        return err;
    m.id = r->id;
    m.bulk_len = r->bulk_len;
    m.last = r->last;
    m.body_case = (Gistd__Reply__BodyCase)(r->kind + WIRE_BODY_BASE);
    m.welcome = &body.welcome;
    return wire_pack_message(&m.base, buf, cap, ret_len);
}

/* --- unpacking -------------------------------------------------------------------------------- */

/* proto3 keeps a value that the schema does not know; we do not. */
static bool enum_valid(int value, int last)
{
    return value >= 0 && value <= last;
}

/* None is one of zeros. Of a later daemon's ratios those that we have no place for are left out. */
static void read_usage(const Gistd__Usage *m, struct wire_usage *u)
{
    if (!m)
        return;
    u->prompt_tokens = m->prompt_tokens;
    u->computed_tokens = m->computed_tokens;
    u->generated_tokens = m->generated_tokens;
    u->prompt_ns = m->prompt_ns;
    u->first_token_ns = m->first_token_ns;
    u->generate_ns = m->generate_ns;
    u->raw_tokens = m->raw_tokens;
    u->gist_tokens = m->gist_tokens;
    u->gists = m->gists;
    u->shared_tokens = m->shared_tokens;
    u->restored_tokens = m->restored_tokens;
    u->approximate_tokens = m->approximate_tokens;
    u->hydrated_tokens = m->hydrated_tokens;
    u->hydrated_disk_tokens = m->hydrated_disk_tokens;
    u->recomputed_tokens = m->recomputed_tokens;
    u->missed_tokens = m->missed_tokens;
    u->ratio = m->ratio;
    u->drafted_tokens = m->drafted_tokens;
    u->accepted_tokens = m->accepted_tokens;
    for (size_t i = 0; i < m->n_at_ratio && i < WIRE_RATIOS; i++)
        u->at_ratio[i] = m->at_ratio[i];
}

/* An older daemon's has fewer fields: 0 and "" stand for what it does not know. */
static int read_welcome(const Gistd__Welcome *m, struct wire_rep *r)
{
    r->u.welcome.n_vocab = m->n_vocab;
    r->u.welcome.context_max = m->context_max;
    r->u.welcome.chat = m->chat;
    r->u.welcome.segment_default = m->segment_default;
    r->u.welcome.outputs = m->outputs;
    r->u.welcome.several = m->several;
    r->u.welcome.realms = m->realms;
    r->u.welcome.tools = m->tools;
    r->u.welcome.deadlines = m->deadlines;
    r->u.welcome.keep_seconds = m->keep_seconds;
    r->u.welcome.calls = m->calls;
    return wire_take_string(m->version, &r->u.welcome.version) &&
                   wire_take_string(m->model, &r->u.welcome.model) &&
                   wire_take_string(m->model_digest, &r->u.welcome.model_digest)
               ? 0
               : -EMSGSIZE;
}

static int read_cache_rows(struct wire_scratch *s, const Gistd__CacheRows *m,
                           struct wire_cache_rows *c)
{
    struct wire_cache_row *list = wire_scratch_array(s, m->n_row, sizeof(*list));

    if (!list)
        return -EMSGSIZE;
    for (size_t i = 0; i < m->n_row; i++) {
        const Gistd__CacheRows__Row *x = m->row[i];

        list[i] = (struct wire_cache_row){ .id = x->id,
                                           .bytes = x->bytes,
                                           .used_s = x->used_s,
                                           .cost_ns = x->cost_ns,
                                           .tokens = x->tokens,
                                           .keys = x->keys,
                                           .depth = x->depth,
                                           .packed = x->packed };
    }
    c->row = list;
    c->n_row = (uint32_t)m->n_row;
    c->records = m->records;
    c->bytes = m->bytes;
    c->tokens = m->tokens;
    c->packed_records = m->packed_records;
    c->packed_bytes = m->packed_bytes;
    c->bad_records = m->bad_records;
    c->bad_bytes = m->bad_bytes;
    c->total = m->total;
    c->unread_records = m->unread_records;
    return 0;
}

/* A later daemon's code is one of INTERNAL for us: the sentence says what it is. */
static int read_error(const Gistd__Error *m, struct wire_rep *r)
{
    r->u.error.code =
        enum_valid((int)m->code, WIRE_E__N - 1) ? (enum wire_error)m->code : WIRE_E_INTERNAL;
    r->u.error.had = m->had;
    r->u.error.asked = m->asked;
    r->u.error.limit = m->limit;
    r->u.error.has_usage = m->usage != NULL;
    read_usage(m->usage, &r->u.error.usage);
    return wire_take_string(m->text, &r->u.error.text) ? 0 : -EMSGSIZE;
}

static void read_done(const Gistd__Done *m, struct wire_rep *r)
{
    r->u.done.reason = enum_valid((int)m->reason, WIRE_REASON_POOL_FULL)
                           ? (enum wire_reason)m->reason
                           : WIRE_REASON__N;
    r->u.done.index = m->index;
    r->u.done.stop = m->stop;
    read_usage(m->usage, &r->u.done.usage);
}

static int read_listed(struct wire_scratch *s, const Gistd__Listed *m, struct wire_rep *r)
{
    struct wire_row *list = wire_scratch_array(s, m->n_row, sizeof(*list));

    if (m->n_row > WIRE_ROWS_MAX || !list)
        return -EMSGSIZE;
    for (size_t i = 0; i < m->n_row; i++) {
        const Gistd__Listed__Row *x = m->row[i];

        if (!enum_valid((int)x->state, WIRE_ROW_DAMAGED))
            return -EBADMSG;
        list[i] = (struct wire_row){ .state = (enum wire_row_state)x->state,
                                     .n_tokens = x->n_tokens,
                                     .n_read = x->n_read,
                                     .pinned = x->pinned,
                                     .kept = x->kept,
                                     .at_s = x->at_s,
                                     .bytes = x->bytes };
        if (!wire_take_string(x->name, &list[i].name) ||
            !wire_take_string(x->label, &list[i].label) ||
            !wire_take_string(x->model, &list[i].model))
            return -EMSGSIZE;
    }
    r->u.listed.rows = list;
    r->u.listed.n_rows = (uint32_t)m->n_row;
    return 0;
}

static void read_restored(const Gistd__Restored *m, struct wire_rep *r)
{
    r->u.restored.session = m->session;
    r->u.restored.context_max = m->context_max;
    r->u.restored.n_tokens = m->n_tokens;
    read_usage(m->usage, &r->u.restored.usage);
}

static void read_document_added(const Gistd__DocumentAdded *m, struct wire_rep *r)
{
    r->u.document_added.n_tokens = m->n_tokens;
    r->u.document_added.n_read = m->n_read;
    r->u.document_added.kept = m->kept;
    read_usage(m->usage, &r->u.document_added.usage);
}

/* The two best are indices of the lists: in bounds, or the frame is none of ours. With `more` there
 * are none, and both are 0. */
static int read_chosen(const Gistd__Chosen *m, struct wire_rep *r)
{
    if (m->n_n_tokens != m->n_sum || m->n_sum > WIRE_CHOICES_MAX ||
        (m->n_sum > 0 && (m->best >= m->n_sum || m->best_mean >= m->n_sum)))
        return -EBADMSG;
    r->u.chosen.n_tokens = m->n_tokens;
    r->u.chosen.sums = m->sum;
    r->u.chosen.n = (uint32_t)m->n_sum;
    r->u.chosen.best = m->best;
    r->u.chosen.best_mean = m->best_mean;
    read_usage(m->usage, &r->u.chosen.usage);
    return 0;
}

/* The vectors are the bulk, (n, n_embd) floats: whoever reads them holds that against bulk_len. */
static int read_embedding(const Gistd__Embedding *m, struct wire_rep *r)
{
    if (m->n_n_tokens != m->n)
        return -EBADMSG;
    r->u.embedding.first = m->first;
    r->u.embedding.n = m->n;
    r->u.embedding.n_embd = m->n_embd;
    r->u.embedding.n_tokens = m->n_tokens;
    read_usage(m->usage, &r->u.embedding.usage);
    return 0;
}

static int read_rep_body(struct wire_scratch *s, const Gistd__Reply *m, struct wire_rep *r)
{
    switch (r->kind) {
    case WIRE_WELCOME:
        return read_welcome(m->welcome, r);
    case WIRE_SESSION_OPENED:
        r->u.session_opened.session = m->session_opened->session;
        r->u.session_opened.context_max = m->session_opened->context_max;
        read_usage(m->session_opened->usage, &r->u.session_opened.usage);
        return 0;
    case WIRE_APPENDED:
        r->u.appended.n_tokens = m->appended->n_tokens;
        r->u.appended.n_read = m->appended->n_read;
        r->u.appended.n_all = m->appended->n_all;
        r->u.appended.n_found = m->appended->n_found;
        read_usage(m->appended->usage, &r->u.appended.usage);
        return 0;
    case WIRE_TEXT:
        return wire_read_text(m->text, r);
    case WIRE_DONE:
        read_done(m->done, r);
        return 0;
    case WIRE_SCORE_ROWS:
        r->u.score_rows.first = m->score_rows->first;
        r->u.score_rows.n = m->score_rows->n;
        r->u.score_rows.n_vocab = m->score_rows->n_vocab;
        return 0;
    case WIRE_TOKENS:
        r->u.tokens.n = m->tokens->n;
        return 0;
    case WIRE_STATS:
        return wire_read_stats(s, m->stats, &r->u.stats);
    case WIRE_TRACED:
        return wire_read_traced(s, m->traced, &r->u.traced);
    case WIRE_SEGMENT_MAP:
        return wire_read_segment_map(s, m->segment_map, &r->u.segment_map);
    case WIRE_CACHE_ROWS:
        return read_cache_rows(s, m->cache_rows, &r->u.cache_rows);
    case WIRE_PONG:
        return 0;
    case WIRE_ERROR:
        return read_error(m->error, r);
    case WIRE_CANCELLED:
        r->u.cancelled.found = m->cancelled->found;
        return 0;
    case WIRE_LOADING:
        r->u.loading.percent = m->loading->percent;
        return 0;
    case WIRE_KEPT:
        r->u.kept = (struct wire_kept){ m->kept->token.data, (uint32_t)m->kept->token.len,
                                        m->kept->seconds, m->kept->bytes };
        return 0;
    case WIRE_ATTACHED:
        wire_read_attached(m->attached, &r->u.attached);
        return 0;
    case WIRE_RESUMED:
        r->u.resumed.first = m->resumed->first;
        r->u.resumed.answers = m->resumed->answers;
        return 0;
    case WIRE_SESSION_CLOSED:
        r->u.session_closed.n_tokens = m->session_closed->n_tokens;
        return 0;
    case WIRE_REWOUND:
        r->u.rewound.n_tokens = m->rewound->n_tokens;
        return 0;
    case WIRE_SAVED:
        r->u.saved.n_tokens = m->saved->n_tokens;
        r->u.saved.bytes = m->saved->bytes;
        return 0;
    case WIRE_RESTORED:
        read_restored(m->restored, r);
        return 0;
    case WIRE_LISTED:
        return read_listed(s, m->listed, r);
    case WIRE_DELETED:
        return 0;
    case WIRE_DOCUMENT_ADDED:
        read_document_added(m->document_added, r);
        return 0;
    case WIRE_CHOSEN:
        return read_chosen(m->chosen, r);
    case WIRE_EMBEDDING:
        return read_embedding(m->embedding, r);
    case WIRE_REP__N:
        break;
    }
    return -EBADMSG;
}

int wire_rep_unpack(struct wire_scratch *s, const uint8_t *frame, size_t len, struct wire_rep *ret)
{
    struct wire_rep r = { 0 };
    const Gistd__Reply *m;
    struct plain plain;
    int err = 0;

    if (plain_unpack(frame, len, &plain) && plain.tag == wire_body_tag(WIRE_PONG)) {
        *ret = (struct wire_rep){
            .id = plain.id, .bulk_len = plain.bulk_len, .last = plain.last, .kind = WIRE_PONG
        };
        return 0;
    }
    m = (const Gistd__Reply *)wire_unpack_message(&gistd__reply__descriptor, s, frame, len, &err);
    if (!m)
        return err;
    r.id = m->id;
    r.bulk_len = m->bulk_len;
    r.last = m->last;
    /* A later daemon's: its bytes are an unknown field to protobuf-c. */
    if (m->body_case == GISTD__REPLY__BODY__NOT_SET) {
        r.kind = WIRE_REP__N;
        *ret = r;
        return m->base.n_unknown_fields > 0 ? 0 : -EBADMSG;
    }
    r.kind = (enum wire_rep_kind)(m->body_case - WIRE_BODY_BASE);
    err = read_rep_body(s, m, &r);
    if (err < 0)
        return err;
    *ret = r;
    return 0;
}
