#include "ipc/wire.h"

#include "gistd.pb-c.h"
#include "ipc/chan.h"
#include "ipc/plain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Our enums are the schema's, so that a value is a cast once its range was checked. */
_Static_assert((int)WIRE_APPEND_CHAT == (int)GISTD__APPEND__KIND__CHAT, "enum");
_Static_assert((int)WIRE_SCORE_TOKENS == (int)GISTD__SCORE__KIND__TOKENS, "enum");
_Static_assert((int)WIRE_SCORE_LOGITS == (int)GISTD__SCORE__WANT__LOGITS, "enum");
_Static_assert((int)WIRE_BACKGROUND == (int)GISTD__OPEN_SESSION__PRIORITY__BACKGROUND, "enum");
_Static_assert((int)WIRE_REASON_POOL_FULL == (int)GISTD__DONE__REASON__POOL_FULL, "enum");
_Static_assert((int)WIRE_E_BUSY == (int)GISTD__ERROR__CODE__BUSY, "enum");
_Static_assert((int)WIRE_E_LIMIT == (int)GISTD__ERROR__CODE__LIMIT, "enum");
_Static_assert((int)WIRE_E_NO_MEMORY == (int)GISTD__ERROR__CODE__NO_MEMORY, "enum");
/* And the kinds are the schema's field numbers from here on. */
#define BODY_BASE 10
_Static_assert(WIRE_HELLO + BODY_BASE == (int)GISTD__REQUEST__BODY_HELLO, "kind");
_Static_assert(WIRE_SCORE + BODY_BASE == (int)GISTD__REQUEST__BODY_SCORE, "kind");
_Static_assert(WIRE_REWIND + BODY_BASE == (int)GISTD__REQUEST__BODY_REWIND, "kind");
_Static_assert(WIRE_WELCOME + BODY_BASE == (int)GISTD__REPLY__BODY_WELCOME, "kind");
_Static_assert(WIRE_STATS + BODY_BASE == (int)GISTD__REPLY__BODY_STATS, "kind");
_Static_assert(WIRE_REWOUND + BODY_BASE == (int)GISTD__REPLY__BODY_REWOUND, "kind");

/* --- scratch ---------------------------------------------------------------------------------- */

#define SCRATCH_ALIGN 16u
#define OVERFLOWED    SIZE_MAX /* of wire_scratch.used: something did not fit */

int wire_scratch_open(struct wire_scratch *s, size_t len)
{
    *s = (struct wire_scratch){ .mem = malloc(len) };
    if (!s->mem)
        return -ENOMEM;
    s->len = len;
    return 0;
}

void wire_scratch_close(struct wire_scratch *s)
{
    if (!s)
        return;
    free(s->mem);
    *s = (struct wire_scratch){ 0 };
}

/* ProtobufCAllocator's two calls; freeing is the next message's reset. */
static void *scratch_alloc(void *data, size_t len)
{
    struct wire_scratch *s = data;
    void *p;

    if (s->used == OVERFLOWED || len > s->len - s->used) {
        s->used = OVERFLOWED;
        return NULL;
    }
    p = s->mem + s->used;
    len = (len + SCRATCH_ALIGN - 1) & ~(size_t)(SCRATCH_ALIGN - 1);
    s->used = len > s->len - s->used ? s->len : s->used + len;
    return p;
}

static void scratch_free(void *data, void *p)
{
    (void)data;
    (void)p;
}

static ProtobufCAllocator scratch_allocator(struct wire_scratch *s)
{
    return (ProtobufCAllocator){ scratch_alloc, scratch_free, s };
}

static void *scratch_array(struct wire_scratch *s, size_t n, size_t size)
{
    return n > s->len / size ? NULL : scratch_alloc(s, n * size);
}

/* --- packing ---------------------------------------------------------------------------------- */

/* protobuf-c's structs have no const; packing only reads. */
static char *str(const char *s)
{
    return (char *)(uintptr_t)(s ? s : "");
}

static int pack_message(const ProtobufCMessage *m, uint8_t *buf, size_t cap, size_t *ret_len)
{
    size_t len = protobuf_c_message_get_packed_size(m);

    if (len > CHAN_FRAME_MAX || (buf && len > cap))
        return -EMSGSIZE;
    if (buf)
        protobuf_c_message_pack(m, buf);
    *ret_len = len;
    return 0;
}

static uint64_t body_tag(unsigned kind)
{
    return PLAIN_TAG(kind + BODY_BASE);
}

static bool plain_req(enum wire_req_kind kind)
{
    return kind == WIRE_PING || kind == WIRE_GET_STATS;
}

union req_body {
    Gistd__Hello hello;
    Gistd__OpenSession open_session;
    Gistd__Append append;
    Gistd__Generate generate;
    Gistd__Cancel cancel;
    Gistd__CloseSession close_session;
    Gistd__Score score;
    Gistd__Tokenize tokenize;
    Gistd__Detokenize detokenize;
    Gistd__Fork fork;
    Gistd__Rewind rewind;
};

static int build_append(struct wire_scratch *s, const struct wire_req *r, Gistd__Append *m)
{
    uint32_t n = r->u.append.n_messages;
    Gistd__Append__Message *one, **list;

    gistd__append__init(m);
    m->session = r->u.append.session;
    m->kind = (Gistd__Append__Kind)r->u.append.kind;
    m->special = r->u.append.special;
    m->more = r->u.append.more;
    m->open_answer = r->u.append.open_answer;
    if (n == 0)
        return 0;
    if (n > WIRE_MESSAGES_MAX)
        return -EMSGSIZE;
    one = scratch_array(s, n, sizeof(*one));
    list = scratch_array(s, n, sizeof(*list));
    if (!one || !list)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < n; i++) {
        gistd__append__message__init(&one[i]);
        one[i].role = str(r->u.append.messages[i].role);
        one[i].text_len = r->u.append.messages[i].text_len;
        list[i] = &one[i];
    }
    m->messages = list;
    m->n_messages = n;
    return 0;
}

static int build_generate(struct wire_scratch *s, const struct wire_req *r, Gistd__Generate *m)
{
    uint32_t n = r->u.generate.n_stops;

    gistd__generate__init(m);
    m->session = r->u.generate.session;
    m->max_tokens = r->u.generate.max_tokens;
    m->temperature = r->u.generate.temperature;
    m->top_k = r->u.generate.top_k;
    m->top_p = r->u.generate.top_p;
    m->min_p = r->u.generate.min_p;
    m->repeat_penalty = r->u.generate.repeat_penalty;
    m->repeat_last_n = r->u.generate.repeat_last_n;
    m->seed = r->u.generate.seed;
    m->ignore_eog = r->u.generate.ignore_eog;
    if (n == 0)
        return 0;
    if (n > WIRE_STOPS_MAX)
        return -EMSGSIZE;
    m->stop = scratch_array(s, n, sizeof(*m->stop));
    if (!m->stop)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < n; i++)
        m->stop[i] = str(r->u.generate.stops[i]);
    m->n_stop = n;
    return 0;
}

/* NULL for what an absent message says anyway. */
static Gistd__Memory *build_memory(const struct wire_memory *from, Gistd__Memory *m)
{
    if (from->compressor == WIRE_COMPRESSOR_UNSAID && !from->ratio && !from->sinks &&
        !from->keep_tail && !from->adapter && !from->budget && !from->late && !from->fixed)
        return NULL;
    gistd__memory__init(m);
    m->compressor = from->compressor;
    m->ratio = from->ratio;
    m->sinks = from->sinks;
    m->keep_tail = from->keep_tail;
    m->adapter = str(from->adapter);
    m->budget = from->budget;
    m->late = from->late;
    m->fixed = from->fixed;
    return m;
}

static int build_req_body(struct wire_scratch *s, const struct wire_req *r, union req_body *b,
                          Gistd__Memory *memory)
{
    switch (r->kind) {
    case WIRE_HELLO:
        gistd__hello__init(&b->hello);
        b->hello.client = str(r->u.hello.client);
        return 0;
    case WIRE_OPEN_SESSION:
        gistd__open_session__init(&b->open_session);
        b->open_session.segment = r->u.open_session.segment;
        b->open_session.priority = (Gistd__OpenSession__Priority)r->u.open_session.priority;
        b->open_session.label = str(r->u.open_session.label);
        b->open_session.memory = build_memory(&r->u.open_session.memory, memory);
        b->open_session.public_prefix = r->u.open_session.public_prefix;
        return 0;
    case WIRE_APPEND:
        return build_append(s, r, &b->append);
    case WIRE_GENERATE:
        return build_generate(s, r, &b->generate);
    case WIRE_CANCEL:
        gistd__cancel__init(&b->cancel);
        b->cancel.request = r->u.cancel.request;
        return 0;
    case WIRE_CLOSE_SESSION:
        gistd__close_session__init(&b->close_session);
        b->close_session.session = r->u.close_session.session;
        return 0;
    case WIRE_SCORE:
        gistd__score__init(&b->score);
        b->score.kind = (Gistd__Score__Kind)r->u.score.kind;
        b->score.window = r->u.score.window;
        b->score.segment = r->u.score.segment;
        b->score.want = (Gistd__Score__Want)r->u.score.want;
        b->score.more = r->u.score.more;
        b->score.memory = build_memory(&r->u.score.memory, memory);
        return 0;
    case WIRE_TOKENIZE:
        gistd__tokenize__init(&b->tokenize);
        b->tokenize.special = r->u.tokenize.special;
        b->tokenize.more = r->u.tokenize.more;
        return 0;
    case WIRE_DETOKENIZE:
        gistd__detokenize__init(&b->detokenize);
        b->detokenize.more = r->u.detokenize.more;
        return 0;
    case WIRE_FORK:
        gistd__fork__init(&b->fork);
        b->fork.session = r->u.fork.session;
        b->fork.label = str(r->u.fork.label);
        return 0;
    case WIRE_REWIND:
        gistd__rewind__init(&b->rewind);
        b->rewind.session = r->u.rewind.session;
        b->rewind.n_tokens = r->u.rewind.n_tokens;
        return 0;
    case WIRE_GET_STATS:
    case WIRE_PING: /* plain ones */
    case WIRE_REQ__N:
        break;
    }
    return -EBADMSG;
}

int wire_req_pack(struct wire_scratch *s, const struct wire_req *r, uint8_t *buf, size_t cap,
                  size_t *ret_len)
{
    Gistd__Request m = GISTD__REQUEST__INIT;
    union req_body body;
    Gistd__Memory memory;
    int err;

    if (plain_req(r->kind))
        return plain_pack(&(struct plain){ r->id, r->bulk_len, 0, body_tag(r->kind) }, buf, cap,
                          ret_len);
    s->used = 0;
    err = build_req_body(s, r, &body, &memory);
    if (err < 0)
        return err;
    m.id = r->id;
    m.bulk_len = r->bulk_len;
    m.body_case = (Gistd__Request__BodyCase)(r->kind + BODY_BASE);
    m.hello = &body.hello; /* the oneof's pointers share their place */
    return pack_message(&m.base, buf, cap, ret_len);
}

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
}

static int build_stats_clients(struct wire_scratch *s, const struct wire_stats *st, Gistd__Stats *m)
{
    Gistd__Stats__Client *one = scratch_array(s, st->n_client, sizeof(*one));
    Gistd__Stats__Client **list = scratch_array(s, st->n_client, sizeof(*list));

    if (!one || !list)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < st->n_client; i++) {
        const struct wire_stats_client *c = &st->client[i];

        gistd__stats__client__init(&one[i]);
        one[i].id = c->id;
        one[i].pid = c->pid;
        one[i].uid = c->uid;
        one[i].name = str(c->name);
        one[i].sessions = c->sessions;
        one[i].pages = c->pages;
        list[i] = &one[i];
    }
    m->client = list;
    m->n_client = st->n_client;
    return 0;
}

static int build_stats_sessions(struct wire_scratch *s, const struct wire_stats *st,
                                Gistd__Stats *m)
{
    Gistd__Stats__Session *one = scratch_array(s, st->n_session, sizeof(*one));
    Gistd__Stats__Session **list = scratch_array(s, st->n_session, sizeof(*list));

    if (!one || !list)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < st->n_session; i++) {
        const struct wire_stats_session *x = &st->session[i];

        gistd__stats__session__init(&one[i]);
        one[i].id = x->id;
        one[i].client = x->client;
        one[i].label = str(x->label);
        one[i].n_tokens = x->n_tokens;
        one[i].pages = x->pages;
        one[i].segment = x->segment;
        one[i].busy = x->busy;
        one[i].gist_pages = x->gist_pages;
        list[i] = &one[i];
    }
    m->session = list;
    m->n_session = st->n_session;
    return 0;
}

static int build_stats_owners(struct wire_scratch *s, const struct wire_stats *st, Gistd__Stats *m)
{
    Gistd__Stats__Owner *one = scratch_array(s, st->n_owner, sizeof(*one));
    Gistd__Stats__Owner **list = scratch_array(s, st->n_owner, sizeof(*list));

    if (!one || !list)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < st->n_owner; i++) {
        const struct wire_stats_owner *o = &st->owner[i];

        gistd__stats__owner__init(&one[i]);
        one[i].uid = o->uid;
        one[i].clients = o->clients;
        one[i].sessions = o->sessions;
        one[i].pages = o->pages;
        one[i].gist_pages = o->gist_pages;
        list[i] = &one[i];
    }
    m->owner = list;
    m->n_owner = st->n_owner;
    return 0;
}

static int build_stats(struct wire_scratch *s, const struct wire_stats *st, Gistd__Stats *m)
{
    int err;

    gistd__stats__init(m);
    m->version = str(st->version);
    m->model = str(st->model);
    m->model_digest = str(st->model_digest);
    m->cpu = str(st->cpu);
    m->threads = st->threads;
    m->uptime_ns = st->uptime_ns;
    m->weights_bytes = st->weights_bytes;
    m->scratch_bytes = st->scratch_bytes;
    m->kv_bytes = st->kv_bytes;
    m->adapter_bytes = st->adapter_bytes;
    m->adapters = str(st->adapters);
    m->page_bytes = st->page_bytes;
    m->page_tokens = st->page_tokens;
    m->pages = st->pages;
    m->pages_free = st->pages_free;
    m->pages_cached = st->pages_cached;
    m->clients = st->clients;
    m->sessions = st->sessions;
    m->requests_running = st->requests_running;
    m->requests_total = st->requests_total;
    m->requests_failed = st->requests_failed;
    m->prompt_tokens_total = st->prompt_tokens_total;
    m->generated_tokens_total = st->generated_tokens_total;
    m->steps_total = st->steps_total;
    m->client_errors_total = st->client_errors_total;
    err = build_stats_clients(s, st, m);
    if (err == 0)
        err = build_stats_sessions(s, st, m);
    return err < 0 ? err : build_stats_owners(s, st, m);
}

static void build_welcome(const struct wire_rep *r, Gistd__Welcome *m)
{
    gistd__welcome__init(m);
    m->version = str(r->u.welcome.version);
    m->model = str(r->u.welcome.model);
    m->model_digest = str(r->u.welcome.model_digest);
    m->n_vocab = r->u.welcome.n_vocab;
    m->context_max = r->u.welcome.context_max;
    m->chat = r->u.welcome.chat;
    m->segment_default = r->u.welcome.segment_default;
}

static void build_error(const struct wire_rep *r, Gistd__Error *m)
{
    gistd__error__init(m);
    m->code = (Gistd__Error__Code)r->u.error.code;
    m->text = str(r->u.error.text);
    m->had = r->u.error.had;
    m->asked = r->u.error.asked;
    m->limit = r->u.error.limit;
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
        return 0;
    case WIRE_APPENDED:
        gistd__appended__init(&b->appended);
        build_usage(&r->u.appended.usage, usage);
        b->appended.n_tokens = r->u.appended.n_tokens;
        b->appended.usage = usage;
        return 0;
    case WIRE_TEXT:
        gistd__text__init(&b->text);
        b->text.n_tokens = r->u.text.n_tokens;
        b->text.text = str(r->u.text.text);
        b->text.ids = (uint32_t *)(uintptr_t)r->u.text.tokens;
        b->text.n_ids = r->u.text.n_ids;
        return 0;
    case WIRE_DONE:
        gistd__done__init(&b->done);
        build_usage(&r->u.done.usage, usage);
        b->done.reason = (Gistd__Done__Reason)r->u.done.reason;
        b->done.usage = usage;
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
        return build_stats(s, &r->u.stats, &b->stats);
    case WIRE_ERROR:
        build_error(r, &b->error);
        return 0;
    case WIRE_CANCELLED:
        gistd__cancelled__init(&b->cancelled);
        b->cancelled.found = r->u.cancelled.found;
        return 0;
    case WIRE_SESSION_CLOSED:
        gistd__session_closed__init(&b->session_closed);
        b->session_closed.n_tokens = r->u.session_closed.n_tokens;
        return 0;
    case WIRE_REWOUND:
        gistd__rewound__init(&b->rewound);
        b->rewound.n_tokens = r->u.rewound.n_tokens;
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
        return plain_pack(&(struct plain){ r->id, r->bulk_len, r->last, body_tag(WIRE_PONG) }, buf,
                          cap, ret_len);
    s->used = 0;
    err = build_rep_body(s, r, &body, &usage);
    if (err < 0)
        return err;
    m.id = r->id;
    m.bulk_len = r->bulk_len;
    m.last = r->last;
    m.body_case = (Gistd__Reply__BodyCase)(r->kind + BODY_BASE);
    m.welcome = &body.welcome;
    return pack_message(&m.base, buf, cap, ret_len);
}

/* --- unpacking -------------------------------------------------------------------------------- */

/* protobuf-c has copied the strings; what a frame may contain is bounded by its length, what the
 * copies take by the scratch. */
static ProtobufCMessage *unpack_message(const ProtobufCMessageDescriptor *d, struct wire_scratch *s,
                                        const uint8_t *frame, size_t len, int *ret_err)
{
    ProtobufCAllocator alloc = scratch_allocator(s);
    ProtobufCMessage *m;

    s->used = 0;
    if (len > CHAN_FRAME_MAX) {
        *ret_err = -EMSGSIZE;
        return NULL;
    }
    m = protobuf_c_message_unpack(d, &alloc, len, frame);
    if (!m)
        *ret_err = s->used == OVERFLOWED ? -EMSGSIZE : -EBADMSG;
    return m;
}

static bool take_string(const char *s, const char **ret)
{
    if (strnlen(s, WIRE_STRING_MAX + 1) > WIRE_STRING_MAX)
        return false;
    *ret = s;
    return true;
}

/* proto3 keeps a value that the schema does not know; we do not. */
static bool enum_valid(int value, int last)
{
    return value >= 0 && value <= last;
}

static int read_append(struct wire_scratch *s, const Gistd__Append *m, struct wire_req *r)
{
    struct wire_chat_message *list = NULL;

    if (!enum_valid((int)m->kind, WIRE_APPEND_CHAT))
        return -EBADMSG;
    if (m->n_messages > WIRE_MESSAGES_MAX)
        return -EMSGSIZE;
    if (m->n_messages > 0) {
        list = scratch_array(s, m->n_messages, sizeof(*list));
        if (!list)
            return -EMSGSIZE;
    }
    for (size_t i = 0; i < m->n_messages; i++) {
        if (!take_string(m->messages[i]->role, &list[i].role))
            return -EMSGSIZE;
        list[i].text_len = m->messages[i]->text_len;
    }
    r->u.append.session = m->session;
    r->u.append.kind = (enum wire_append_kind)m->kind;
    r->u.append.messages = list;
    r->u.append.n_messages = (uint32_t)m->n_messages;
    r->u.append.special = m->special;
    r->u.append.more = m->more;
    r->u.append.open_answer = m->open_answer;
    return 0;
}

static int read_generate(struct wire_scratch *s, const Gistd__Generate *m, struct wire_req *r)
{
    const char **list = NULL;

    if (m->n_stop > WIRE_STOPS_MAX)
        return -EMSGSIZE;
    if (m->n_stop > 0) {
        list = scratch_array(s, m->n_stop, sizeof(*list));
        if (!list)
            return -EMSGSIZE;
    }
    for (size_t i = 0; i < m->n_stop; i++)
        if (!take_string(m->stop[i], &list[i]))
            return -EMSGSIZE;
    r->u.generate.session = m->session;
    r->u.generate.max_tokens = m->max_tokens;
    r->u.generate.temperature = m->temperature;
    r->u.generate.top_k = m->top_k;
    r->u.generate.top_p = m->top_p;
    r->u.generate.min_p = m->min_p;
    r->u.generate.repeat_penalty = m->repeat_penalty;
    r->u.generate.repeat_last_n = m->repeat_last_n;
    r->u.generate.seed = m->seed;
    r->u.generate.stops = list;
    r->u.generate.n_stops = (uint32_t)m->n_stop;
    r->u.generate.ignore_eog = m->ignore_eog;
    return 0;
}

static int read_memory(const Gistd__Memory *m, struct wire_memory *ret)
{
    if (!m)
        return 0;
    if (m->compressor >= WIRE_COMPRESSOR__N)
        return -EBADMSG;
    *ret = (struct wire_memory){ .compressor = (enum wire_compressor)m->compressor,
                                 .ratio = m->ratio,
                                 .sinks = m->sinks,
                                 .keep_tail = m->keep_tail,
                                 .budget = m->budget,
                                 .late = m->late,
                                 .fixed = m->fixed };
    return take_string(m->adapter, &ret->adapter) ? 0 : -EMSGSIZE;
}

static int read_open_session(const Gistd__OpenSession *m, struct wire_req *r)
{
    if (!enum_valid((int)m->priority, WIRE_BACKGROUND))
        return -EBADMSG;
    r->u.open_session.segment = m->segment;
    r->u.open_session.priority = (enum wire_priority)m->priority;
    r->u.open_session.public_prefix = m->public_prefix;
    if (!take_string(m->label, &r->u.open_session.label))
        return -EMSGSIZE;
    return read_memory(m->memory, &r->u.open_session.memory);
}

static int read_score(const Gistd__Score *m, struct wire_req *r)
{
    if (!enum_valid((int)m->kind, WIRE_SCORE_TOKENS) ||
        !enum_valid((int)m->want, WIRE_SCORE_LOGITS))
        return -EBADMSG;
    r->u.score.kind = (enum wire_score_kind)m->kind;
    r->u.score.window = m->window;
    r->u.score.segment = m->segment;
    r->u.score.want = (enum wire_score_want)m->want;
    r->u.score.more = m->more;
    return read_memory(m->memory, &r->u.score.memory);
}

static int read_req_body(struct wire_scratch *s, const Gistd__Request *m, struct wire_req *r)
{
    switch (r->kind) {
    case WIRE_HELLO:
        return take_string(m->hello->client, &r->u.hello.client) ? 0 : -EMSGSIZE;
    case WIRE_OPEN_SESSION:
        return read_open_session(m->open_session, r);
    case WIRE_APPEND:
        return read_append(s, m->append, r);
    case WIRE_GENERATE:
        return read_generate(s, m->generate, r);
    case WIRE_CANCEL:
        r->u.cancel.request = m->cancel->request;
        return 0;
    case WIRE_CLOSE_SESSION:
        r->u.close_session.session = m->close_session->session;
        return 0;
    case WIRE_FORK:
        r->u.fork.session = m->fork->session;
        return take_string(m->fork->label, &r->u.fork.label) ? 0 : -EMSGSIZE;
    case WIRE_REWIND:
        r->u.rewind.session = m->rewind->session;
        r->u.rewind.n_tokens = m->rewind->n_tokens;
        return 0;
    case WIRE_SCORE:
        return read_score(m->score, r);
    case WIRE_TOKENIZE:
        r->u.tokenize.special = m->tokenize->special;
        r->u.tokenize.more = m->tokenize->more;
        return 0;
    case WIRE_DETOKENIZE:
        r->u.detokenize.more = m->detokenize->more;
        return 0;
    case WIRE_GET_STATS:
    case WIRE_PING:
        return 0;
    case WIRE_REQ__N:
        break;
    }
    return -EBADMSG;
}

static bool read_plain_req(const uint8_t *frame, size_t len, struct wire_req *ret)
{
    static const enum wire_req_kind kinds[] = { WIRE_PING, WIRE_GET_STATS };
    struct plain m;

    if (!plain_unpack(frame, len, &m) || m.last)
        return false;
    for (int i = 0; i < 2; i++) {
        if (m.tag != body_tag(kinds[i]))
            continue;
        *ret = (struct wire_req){ .id = m.id, .bulk_len = m.bulk_len, .kind = kinds[i] };
        return true;
    }
    return false;
}

int wire_req_unpack(struct wire_scratch *s, const uint8_t *frame, size_t len, struct wire_req *ret)
{
    struct wire_req r = { 0 };
    const Gistd__Request *m;
    int err = 0;

    if (read_plain_req(frame, len, ret))
        return 0;
    m = (const Gistd__Request *)unpack_message(&gistd__request__descriptor, s, frame, len, &err);
    if (!m)
        return err;
    if (m->body_case == GISTD__REQUEST__BODY__NOT_SET)
        return -EBADMSG;
    r.id = m->id;
    r.bulk_len = m->bulk_len;
    r.kind = (enum wire_req_kind)(m->body_case - BODY_BASE);
    err = read_req_body(s, m, &r);
    if (err < 0)
        return err;
    *ret = r;
    return 0;
}

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
}

static int read_welcome(const Gistd__Welcome *m, struct wire_rep *r)
{
    r->u.welcome.n_vocab = m->n_vocab;
    r->u.welcome.context_max = m->context_max;
    r->u.welcome.chat = m->chat;
    r->u.welcome.segment_default = m->segment_default;
    return take_string(m->version, &r->u.welcome.version) &&
                   take_string(m->model, &r->u.welcome.model) &&
                   take_string(m->model_digest, &r->u.welcome.model_digest)
               ? 0
               : -EMSGSIZE;
}

static int read_stats_clients(struct wire_scratch *s, const Gistd__Stats *m, struct wire_stats *st)
{
    struct wire_stats_client *list = scratch_array(s, m->n_client, sizeof(*list));

    if (!list)
        return -EMSGSIZE;
    for (size_t i = 0; i < m->n_client; i++) {
        const Gistd__Stats__Client *c = m->client[i];

        list[i] = (struct wire_stats_client){
            .id = c->id, .pid = c->pid, .uid = c->uid, .sessions = c->sessions, .pages = c->pages
        };
        if (!take_string(c->name, &list[i].name))
            return -EMSGSIZE;
    }
    st->client = list;
    st->n_client = (uint32_t)m->n_client;
    return 0;
}

static int read_stats_sessions(struct wire_scratch *s, const Gistd__Stats *m, struct wire_stats *st)
{
    struct wire_stats_session *list = scratch_array(s, m->n_session, sizeof(*list));

    if (!list)
        return -EMSGSIZE;
    for (size_t i = 0; i < m->n_session; i++) {
        const Gistd__Stats__Session *x = m->session[i];

        list[i] = (struct wire_stats_session){ .id = x->id,
                                               .client = x->client,
                                               .n_tokens = x->n_tokens,
                                               .pages = x->pages,
                                               .segment = x->segment,
                                               .busy = x->busy,
                                               .gist_pages = x->gist_pages };
        if (!take_string(x->label, &list[i].label))
            return -EMSGSIZE;
    }
    st->session = list;
    st->n_session = (uint32_t)m->n_session;
    return 0;
}

static int read_stats_owners(struct wire_scratch *s, const Gistd__Stats *m, struct wire_stats *st)
{
    struct wire_stats_owner *list = scratch_array(s, m->n_owner, sizeof(*list));

    if (!list)
        return -EMSGSIZE;
    for (size_t i = 0; i < m->n_owner; i++) {
        const Gistd__Stats__Owner *o = m->owner[i];

        list[i] =
            (struct wire_stats_owner){ o->uid, o->clients, o->sessions, o->pages, o->gist_pages };
    }
    st->owner = list;
    st->n_owner = (uint32_t)m->n_owner;
    return 0;
}

static int read_stats(struct wire_scratch *s, const Gistd__Stats *m, struct wire_stats *st)
{
    int err;

    if (!take_string(m->version, &st->version) || !take_string(m->model, &st->model) ||
        !take_string(m->model_digest, &st->model_digest) || !take_string(m->cpu, &st->cpu) ||
        !take_string(m->adapters, &st->adapters))
        return -EMSGSIZE;
    st->threads = m->threads;
    st->uptime_ns = m->uptime_ns;
    st->weights_bytes = m->weights_bytes;
    st->scratch_bytes = m->scratch_bytes;
    st->kv_bytes = m->kv_bytes;
    st->adapter_bytes = m->adapter_bytes;
    st->page_bytes = m->page_bytes;
    st->page_tokens = m->page_tokens;
    st->pages = m->pages;
    st->pages_free = m->pages_free;
    st->pages_cached = m->pages_cached;
    st->clients = m->clients;
    st->sessions = m->sessions;
    st->requests_running = m->requests_running;
    st->requests_total = m->requests_total;
    st->requests_failed = m->requests_failed;
    st->prompt_tokens_total = m->prompt_tokens_total;
    st->generated_tokens_total = m->generated_tokens_total;
    st->steps_total = m->steps_total;
    st->client_errors_total = m->client_errors_total;
    err = read_stats_clients(s, m, st);
    if (err == 0)
        err = read_stats_sessions(s, m, st);
    return err < 0 ? err : read_stats_owners(s, m, st);
}

static int read_error(const Gistd__Error *m, struct wire_rep *r)
{
    if (!enum_valid((int)m->code, WIRE_E__N - 1))
        return -EBADMSG;
    r->u.error.code = (enum wire_error)m->code;
    r->u.error.had = m->had;
    r->u.error.asked = m->asked;
    r->u.error.limit = m->limit;
    return take_string(m->text, &r->u.error.text) ? 0 : -EMSGSIZE;
}

static int read_done(const Gistd__Done *m, struct wire_rep *r)
{
    if (!enum_valid((int)m->reason, WIRE_REASON_POOL_FULL))
        return -EBADMSG;
    r->u.done.reason = (enum wire_reason)m->reason;
    read_usage(m->usage, &r->u.done.usage);
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
        return 0;
    case WIRE_APPENDED:
        r->u.appended.n_tokens = m->appended->n_tokens;
        read_usage(m->appended->usage, &r->u.appended.usage);
        return 0;
    case WIRE_TEXT:
        r->u.text.n_tokens = m->text->n_tokens;
        r->u.text.text = m->text->text;
        r->u.text.tokens = m->text->ids;
        r->u.text.n_ids = (uint32_t)m->text->n_ids;
        return 0;
    case WIRE_DONE:
        return read_done(m->done, r);
    case WIRE_SCORE_ROWS:
        r->u.score_rows.first = m->score_rows->first;
        r->u.score_rows.n = m->score_rows->n;
        r->u.score_rows.n_vocab = m->score_rows->n_vocab;
        return 0;
    case WIRE_TOKENS:
        r->u.tokens.n = m->tokens->n;
        return 0;
    case WIRE_STATS:
        return read_stats(s, m->stats, &r->u.stats);
    case WIRE_PONG:
        return 0;
    case WIRE_ERROR:
        return read_error(m->error, r);
    case WIRE_CANCELLED:
        r->u.cancelled.found = m->cancelled->found;
        return 0;
    case WIRE_SESSION_CLOSED:
        r->u.session_closed.n_tokens = m->session_closed->n_tokens;
        return 0;
    case WIRE_REWOUND:
        r->u.rewound.n_tokens = m->rewound->n_tokens;
        return 0;
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

    if (plain_unpack(frame, len, &plain) && plain.tag == body_tag(WIRE_PONG)) {
        *ret = (struct wire_rep){
            .id = plain.id, .bulk_len = plain.bulk_len, .last = plain.last, .kind = WIRE_PONG
        };
        return 0;
    }
    m = (const Gistd__Reply *)unpack_message(&gistd__reply__descriptor, s, frame, len, &err);
    if (!m)
        return err;
    if (m->body_case == GISTD__REPLY__BODY__NOT_SET)
        return -EBADMSG;
    r.id = m->id;
    r.bulk_len = m->bulk_len;
    r.last = m->last;
    r.kind = (enum wire_rep_kind)(m->body_case - BODY_BASE);
    err = read_rep_body(s, m, &r);
    if (err < 0)
        return err;
    *ret = r;
    return 0;
}

/* --- names ------------------------------------------------------------------------------------ */

const char *wire_error_name(enum wire_error e)
{
    static const char *const names[] = {
        [WIRE_E_INTERNAL] = "internal",
        [WIRE_E_BAD_REQUEST] = "bad_request",
        [WIRE_E_NOT_FOUND] = "not_found",
        [WIRE_E_BUSY] = "busy",
        [WIRE_E_CONTEXT_LENGTH_EXCEEDED] = "context_length_exceeded",
        [WIRE_E_POOL_FULL] = "pool_full",
        [WIRE_E_LIMIT] = "limit",
        [WIRE_E_CANCELLED] = "cancelled",
        [WIRE_E_UNSUPPORTED] = "unsupported",
        [WIRE_E_SHUTTING_DOWN] = "shutting_down",
        [WIRE_E_NO_MEMORY] = "no_memory",
    };

    return (unsigned)e < WIRE_E__N ? names[e] : "unknown";
}

const char *wire_reason_name(enum wire_reason r)
{
    static const char *const names[] = {
        [WIRE_REASON_END_OF_TEXT] = "end_of_text", [WIRE_REASON_STOP] = "stop",
        [WIRE_REASON_LENGTH] = "length",           [WIRE_REASON_CONTEXT_FULL] = "context_full",
        [WIRE_REASON_POOL_FULL] = "pool_full",
    };

    return (unsigned)r <= WIRE_REASON_POOL_FULL ? names[r] : "unknown";
}
