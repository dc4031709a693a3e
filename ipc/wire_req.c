/* ipc/wire_req.c - requests, between our structs and protobuf-c's.
 *
 * Each kind has a case in build_req_body and one in read_req_body; those with lists or a memory
 * have functions of their own. Packing copies pointers and never strings: what is built points into
 * the caller's struct. Unpacking leaves pointers into the scratch. A limit on a list is checked in
 * both directions: a client learns of it before anything is sent, and the daemon does not trust
 * that. */

#include "ipc/scan.h"
#include "ipc/wire_pb.h"

#include <errno.h>
#include <string.h>

/* Our enums are the schema's, so that a value is a cast once its range was checked. */
_Static_assert((int)WIRE_APPEND_CHAT == (int)GISTD__APPEND__KIND__CHAT, "enum");
_Static_assert((int)WIRE_SCORE_TOKENS == (int)GISTD__SCORE__KIND__TOKENS, "enum");
_Static_assert((int)WIRE_SCORE_LOGITS == (int)GISTD__SCORE__WANT__LOGITS, "enum");
_Static_assert((int)WIRE_CACHE_FORGET == (int)GISTD__CACHE__VERB__FORGET, "enum");
_Static_assert((int)WIRE_BACKGROUND == (int)GISTD__OPEN_SESSION__PRIORITY__BACKGROUND, "enum");
_Static_assert((int)WIRE_POOLING_LAST == (int)GISTD__EMBED__POOLING__LAST, "enum");
/* And the kinds are the schema's field numbers. */
_Static_assert(WIRE_HELLO + WIRE_BODY_BASE == (int)GISTD__REQUEST__BODY_HELLO, "kind");
_Static_assert(WIRE_SCORE + WIRE_BODY_BASE == (int)GISTD__REQUEST__BODY_SCORE, "kind");
_Static_assert(WIRE_SCORE_CHOICES + WIRE_BODY_BASE == (int)GISTD__REQUEST__BODY_SCORE_CHOICES,
               "kind");
_Static_assert(WIRE_REWIND + WIRE_BODY_BASE == (int)GISTD__REQUEST__BODY_REWIND, "kind");
_Static_assert(WIRE_CACHE + WIRE_BODY_BASE == (int)GISTD__REQUEST__BODY_CACHE, "kind");
_Static_assert(WIRE_ADD_DOCUMENT + WIRE_BODY_BASE == (int)GISTD__REQUEST__BODY_ADD_DOCUMENT,
               "kind");
_Static_assert(WIRE_RESUME + WIRE_BODY_BASE == (int)GISTD__REQUEST__BODY_RESUME, "kind");
_Static_assert((int)WIRE_NAMED_DOCUMENT == (int)GISTD__NAMED__DOCUMENT, "enum");

/* Also of lists that would fit into a frame: what a request makes the daemon do is bounded by
 * these. */
static int too_many(struct wire_scratch *s, size_t n, const char *what, unsigned most)
{
    return why_set(&s->why, -EMSGSIZE, "%zu %s in one request; %u are allowed", n, what, most);
}

/* Numbers that may be absent: a oneof of one field in the schema, a has_x beside it in our structs.
 * A number other than 0 is there in any case. */
#define PUT(m, from, x, tag)                                                                       \
    do {                                                                                           \
        (m)->has_##x##_case = (from).has_##x || (from).x != 0 ? (tag) : 0;                         \
        (m)->x = (from).x;                                                                         \
    } while (0)
#define GET(to, m, x, tag)                                                                         \
    do {                                                                                           \
        (to).has_##x = (m)->has_##x##_case == (tag);                                               \
        (to).x = (to).has_##x ? (m)->x : 0;                                                        \
    } while (0)

/* --- packing ---------------------------------------------------------------------------------- */

/* Those without any field, see ipc/plain.h. */
static bool plain_req(enum wire_req_kind kind)
{
    return kind == WIRE_PING || kind == WIRE_GET_STATS;
}

/* One at a time, on the stack of wire_req_pack. */
union req_body {
    Gistd__GetStats stats;
    Gistd__Ping ping;
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
    Gistd__Cache cache;
    Gistd__Save save;
    Gistd__Restore restore;
    Gistd__List list;
    Gistd__Delete delete;
    Gistd__AddDocument add_document;
    Gistd__Watch watch;
    Gistd__Trace trace;
    Gistd__ScoreChoices score_choices;
    Gistd__Embed embed;
    Gistd__Segments segments;
    Gistd__Keep keep;
    Gistd__Attach attach;
    Gistd__Resume resume;
};

/* Roles and lengths; the texts themselves are the bulk. */
static int build_append(struct wire_scratch *s, const struct wire_req *r, Gistd__Append *m)
{
    uint32_t n = r->u.append.n_messages;
    Gistd__Append__Message **list;

    gistd__append__init(m);
    m->session = r->u.append.session;
    m->kind = (Gistd__Append__Kind)r->u.append.kind;
    m->special = r->u.append.special;
    m->more = r->u.append.more;
    m->open_answer = r->u.append.open_answer;
    m->progress = r->u.append.progress;
    if (n == 0)
        return 0;
    if (n > WIRE_MESSAGES_MAX)
        return too_many(s, n, "chat messages", WIRE_MESSAGES_MAX);
    list = wire_scratch_list(s, n, sizeof(**list));
    if (!list)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < n; i++) {
        gistd__append__message__init(list[i]);
        list[i]->role = wire_str(r->u.append.messages[i].role);
        list[i]->text_len = r->u.append.messages[i].text_len;
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
    m->min_p = r->u.generate.min_p;
    m->repeat_last_n = r->u.generate.repeat_last_n;
    m->seed = r->u.generate.seed;
    m->ignore_eog = r->u.generate.ignore_eog;
    m->grammar = (Gistd__Generate__Grammar)r->u.generate.grammar;
    m->more = r->u.generate.more;
    m->n = r->u.generate.n;
    PUT(m, r->u.generate, logprobs, GISTD__GENERATE__HAS_LOGPROBS_LOGPROBS);
    PUT(m, r->u.generate, draft, GISTD__GENERATE__HAS_DRAFT_DRAFT);
    PUT(m, r->u.generate, top_p, GISTD__GENERATE__HAS_TOP_P_TOP_P);
    PUT(m, r->u.generate, repeat_penalty, GISTD__GENERATE__HAS_REPEAT_PENALTY_REPEAT_PENALTY);
    if (n == 0)
        return 0;
    if (n > WIRE_STOPS_MAX)
        return too_many(s, n, "stop strings", WIRE_STOPS_MAX);
    m->stop = wire_scratch_array(s, n, sizeof(*m->stop));
    if (!m->stop)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < n; i++)
        m->stop[i] = wire_str(r->u.generate.stops[i]);
    m->n_stop = n;
    return 0;
}

/* NULL for what an absent message says anyway. */
static Gistd__Memory *build_memory(const struct wire_memory *from, Gistd__Memory *m)
{
    bool numbers = from->has_ratio || from->ratio || from->has_sinks || from->sinks ||
                   from->has_budget || from->budget || from->keep_tail || from->has_hydrate ||
                   from->hydrate;

    if (from->compressor == WIRE_COMPRESSOR_UNSAID && !numbers && !from->adapter && !from->late &&
        !from->fixed && !from->automatic)
        return NULL;
    gistd__memory__init(m);
    m->compressor = from->compressor;
    PUT(m, *from, ratio, GISTD__MEMORY__HAS_RATIO_RATIO);
    PUT(m, *from, sinks, GISTD__MEMORY__HAS_SINKS_SINKS);
    PUT(m, *from, budget, GISTD__MEMORY__HAS_BUDGET_BUDGET);
    PUT(m, *from, hydrate, GISTD__MEMORY__HAS_HYDRATE_HYDRATE);
    m->keep_tail = from->keep_tail;
    m->adapter = wire_str(from->adapter);
    m->late = from->late;
    m->fixed = from->fixed;
    m->automatic = from->automatic;
    return m;
}

static int build_open_session(struct wire_scratch *s, const struct wire_req *r,
                              Gistd__OpenSession *m, Gistd__Memory *memory)
{
    uint32_t n = r->u.open_session.n_documents;

    gistd__open_session__init(m);
    PUT(m, r->u.open_session, segment, GISTD__OPEN_SESSION__HAS_SEGMENT_SEGMENT);
    m->priority = (Gistd__OpenSession__Priority)r->u.open_session.priority;
    m->label = wire_str(r->u.open_session.label);
    m->memory = build_memory(&r->u.open_session.memory, memory);
    m->public_prefix = r->u.open_session.public_prefix;
    m->private_ = r->u.open_session.is_private;
    m->realm = wire_str(r->u.open_session.realm);
    if (n == 0)
        return 0;
    if (n > WIRE_DOCUMENTS_MAX)
        return too_many(s, n, "documents", WIRE_DOCUMENTS_MAX);
    m->documents = wire_scratch_array(s, n, sizeof(*m->documents));
    if (!m->documents)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < n; i++)
        m->documents[i] = wire_str(r->u.open_session.documents[i]);
    m->n_documents = n;
    return 0;
}

static void build_add_document(const struct wire_req *r, Gistd__AddDocument *m,
                               Gistd__Memory *memory)
{
    gistd__add_document__init(m);
    m->name = wire_str(r->u.add_document.name);
    m->memory = build_memory(&r->u.add_document.memory, memory);
    PUT(m, r->u.add_document, segment, GISTD__ADD_DOCUMENT__HAS_SEGMENT_SEGMENT);
    m->pin = r->u.add_document.pin;
    m->more = r->u.add_document.more;
    m->kind = (Gistd__Append__Kind)r->u.add_document.kind;
    m->role = wire_str(r->u.add_document.role);
    m->public_prefix = r->u.add_document.public_prefix;
    m->replace = r->u.add_document.replace;
    m->priority = (Gistd__OpenSession__Priority)r->u.add_document.priority;
}

/* protobuf-c's lists have no const; packing only reads. */
static int build_score_choices(struct wire_scratch *s, const struct wire_req *r,
                               Gistd__ScoreChoices *m)
{
    gistd__score_choices__init(m);
    m->session = r->u.score_choices.session;
    m->kind = (Gistd__Score__Kind)r->u.score_choices.kind;
    m->special = r->u.score_choices.special;
    m->more = r->u.score_choices.more;
    m->len = (uint64_t *)(uintptr_t)r->u.score_choices.lens;
    m->n_len = r->u.score_choices.n;
    return m->n_len <= WIRE_CHOICES_MAX ? 0
                                        : too_many(s, m->n_len, "continuations", WIRE_CHOICES_MAX);
}

static int build_embed(struct wire_scratch *s, const struct wire_req *r, Gistd__Embed *m)
{
    gistd__embed__init(m);
    m->kind = (Gistd__Score__Kind)r->u.embed.kind;
    m->pooling = (Gistd__Embed__Pooling)r->u.embed.pooling;
    m->priority = (Gistd__OpenSession__Priority)r->u.embed.priority;
    m->normalise = r->u.embed.normalise;
    m->special = r->u.embed.special;
    m->more = r->u.embed.more;
    m->len = (uint64_t *)(uintptr_t)r->u.embed.lens;
    m->n_len = r->u.embed.n;
    return m->n_len <= WIRE_TEXTS_MAX ? 0 : too_many(s, m->n_len, "texts", WIRE_TEXTS_MAX);
}

/* Sessions and documents that have a name. */
static int build_named(const struct wire_req *r, union req_body *b)
{
    switch (r->kind) {
    case WIRE_SAVE:
        gistd__save__init(&b->save);
        b->save.session = r->u.save.session;
        b->save.name = wire_str(r->u.save.name);
        b->save.replace = r->u.save.replace;
        return 0;
    case WIRE_RESTORE:
        gistd__restore__init(&b->restore);
        b->restore.name = wire_str(r->u.restore.name);
        b->restore.label = wire_str(r->u.restore.label);
        return 0;
    case WIRE_LIST:
        gistd__list__init(&b->list);
        b->list.kind = (Gistd__Named)r->u.list.kind;
        return 0;
    case WIRE_DELETE:
        gistd__delete__init(&b->delete);
        b->delete.kind = (Gistd__Named)r->u.delete.kind;
        b->delete.name = wire_str(r->u.delete.name);
        return 0;
    default:
        return -EBADMSG;
    }
}

static int build_req_body(struct wire_scratch *s, const struct wire_req *r, union req_body *b,
                          Gistd__Memory *memory)
{
    switch (r->kind) {
    case WIRE_HELLO:
        gistd__hello__init(&b->hello);
        b->hello.client = wire_str(r->u.hello.client);
        b->hello.hears_loading = r->u.hello.hears_loading;
        return 0;
    case WIRE_OPEN_SESSION:
        return build_open_session(s, r, &b->open_session, memory);
    case WIRE_APPEND:
        return build_append(s, r, &b->append);
    case WIRE_GENERATE:
        return build_generate(s, r, &b->generate);
    case WIRE_CANCEL:
        gistd__cancel__init(&b->cancel);
        b->cancel.request = r->u.cancel.request;
        b->cancel.session = r->u.cancel.session;
        return 0;
    case WIRE_WATCH:
        gistd__watch__init(&b->watch);
        b->watch.interval_ms = r->u.watch.interval_ms;
        return 0;
    case WIRE_TRACE:
        gistd__trace__init(&b->trace);
        b->trace.number = r->u.trace.number;
        return 0;
    case WIRE_SEGMENTS:
        gistd__segments__init(&b->segments);
        b->segments.session = r->u.segments.session;
        b->segments.first = r->u.segments.first;
        return 0;
    case WIRE_CLOSE_SESSION:
        gistd__close_session__init(&b->close_session);
        b->close_session.session = r->u.close_session.session;
        return 0;
    case WIRE_SCORE:
        gistd__score__init(&b->score);
        b->score.kind = (Gistd__Score__Kind)r->u.score.kind;
        PUT(&b->score, r->u.score, window, GISTD__SCORE__HAS_WINDOW_WINDOW);
        PUT(&b->score, r->u.score, segment, GISTD__SCORE__HAS_SEGMENT_SEGMENT);
        b->score.want = (Gistd__Score__Want)r->u.score.want;
        b->score.more = r->u.score.more;
        b->score.memory = build_memory(&r->u.score.memory, memory);
        return 0;
    case WIRE_SCORE_CHOICES:
        return build_score_choices(s, r, &b->score_choices);
    case WIRE_EMBED:
        return build_embed(s, r, &b->embed);
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
        b->fork.label = wire_str(r->u.fork.label);
        return 0;
    case WIRE_REWIND:
        gistd__rewind__init(&b->rewind);
        b->rewind.session = r->u.rewind.session;
        b->rewind.n_tokens = r->u.rewind.n_tokens;
        return 0;
    case WIRE_CACHE:
        gistd__cache__init(&b->cache);
        b->cache.verb = (Gistd__Cache__Verb)r->u.cache.verb;
        b->cache.public_records = r->u.cache.public_records;
        b->cache.after = r->u.cache.after;
        b->cache.bytes = r->u.cache.bytes;
        return 0;
    case WIRE_SAVE:
    case WIRE_RESTORE:
    case WIRE_LIST:
    case WIRE_DELETE:
        return build_named(r, b);
    case WIRE_KEEP:
        wire_build_keep(&r->u.keep, &b->keep);
        return 0;
    case WIRE_ATTACH:
        wire_build_attach(&r->u.attach, &b->attach);
        return 0;
    case WIRE_RESUME:
        wire_build_resume(&r->u.resume, &b->resume);
        return 0;
    case WIRE_ADD_DOCUMENT:
        build_add_document(r, &b->add_document, memory);
        return 0;
    case WIRE_GET_STATS: /* plain ones, but with a deadline */
        gistd__get_stats__init(&b->stats);
        return 0;
    case WIRE_PING:
        gistd__ping__init(&b->ping);
        return 0;
    case WIRE_REQ__N:
        break;
    }
    return -EBADMSG;
}

/* The short way has no place for a deadline. */
int wire_req_pack(struct wire_scratch *s, const struct wire_req *r, uint8_t *buf, size_t cap,
                  size_t *ret_len)
{
    Gistd__Request m = GISTD__REQUEST__INIT;
    union req_body body;
    Gistd__Memory memory;
    int err;

    if (plain_req(r->kind) && r->deadline_ms == 0)
        return plain_pack(&(struct plain){ r->id, r->bulk_len, 0, wire_body_tag(r->kind) }, buf,
                          cap, ret_len);
    wire_scratch_reset(s);
    err = build_req_body(s, r, &body, &memory);
    if (err < 0)
        return err;
    m.id = r->id;
    m.bulk_len = r->bulk_len;
    m.deadline_ms = r->deadline_ms;
    m.body_case = (Gistd__Request__BodyCase)(r->kind + WIRE_BODY_BASE);
    m.hello = &body.hello; /* the oneof's pointers share their place */
    err = wire_check(&m.base, &s->why);
    return err < 0 ? err : wire_pack_message(&m.base, buf, cap, ret_len);
}

/* --- unpacking -------------------------------------------------------------------------------- */

/* Behind wire_check: strings are not too long, and values of enums are ours. */

static int read_append(struct wire_scratch *s, const Gistd__Append *m, struct wire_req *r)
{
    struct wire_chat_message *list = NULL;

    if (m->n_messages > WIRE_MESSAGES_MAX)
        return too_many(s, m->n_messages, "chat messages", WIRE_MESSAGES_MAX);
    if (m->n_messages > 0) {
        list = wire_scratch_array(s, m->n_messages, sizeof(*list));
        if (!list)
            return -EMSGSIZE;
    }
    /* Texts stay in the arena: the frame only says where each of them ends. */
    for (size_t i = 0; i < m->n_messages; i++) {
        list[i].role = m->messages[i]->role;
        list[i].text_len = m->messages[i]->text_len;
    }
    r->u.append.session = m->session;
    r->u.append.kind = (enum wire_append_kind)m->kind;
    r->u.append.messages = list;
    r->u.append.n_messages = (uint32_t)m->n_messages;
    r->u.append.special = m->special;
    r->u.append.more = m->more;
    r->u.append.open_answer = m->open_answer;
    r->u.append.progress = m->progress;
    return 0;
}

/* Ranges of numbers are not looked at here, in none of these: what is allowed depends on the model,
 * and is the daemon's to say. */
static int read_generate(struct wire_scratch *s, const Gistd__Generate *m, struct wire_req *r)
{
    const char **list = NULL;

    if (m->n_stop > WIRE_STOPS_MAX)
        return too_many(s, m->n_stop, "stop strings", WIRE_STOPS_MAX);
    if (m->n_stop > 0) {
        list = wire_scratch_array(s, m->n_stop, sizeof(*list));
        if (!list)
            return -EMSGSIZE;
    }
    for (size_t i = 0; i < m->n_stop; i++)
        list[i] = m->stop[i];
    r->u.generate.session = m->session;
    r->u.generate.max_tokens = m->max_tokens;
    r->u.generate.temperature = m->temperature;
    r->u.generate.top_k = m->top_k;
    GET(r->u.generate, m, top_p, GISTD__GENERATE__HAS_TOP_P_TOP_P);
    r->u.generate.min_p = m->min_p;
    GET(r->u.generate, m, repeat_penalty, GISTD__GENERATE__HAS_REPEAT_PENALTY_REPEAT_PENALTY);
    r->u.generate.repeat_last_n = m->repeat_last_n;
    r->u.generate.seed = m->seed;
    r->u.generate.stops = list;
    r->u.generate.n_stops = (uint32_t)m->n_stop;
    r->u.generate.ignore_eog = m->ignore_eog;
    r->u.generate.grammar = (enum wire_grammar)m->grammar;
    r->u.generate.more = m->more;
    r->u.generate.n = m->n;
    GET(r->u.generate, m, logprobs, GISTD__GENERATE__HAS_LOGPROBS_LOGPROBS);
    GET(r->u.generate, m, draft, GISTD__GENERATE__HAS_DRAFT_DRAFT);
    return 0;
}

/* A compressor is a number in the schema, since their table is not there. */
static int read_memory(struct wire_scratch *s, const Gistd__Memory *m, struct wire_memory *ret)
{
    if (!m)
        return 0;
    if (m->compressor >= WIRE_COMPRESSOR__N)
        return why_set(&s->why, -ENOTSUP,
                       "the field compressor of Memory is %u, a number that this version of gistd "
                       "does not know",
                       m->compressor);
    *ret = (struct wire_memory){ .compressor = (enum wire_compressor)m->compressor,
                                 .keep_tail = m->keep_tail,
                                 .late = m->late,
                                 .fixed = m->fixed,
                                 .automatic = m->automatic,
                                 .adapter = m->adapter };
    GET(*ret, m, ratio, GISTD__MEMORY__HAS_RATIO_RATIO);
    GET(*ret, m, sinks, GISTD__MEMORY__HAS_SINKS_SINKS);
    GET(*ret, m, budget, GISTD__MEMORY__HAS_BUDGET_BUDGET);
    GET(*ret, m, hydrate, GISTD__MEMORY__HAS_HYDRATE_HYDRATE);
    return 0;
}

static int read_open_session(struct wire_scratch *s, const Gistd__OpenSession *m,
                             struct wire_req *r)
{
    const char **list = NULL;

    if (m->n_documents > WIRE_DOCUMENTS_MAX)
        return too_many(s, m->n_documents, "documents", WIRE_DOCUMENTS_MAX);
    if (m->n_documents > 0) {
        list = wire_scratch_array(s, m->n_documents, sizeof(*list));
        if (!list)
            return -EMSGSIZE;
    }
    for (size_t i = 0; i < m->n_documents; i++)
        list[i] = m->documents[i];
    r->u.open_session.documents = list;
    r->u.open_session.n_documents = (uint32_t)m->n_documents;
    GET(r->u.open_session, m, segment, GISTD__OPEN_SESSION__HAS_SEGMENT_SEGMENT);
    r->u.open_session.priority = (enum wire_priority)m->priority;
    r->u.open_session.label = m->label;
    r->u.open_session.public_prefix = m->public_prefix;
    r->u.open_session.is_private = m->private_;
    r->u.open_session.realm = m->realm;
    return read_memory(s, m->memory, &r->u.open_session.memory);
}

static int read_score(struct wire_scratch *s, const Gistd__Score *m, struct wire_req *r)
{
    r->u.score.kind = (enum wire_score_kind)m->kind;
    GET(r->u.score, m, window, GISTD__SCORE__HAS_WINDOW_WINDOW);
    GET(r->u.score, m, segment, GISTD__SCORE__HAS_SEGMENT_SEGMENT);
    r->u.score.want = (enum wire_score_want)m->want;
    r->u.score.more = m->more;
    return read_memory(s, m->memory, &r->u.score.memory);
}

/* Lengths in bytes or tokens of the bulk, one behind the other; whether they add up to it is seen
 * where the bulk is. */
static int read_score_choices(struct wire_scratch *s, const Gistd__ScoreChoices *m,
                              struct wire_req *r)
{
    if (m->n_len > WIRE_CHOICES_MAX)
        return too_many(s, m->n_len, "continuations", WIRE_CHOICES_MAX);
    r->u.score_choices.session = m->session;
    r->u.score_choices.kind = (enum wire_score_kind)m->kind;
    r->u.score_choices.lens = m->len;
    r->u.score_choices.n = (uint32_t)m->n_len;
    r->u.score_choices.special = m->special;
    r->u.score_choices.more = m->more;
    return 0;
}

static int read_embed(struct wire_scratch *s, const Gistd__Embed *m, struct wire_req *r)
{
    if (m->n_len > WIRE_TEXTS_MAX)
        return too_many(s, m->n_len, "texts", WIRE_TEXTS_MAX);
    r->u.embed.kind = (enum wire_score_kind)m->kind;
    r->u.embed.lens = m->len;
    r->u.embed.n = (uint32_t)m->n_len;
    r->u.embed.pooling = (enum wire_pooling)m->pooling;
    r->u.embed.priority = (enum wire_priority)m->priority;
    r->u.embed.normalise = m->normalise;
    r->u.embed.special = m->special;
    r->u.embed.more = m->more;
    return 0;
}

static int read_add_document(struct wire_scratch *s, const Gistd__AddDocument *m,
                             struct wire_req *r)
{
    GET(r->u.add_document, m, segment, GISTD__ADD_DOCUMENT__HAS_SEGMENT_SEGMENT);
    r->u.add_document.name = m->name;
    r->u.add_document.role = m->role;
    r->u.add_document.kind = (enum wire_append_kind)m->kind;
    r->u.add_document.priority = (enum wire_priority)m->priority;
    r->u.add_document.pin = m->pin;
    r->u.add_document.more = m->more;
    r->u.add_document.public_prefix = m->public_prefix;
    r->u.add_document.replace = m->replace;
    return read_memory(s, m->memory, &r->u.add_document.memory);
}

static int read_named(const Gistd__Request *m, struct wire_req *r)
{
    switch (r->kind) {
    case WIRE_SAVE:
        r->u.save.session = m->save->session;
        r->u.save.name = m->save->name;
        r->u.save.replace = m->save->replace;
        return 0;
    case WIRE_RESTORE:
        r->u.restore.name = m->restore->name;
        r->u.restore.label = m->restore->label;
        return 0;
    case WIRE_LIST:
        r->u.list.kind = (enum wire_named)m->list->kind;
        return 0;
    case WIRE_DELETE:
        r->u.delete.kind = (enum wire_named)m->delete_->kind;
        r->u.delete.name = m->delete_->name;
        return 0;
    default:
        return -EBADMSG;
    }
}

static int read_req_body(struct wire_scratch *s, const Gistd__Request *m, struct wire_req *r)
{
    switch (r->kind) {
    case WIRE_HELLO:
        r->u.hello.client = m->hello->client;
        r->u.hello.hears_loading = m->hello->hears_loading;
        return 0;
    case WIRE_OPEN_SESSION:
        return read_open_session(s, m->open_session, r);
    case WIRE_APPEND:
        return read_append(s, m->append, r);
    case WIRE_GENERATE:
        return read_generate(s, m->generate, r);
    case WIRE_CANCEL:
        r->u.cancel.request = m->cancel->request;
        r->u.cancel.session = m->cancel->session;
        return 0;
    case WIRE_WATCH:
        r->u.watch.interval_ms = m->watch->interval_ms;
        return 0;
    case WIRE_TRACE:
        r->u.trace.number = m->trace->number;
        return 0;
    case WIRE_SEGMENTS:
        r->u.segments.session = m->segments->session;
        r->u.segments.first = m->segments->first;
        return 0;
    case WIRE_CLOSE_SESSION:
        r->u.close_session.session = m->close_session->session;
        return 0;
    case WIRE_FORK:
        r->u.fork.session = m->fork->session;
        r->u.fork.label = m->fork->label;
        return 0;
    case WIRE_REWIND:
        r->u.rewind.session = m->rewind->session;
        r->u.rewind.n_tokens = m->rewind->n_tokens;
        return 0;
    case WIRE_CACHE:
        r->u.cache.verb = (enum wire_cache_verb)m->cache->verb;
        r->u.cache.public_records = m->cache->public_records;
        r->u.cache.after = m->cache->after;
        r->u.cache.bytes = m->cache->bytes;
        return 0;
    case WIRE_SCORE:
        return read_score(s, m->score, r);
    case WIRE_SCORE_CHOICES:
        return read_score_choices(s, m->score_choices, r);
    case WIRE_EMBED:
        return read_embed(s, m->embed, r);
    case WIRE_TOKENIZE:
        r->u.tokenize.special = m->tokenize->special;
        r->u.tokenize.more = m->tokenize->more;
        return 0;
    case WIRE_DETOKENIZE:
        r->u.detokenize.more = m->detokenize->more;
        return 0;
    case WIRE_SAVE:
    case WIRE_RESTORE:
    case WIRE_LIST:
    case WIRE_DELETE:
        return read_named(m, r);
    case WIRE_KEEP:
        r->u.keep = (struct wire_keep){ m->keep->session, m->keep->seconds };
        return 0;
    case WIRE_ATTACH:
        r->u.attach = (struct wire_attach){ m->attach->token.data, (uint32_t)m->attach->token.len,
                                            m->attach->realm };
        return 0;
    case WIRE_RESUME:
        r->u.resume = wire_read_resume(m->resume);
        return 0;
    case WIRE_ADD_DOCUMENT:
        return read_add_document(s, m->add_document, r);
    case WIRE_GET_STATS:
    case WIRE_PING:
        return 0;
    case WIRE_REQ__N:
        break;
    }
    return -EBADMSG;
}

/* The short way for frames that are a few numbers (ipc/plain.h); what is not exactly so goes on by
 * protobuf-c, which decides what it is. */
static bool read_plain_req(const uint8_t *frame, size_t len, struct wire_req *ret)
{
    static const enum wire_req_kind kinds[] = { WIRE_PING, WIRE_GET_STATS };
    struct plain m;

    if (!plain_unpack(frame, len, &m) || m.last)
        return false;
    for (int i = 0; i < 2; i++) {
        if (m.tag != wire_body_tag(kinds[i]))
            continue;
        *ret = (struct wire_req){ .id = m.id, .bulk_len = m.bulk_len, .kind = kinds[i] };
        return true;
    }
    return false;
}

/* A body that a later version has is an unknown field to protobuf-c, and its bytes are kept. */
static int no_body(const Gistd__Request *m, struct why *why)
{
    if (m->base.n_unknown_fields == 0)
        return why_set(why, -EBADMSG, "the frame has no request in it");
    return why_set(why, -ENOTSUP,
                   "gistd " GISTD_VERSION " does not know this request (field %u): "
                   "the client may be newer",
                   m->base.unknown_fields[0].tag);
}

int wire_req_unpack(struct wire_scratch *s, const uint8_t *frame, size_t len, struct wire_req *ret)
{
    struct wire_req r = { 0 };
    const Gistd__Request *m;
    int err = 0;

    if (read_plain_req(frame, len, ret))
        return 0;
    m = (const Gistd__Request *)wire_unpack_message(&gistd__request__descriptor, s, frame, len,
                                                    &err);
    if (!m)
        return why_set(&s->why, err,
                       err == -EMSGSIZE ? "the request has too many fields"
                                        : "the frame can't be read as a request");
    if (m->body_case == GISTD__REQUEST__BODY__NOT_SET)
        return no_body(m, &s->why);
    err = wire_check(&m->base, &s->why);
    if (err < 0)
        return err;
    r.id = m->id;
    r.bulk_len = m->bulk_len;
    r.deadline_ms = m->deadline_ms;
    r.kind = (enum wire_req_kind)(m->body_case - WIRE_BODY_BASE);
    /* Its own sentence, if it has one, stands: why_set keeps the first. */
    err = read_req_body(s, m, &r);
    if (err < 0)
        return why_set(&s->why, err, "the request has too many fields");
    *ret = r;
    return 0;
}

/* Whether a field of that number is a request's body; numbers between theirs are in no use yet. */
static bool is_body(uint32_t number)
{
    return number >= WIRE_BODY_BASE &&
           protobuf_c_message_descriptor_get_field(&gistd__request__descriptor, number);
}

/* The numbers of the outer message, and of an Append the session, which is its first field. */
void wire_req_head(const uint8_t *frame, size_t len, struct wire_req *ret)
{
    struct scan s = { frame, frame + len }, body;
    struct scan_field f, inner;

    *ret = (struct wire_req){ .kind = WIRE_REQ__N };
    while (scan_next(&s, &f)) {
        if (f.number == 1 && !f.bytes)
            ret->id = f.value;
        else if (f.number == 2 && !f.bytes)
            ret->bulk_len = f.value;
        else if (f.bytes && is_body(f.number))
            ret->kind = (enum wire_req_kind)(f.number - WIRE_BODY_BASE);
        if (f.number != GISTD__REQUEST__BODY_APPEND || !f.bytes)
            continue;
        body = (struct scan){ f.bytes, f.bytes + f.len };
        while (scan_next(&body, &inner))
            if (inner.number == 1 && !inner.bytes)
                ret->u.append.session = inner.value;
    }
}
