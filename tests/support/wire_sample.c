#include "tests/support/wire_sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

bool sample_no_req(int kind)
{
    return (kind > WIRE_ADD_DOCUMENT && kind < WIRE_CACHE) ||
           (kind > WIRE_EMBED && kind < WIRE_SEGMENTS) || kind == WIRE_SEGMENTS + 1;
}

bool sample_no_rep(int kind)
{
    return (kind > WIRE_DOCUMENT_ADDED && kind < WIRE_CACHE_ROWS) ||
           (kind > WIRE_CACHE_ROWS && kind < WIRE_TRACED) ||
           (kind > WIRE_EMBEDDING && kind < WIRE_SEGMENT_MAP);
}

/* --- one message of each kind, with every field set ------------------------------------------- */

static const struct wire_chat_message chat[] = { { "system", 12 },
                                                 { "user", 1ull << 40 },
                                                 { "", 0 } };
static const char *const stops[] = { "\n\n", "", "caf\xc3\xa9" };
static const char *const documents[] = { "handbook", "caf\xc3\xa9" };
static const uint32_t ids[] = { 0, 1, 127, 128, 49151, UINT32_MAX };
static const uint8_t token[] = { 0, 1, 255, 0, 128 };
static const struct wire_usage usage = {
    1,  22, 333, 1ull << 33, 2ull << 40, 3ull << 50,
    4,  55, 666, 7777,       88888,      999999,
    10, 11, 12,  13,         14,         { 15, 0, 17, UINT32_MAX, 0, 20 },
    21, 22
};
static const struct wire_stats_client clients[] = {
    { 1, 2, 3, "first", 4, 5, "app-first-12.scope" }, { UINT64_MAX, UINT32_MAX, 7, "", 8, 9, "" }
};
static const struct wire_stats_session sessions[] = {
    { 10, 1, "chat", 11, 12, 13, true, 3, 1ull << 40, "generate", 24, 1000, 25, 26,
      "a\\x2db.service" },
    { 14, 15, "", 16, 17, 18, false, 0, 0, "", 0, UINT32_MAX, UINT32_MAX, 0, "" },
    { 19, 20, "x", 21, 22, 23, true, 7, 8, "append", 9, 0, 0, 0, "session-3.scope" }
};

static const struct wire_trace_row traces[] = {
    { 1, 2, 3, "append", "a client", "done", 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17 },
    { 1ull << 50, 0, 0, "", "", "cancelled", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, UINT32_MAX, 0, 0 }
};

static const struct wire_segment segments[] = { { WIRE_SEGMENT_HYDRATED, 1, 2, 3, true },
                                                { WIRE_SEGMENT_RAW, 4, 5, 0, false },
                                                { WIRE_SEGMENT_GISTS, UINT32_MAX, 0, 64, true } };

static const struct wire_stats_owner owners[] = {
    { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14 },
    { .uid = UINT32_MAX, .gist_pages = 6, .rows = UINT64_MAX, .store_bytes_max = UINT64_MAX }
};

static const struct wire_stats_store store = { .bytes = 1,
                                               .limit = 2,
                                               .records = 3,
                                               .names = 4,
                                               .written = 5,
                                               .written_today = 6,
                                               .write_a_day = 7,
                                               .puts = 8,
                                               .gets = 9,
                                               .hits = 10,
                                               .misses = 11,
                                               .refused = 12,
                                               .evicted = 13,
                                               .expired = 14,
                                               .read_bytes = 15,
                                               .read_ns = 1ull << 40,
                                               .pinned_pages = 17,
                                               .pending = 19,
                                               .degraded = "not writing: No space left",
                                               .degraded_s = 18,
                                               .io = "io_uring",
                                               .restored_tokens = 1ull << 33,
                                               .computed_instead = 21,
                                               .forgotten = 22,
                                               .ns_per_token = 23 };

static const struct wire_cache_row cache_rows[] = {
    { 1, 2, 3, 4, 5, 6, 7, true }, { UINT64_MAX, 1ull << 40, 8, 9, 10, 11, 0, false }
};
static const uint64_t lens[] = { 1, 1ull << 40, 0 };
static const double sums[] = { -1.25, -1e300, 0 };
static const struct wire_row rows[] = {
    { "last week", "chat", "SmolLM2", WIRE_ROW_READY, 11, 12, false, true, 1ull << 33, 13 },
    { "handbook", "", "", WIRE_ROW_READING, 14, 15, true, false, 16, 1ull << 40 },
    { "", "x", "Qwen2", WIRE_ROW_DAMAGED, UINT32_MAX, 0, true, true, 0, 0 }
};

static void full_add_document(struct wire_req *r)
{
    r->u.add_document.name = "handbook";
    r->u.add_document.role = "system";
    r->u.add_document.memory =
        (struct wire_memory){ WIRE_FINE_KV, true, true,  true,  true, 4,     2, 3,
                              400,          6,    false, false, true, "fine" };
    r->u.add_document.has_segment = true;
    r->u.add_document.segment = 128;
    r->u.add_document.kind = WIRE_APPEND_CHAT;
    r->u.add_document.priority = WIRE_BACKGROUND;
    r->u.add_document.pin = r->u.add_document.more = true;
    r->u.add_document.public_prefix = r->u.add_document.replace = true;
}

static void full_texts(struct wire_req *r)
{
    if (r->kind == WIRE_SCORE_CHOICES) {
        r->u.score_choices.session = 16;
        r->u.score_choices.kind = WIRE_SCORE_TOKENS;
        r->u.score_choices.lens = lens;
        r->u.score_choices.n = 3;
        r->u.score_choices.special = r->u.score_choices.more = true;
        return;
    }
    r->u.embed.kind = WIRE_SCORE_TOKENS;
    r->u.embed.lens = lens;
    r->u.embed.n = 3;
    r->u.embed.pooling = WIRE_POOLING_LAST;
    r->u.embed.priority = WIRE_BACKGROUND;
    r->u.embed.normalise = r->u.embed.special = r->u.embed.more = true;
}

static void sample_open(struct wire_req *r)
{
    r->u.open_session.has_segment = true;
    r->u.open_session.segment = 512;
    r->u.open_session.priority = WIRE_BACKGROUND;
    r->u.open_session.label = "label";
    r->u.open_session.realm = "realm";
    r->u.open_session.public_prefix = r->u.open_session.is_private = true;
    r->u.open_session.memory =
        (struct wire_memory){ WIRE_SELECT, true, true,       true, true, 8,    UINT32_MAX,
                              17,          4000, UINT32_MAX, true, true, true, "an adapter" };
    r->u.open_session.documents = documents;
    r->u.open_session.n_documents = 2;
}

static void kept_req(struct wire_req *r)
{
    if (r->kind == WIRE_KEEP)
        r->u.keep = (struct wire_keep){ 1ull << 42, UINT32_MAX };
    else if (r->kind == WIRE_ATTACH)
        r->u.attach = (struct wire_attach){ token, sizeof(token), "caf\xc3\xa9" };
    else
        r->u.resume = (struct wire_resume){ 1ull << 43, true, UINT64_MAX };
}

struct wire_req sample_req(enum wire_req_kind kind)
{
    struct wire_req r = {
        .id = 0x1122334455667788u, .bulk_len = 99, .deadline_ms = 98, .kind = kind
    };

    switch (kind) {
    case WIRE_HELLO:
        r.u.hello.client = "a client";
        r.u.hello.hears_loading = true;
        break;
    case WIRE_OPEN_SESSION:
        sample_open(&r);
        break;
    case WIRE_APPEND:
        r.u.append.session = 7;
        r.u.append.kind = WIRE_APPEND_CHAT;
        r.u.append.messages = chat;
        r.u.append.n_messages = 3;
        r.u.append.special = r.u.append.more = r.u.append.open_answer = true;
        r.u.append.progress = true;
        break;
    case WIRE_GENERATE:
        r.u.generate.session = 8;
        r.u.generate.max_tokens = 9;
        r.u.generate.temperature = 0.7f;
        r.u.generate.top_k = 40;
        r.u.generate.has_top_p = r.u.generate.has_repeat_penalty = true;
        r.u.generate.top_p = 0.9f;
        r.u.generate.min_p = 0.05f;
        r.u.generate.repeat_penalty = 1.1f;
        r.u.generate.repeat_last_n = 64;
        r.u.generate.seed = UINT64_MAX;
        r.u.generate.stops = stops;
        r.u.generate.n_stops = 3;
        r.u.generate.ignore_eog = true;
        r.u.generate.n = 17;
        r.u.generate.has_draft = true;
        r.u.generate.draft = 0;
        break;
    case WIRE_CANCEL:
        r.u.cancel.request = 10;
        r.u.cancel.session = 19;
        break;
    case WIRE_CLOSE_SESSION:
        r.u.close_session.session = 11;
        break;
    case WIRE_FORK:
        r.u.fork.session = 12;
        r.u.fork.label = "another";
        break;
    case WIRE_REWIND:
        r.u.rewind.session = 13;
        r.u.rewind.n_tokens = 14;
        break;
    case WIRE_SAVE:
        r.u.save.session = 15;
        r.u.save.name = "last week";
        r.u.save.replace = true;
        break;
    case WIRE_RESTORE:
        r.u.restore.name = "last week";
        r.u.restore.label = "chat";
        break;
    case WIRE_LIST:
        r.u.list.kind = WIRE_NAMED_DOCUMENT;
        break;
    case WIRE_DELETE:
        r.u.delete.kind = WIRE_NAMED_DOCUMENT;
        r.u.delete.name = "handbook";
        break;
    case WIRE_ADD_DOCUMENT:
        full_add_document(&r);
        break;
    case WIRE_SCORE:
        r.u.score.kind = WIRE_SCORE_TOKENS;
        r.u.score.has_window = r.u.score.has_segment = true;
        r.u.score.window = 2048;
        r.u.score.segment = 256;
        r.u.score.want = WIRE_SCORE_LOGITS;
        r.u.score.more = true;
        break;
    case WIRE_SCORE_CHOICES:
    case WIRE_EMBED:
        full_texts(&r);
        break;
    case WIRE_TOKENIZE:
        r.u.tokenize.special = r.u.tokenize.more = true;
        break;
    case WIRE_DETOKENIZE:
        r.u.detokenize.more = true;
        break;
    case WIRE_CACHE:
        r.u.cache.verb = WIRE_CACHE_FORGET;
        r.u.cache.public_records = true;
        r.u.cache.after = 1ull << 60;
        r.u.cache.bytes = UINT64_MAX;
        break;
    case WIRE_WATCH:
        r.u.watch.interval_ms = 250;
        break;
    case WIRE_TRACE:
        r.u.trace.number = 1ull << 41;
        break;
    case WIRE_SEGMENTS:
        r.u.segments.session = r.u.segments.first = 7;
        break;
    case WIRE_KEEP:
    case WIRE_ATTACH:
    case WIRE_RESUME:
        kept_req(&r);
        break;
    case WIRE_GET_STATS:
    case WIRE_PING:
    case WIRE_REQ__N:
        break;
    }
    return r;
}

static struct wire_stats full_stats(void)
{
    return (struct wire_stats){
        "0.1.0", "a model", "digest",    "avx2",  "one two", 1,  2,       3,  4,        5,   6,
        7,       8,         9,           10,      11,        12, 13,      14, 31,       32,  15,
        16,      17,        18,          19,      20,        26, clients, 2,  sessions, 3,   owners,
        2,       &store,    "no folder", "image", 21,        22, 23,      24, 25,       33,  34,
        true,    35,        36,          37,      38,        39, 40,      41, 42,       true
    };
}

static void sample_welcome(struct wire_rep *r)
{
    r->u.welcome.version = "1";
    r->u.welcome.model = "SmolLM2";
    r->u.welcome.model_digest = "xxh3:00";
    r->u.welcome.n_vocab = 49152;
    r->u.welcome.context_max = 8192;
    r->u.welcome.chat = true;
    r->u.welcome.segment_default = 512;
    r->u.welcome.outputs = r->u.welcome.several = true;
    r->u.welcome.realms = r->u.welcome.deadlines = true;
    r->u.welcome.tools = 2;
    r->u.welcome.keep_seconds = UINT32_MAX;
}

static void kept_rep(struct wire_rep *r)
{
    if (r->kind == WIRE_KEPT) {
        r->u.kept = (struct wire_kept){ token, sizeof(token), 18, 1ull << 37 };
    } else if (r->kind == WIRE_ATTACHED) {
        r->u.attached = (struct wire_attached){ 1, 2, 3, 4, 5, 6, UINT64_MAX, 7 };
    } else {
        r->u.resumed.first = UINT64_MAX;
        r->u.resumed.answers = UINT32_MAX;
    }
}

struct wire_rep sample_rep(enum wire_rep_kind kind)
{
    struct wire_rep r = { .id = 5, .bulk_len = 1ull << 35, .last = true, .kind = kind };

    switch (kind) {
    case WIRE_WELCOME:
        sample_welcome(&r);
        break;
    case WIRE_SESSION_OPENED:
        r.u.session_opened.session = 3;
        r.u.session_opened.context_max = 4;
        r.u.session_opened.usage = usage;
        break;
    case WIRE_APPENDED:
        r.u.appended.n_tokens = 100;
        r.u.appended.usage = usage;
        r.u.appended.n_read = 101;
        r.u.appended.n_all = UINT32_MAX;
        r.u.appended.n_found = 102;
        break;
    case WIRE_TEXT:
        r.u.text.n_tokens = 6;
        r.u.text.text = "na\xc3\xafve";
        r.u.text.tokens = ids;
        r.u.text.n_ids = 6;
        r.u.text.index = 18;
        break;
    case WIRE_DONE:
        r.u.done.reason = WIRE_REASON_POOL_FULL;
        r.u.done.usage = usage;
        r.u.done.index = UINT32_MAX;
        r.u.done.stop = 16;
        break;
    case WIRE_SCORE_ROWS:
        r.u.score_rows.first = 1;
        r.u.score_rows.n = 2;
        r.u.score_rows.n_vocab = 3;
        break;
    case WIRE_CHOSEN:
        r.u.chosen.n_tokens = ids;
        r.u.chosen.sums = sums;
        r.u.chosen.n = 3;
        r.u.chosen.best = 2;
        r.u.chosen.best_mean = 1;
        r.u.chosen.usage = usage;
        break;
    case WIRE_EMBEDDING:
        r.u.embedding.first = 1;
        r.u.embedding.n = 2;
        r.u.embedding.n_embd = 576;
        r.u.embedding.n_tokens = ids;
        r.u.embedding.usage = usage;
        break;
    case WIRE_TOKENS:
        r.u.tokens.n = 77;
        break;
    case WIRE_STATS:
        r.u.stats = full_stats();
        break;
    case WIRE_ERROR:
        r.u.error.code = WIRE_E_NO_MEMORY;
        r.u.error.text = "a sentence";
        r.u.error.had = 1;
        r.u.error.asked = 2;
        r.u.error.limit = 3;
        r.u.error.has_usage = true;
        r.u.error.usage = usage;
        break;
    case WIRE_CANCELLED:
        r.u.cancelled.found = true;
        break;
    case WIRE_SESSION_CLOSED:
        r.u.session_closed.n_tokens = 12;
        break;
    case WIRE_REWOUND:
        r.u.rewound.n_tokens = 13;
        break;
    case WIRE_CACHE_ROWS:
        r.u.cache_rows =
            (struct wire_cache_rows){ cache_rows, 2, 1, 2, 3, 4, 5, 6, 7, 1ull << 50, 9 };
        break;
    case WIRE_TRACED:
        r.u.traced = (struct wire_traced){ traces, 2 };
        break;
    case WIRE_SEGMENT_MAP:
        r.u.segment_map = (struct wire_segment_map){ segments, 3, 1, 4, 5, 6, 7, UINT32_MAX };
        break;
    case WIRE_LOADING:
        r.u.loading.percent = 99;
        break;
    case WIRE_KEPT:
    case WIRE_ATTACHED:
    case WIRE_RESUMED:
        kept_rep(&r);
        break;
    case WIRE_SAVED:
        r.u.saved.n_tokens = 14;
        r.u.saved.bytes = 1ull << 36;
        break;
    case WIRE_RESTORED:
        r.u.restored.session = 15;
        r.u.restored.context_max = 16;
        r.u.restored.n_tokens = 17;
        r.u.restored.usage = usage;
        break;
    case WIRE_LISTED:
        r.u.listed.rows = rows;
        r.u.listed.n_rows = 3;
        break;
    case WIRE_DOCUMENT_ADDED:
        r.u.document_added.n_tokens = 18;
        r.u.document_added.n_read = 19;
        r.u.document_added.usage = usage;
        r.u.document_added.kept = true;
        break;
    case WIRE_DELETED:
    case WIRE_PONG:
    case WIRE_REP__N:
        break;
    }
    return r;
}

/* --- comparing -------------------------------------------------------------------------------- */

static void same_named(struct wire_req *a, struct wire_req *b)
{
    if (a->kind == WIRE_SAVE) {
        assert_string_equal(a->u.save.name, b->u.save.name);
        a->u.save.name = b->u.save.name = NULL;
    } else if (a->kind == WIRE_RESTORE) {
        assert_string_equal(a->u.restore.name, b->u.restore.name);
        assert_string_equal(a->u.restore.label, b->u.restore.label);
        a->u.restore.name = b->u.restore.name = a->u.restore.label = b->u.restore.label = NULL;
    } else if (a->kind == WIRE_DELETE) {
        assert_string_equal(a->u.delete.name, b->u.delete.name);
        a->u.delete.name = b->u.delete.name = NULL;
    } else if (a->kind == WIRE_ADD_DOCUMENT) {
        assert_string_equal(a->u.add_document.name, b->u.add_document.name);
        assert_string_equal(a->u.add_document.role, b->u.add_document.role);
        assert_string_equal(a->u.add_document.memory.adapter, b->u.add_document.memory.adapter);
        a->u.add_document.name = b->u.add_document.name = NULL;
        a->u.add_document.role = b->u.add_document.role = NULL;
        a->u.add_document.memory.adapter = b->u.add_document.memory.adapter = NULL;
    }
}

static void same_attach(struct wire_attach *a, struct wire_attach *b)
{
    assert_string_equal(a->realm, b->realm);
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->token, b->token, a->n);
    a->realm = b->realm = NULL;
    a->token = b->token = NULL;
}

void sample_same_req(const struct wire_req *a, const struct wire_req *b)
{
    struct wire_req x = *a, y = *b;

    /* Pointers by what they point to, all else by its bytes. */
    if (a->kind == WIRE_HELLO) {
        assert_string_equal(a->u.hello.client, b->u.hello.client);
        x.u.hello.client = y.u.hello.client = NULL;
    } else if (a->kind == WIRE_OPEN_SESSION) {
        assert_string_equal(a->u.open_session.label, b->u.open_session.label);
        x.u.open_session.label = y.u.open_session.label = NULL;
        assert_string_equal(a->u.open_session.realm, b->u.open_session.realm);
        x.u.open_session.realm = y.u.open_session.realm = NULL;
        assert_string_equal(a->u.open_session.memory.adapter, b->u.open_session.memory.adapter);
        x.u.open_session.memory.adapter = y.u.open_session.memory.adapter = NULL;
        assert_int_equal(a->u.open_session.n_documents, b->u.open_session.n_documents);
        for (uint32_t i = 0; i < a->u.open_session.n_documents; i++)
            assert_string_equal(a->u.open_session.documents[i], b->u.open_session.documents[i]);
        x.u.open_session.documents = y.u.open_session.documents = NULL;
    } else if (a->kind == WIRE_APPEND) {
        assert_int_equal(a->u.append.n_messages, b->u.append.n_messages);
        for (uint32_t i = 0; i < a->u.append.n_messages; i++) {
            assert_string_equal(a->u.append.messages[i].role, b->u.append.messages[i].role);
            assert_int_equal(a->u.append.messages[i].text_len, b->u.append.messages[i].text_len);
        }
        x.u.append.messages = y.u.append.messages = NULL;
    } else if (a->kind == WIRE_ATTACH) {
        same_attach(&x.u.attach, &y.u.attach);
    } else if (a->kind == WIRE_GENERATE) {
        assert_int_equal(a->u.generate.n_stops, b->u.generate.n_stops);
        for (uint32_t i = 0; i < a->u.generate.n_stops; i++)
            assert_string_equal(a->u.generate.stops[i], b->u.generate.stops[i]);
        x.u.generate.stops = y.u.generate.stops = NULL;
    } else if (a->kind == WIRE_SCORE_CHOICES) {
        assert_int_equal(a->u.score_choices.n, b->u.score_choices.n);
        assert_memory_equal(a->u.score_choices.lens, b->u.score_choices.lens,
                            a->u.score_choices.n * sizeof(uint64_t));
        x.u.score_choices.lens = y.u.score_choices.lens = NULL;
    } else if (a->kind == WIRE_EMBED) {
        assert_int_equal(a->u.embed.n, b->u.embed.n);
        assert_memory_equal(a->u.embed.lens, b->u.embed.lens, a->u.embed.n * sizeof(uint64_t));
        x.u.embed.lens = y.u.embed.lens = NULL;
    } else if (a->kind == WIRE_FORK) {
        assert_string_equal(a->u.fork.label, b->u.fork.label);
        x.u.fork.label = y.u.fork.label = NULL;
    } else {
        same_named(&x, &y);
    }
    assert_memory_equal(&x, &y, sizeof(x));
}

static void same_store(const struct wire_stats_store *a, const struct wire_stats_store *b)
{
    assert_int_equal(a->bytes, b->bytes);
    assert_int_equal(a->limit, b->limit);
    assert_int_equal(a->records, b->records);
    assert_int_equal(a->names, b->names);
    assert_int_equal(a->written, b->written);
    assert_int_equal(a->written_today, b->written_today);
    assert_int_equal(a->write_a_day, b->write_a_day);
    assert_int_equal(a->puts, b->puts);
    assert_int_equal(a->gets, b->gets);
    assert_int_equal(a->hits, b->hits);
    assert_int_equal(a->misses, b->misses);
    assert_int_equal(a->refused, b->refused);
    assert_int_equal(a->evicted, b->evicted);
    assert_int_equal(a->expired, b->expired);
    assert_int_equal(a->read_bytes, b->read_bytes);
    assert_int_equal(a->read_ns, b->read_ns);
    assert_int_equal(a->pinned_pages, b->pinned_pages);
    assert_int_equal(a->pending, b->pending);
    assert_int_equal(a->restored_tokens, b->restored_tokens);
    assert_int_equal(a->computed_instead, b->computed_instead);
    assert_int_equal(a->forgotten, b->forgotten);
    assert_int_equal(a->ns_per_token, b->ns_per_token);
    assert_int_equal(a->degraded_s, b->degraded_s);
    assert_string_equal(a->degraded, b->degraded);
    assert_string_equal(a->io, b->io);
}

/* Field by field: what lies between them is anything. */
static void same_owner(const struct wire_stats_owner *a, const struct wire_stats_owner *b)
{
    assert_int_equal(a->uid, b->uid);
    assert_int_equal(a->clients, b->clients);
    assert_int_equal(a->sessions, b->sessions);
    assert_int_equal(a->pages, b->pages);
    assert_int_equal(a->gist_pages, b->gist_pages);
    assert_int_equal(a->held_pages, b->held_pages);
    assert_int_equal(a->held_pages_max, b->held_pages_max);
    assert_int_equal(a->clients_max, b->clients_max);
    assert_int_equal(a->sessions_max, b->sessions_max);
    assert_int_equal(a->text_bytes, b->text_bytes);
    assert_int_equal(a->text_bytes_max, b->text_bytes_max);
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->store_bytes, b->store_bytes);
    assert_int_equal(a->store_bytes_max, b->store_bytes_max);
}

static void same_stats(const struct wire_stats *a, const struct wire_stats *b)
{
    struct wire_stats x = *a, y = *b;

    assert_string_equal(a->version, b->version);
    assert_string_equal(a->model, b->model);
    assert_string_equal(a->model_digest, b->model_digest);
    assert_string_equal(a->cpu, b->cpu);
    assert_int_equal(a->n_client, b->n_client);
    assert_int_equal(a->n_session, b->n_session);
    for (uint32_t i = 0; i < a->n_client; i++) {
        assert_string_equal(a->client[i].name, b->client[i].name);
        assert_int_equal(a->client[i].id, b->client[i].id);
        assert_int_equal(a->client[i].pid, b->client[i].pid);
        assert_int_equal(a->client[i].uid, b->client[i].uid);
        assert_int_equal(a->client[i].sessions, b->client[i].sessions);
        assert_int_equal(a->client[i].pages, b->client[i].pages);
        assert_string_equal(a->client[i].unit, b->client[i].unit);
    }
    for (uint32_t i = 0; i < a->n_session; i++) {
        assert_string_equal(a->session[i].label, b->session[i].label);
        assert_int_equal(a->session[i].id, b->session[i].id);
        assert_int_equal(a->session[i].client, b->session[i].client);
        assert_int_equal(a->session[i].n_tokens, b->session[i].n_tokens);
        assert_int_equal(a->session[i].pages, b->session[i].pages);
        assert_int_equal(a->session[i].segment, b->session[i].segment);
        assert_int_equal(a->session[i].busy, b->session[i].busy);
        assert_int_equal(a->session[i].gist_pages, b->session[i].gist_pages);
        assert_string_equal(a->session[i].doing, b->session[i].doing);
        assert_int_equal(a->session[i].request, b->session[i].request);
        assert_int_equal(a->session[i].generated_tokens, b->session[i].generated_tokens);
        assert_int_equal(a->session[i].uid, b->session[i].uid);
        assert_int_equal(a->session[i].kept_s, b->session[i].kept_s);
        assert_int_equal(a->session[i].left_s, b->session[i].left_s);
        assert_string_equal(a->session[i].unit, b->session[i].unit);
    }
    x.version = y.version = x.model = y.model = x.model_digest = y.model_digest = NULL;
    assert_string_equal(a->adapters, b->adapters);
    assert_string_equal(a->store_off, b->store_off);
    assert_string_equal(a->weights_from, b->weights_from);
    x.weights_from = y.weights_from = NULL;
    x.cpu = y.cpu = x.adapters = y.adapters = x.store_off = y.store_off = NULL;
    x.client = y.client = NULL;
    x.session = y.session = NULL;
    assert_int_equal(a->n_owner, b->n_owner);
    for (uint32_t i = 0; i < a->n_owner; i++)
        same_owner(&a->owner[i], &b->owner[i]);
    x.owner = y.owner = NULL;
    same_store(a->store, b->store);
    x.store = y.store = NULL;
    assert_memory_equal(&x, &y, sizeof(x));
}

static void same_trace(const struct wire_trace_row *a, const struct wire_trace_row *b)
{
    struct wire_trace_row x = *a, y = *b;

    assert_string_equal(a->what, b->what);
    assert_string_equal(a->client, b->client);
    assert_string_equal(a->ended, b->ended);
    x.what = x.client = x.ended = y.what = y.client = y.ended = NULL;
    assert_memory_equal(&x, &y, sizeof(x));
}

static void same_row(const struct wire_cache_row *a, const struct wire_cache_row *b)
{
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->bytes, b->bytes);
    assert_int_equal(a->used_s, b->used_s);
    assert_int_equal(a->cost_ns, b->cost_ns);
    assert_int_equal(a->tokens, b->tokens);
    assert_int_equal(a->keys, b->keys);
    assert_int_equal(a->depth, b->depth);
    assert_int_equal(a->packed, b->packed);
}

static void same_segment(const struct wire_segment *a, const struct wire_segment *b)
{
    assert_int_equal(a->state, b->state);
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_int_equal(a->n_keys, b->n_keys);
    assert_int_equal(a->ratio, b->ratio);
    assert_int_equal(a->stored, b->stored);
}

static void same_rows(const struct wire_row *a, const struct wire_row *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        assert_string_equal(a[i].name, b[i].name);
        assert_string_equal(a[i].label, b[i].label);
        assert_string_equal(a[i].model, b[i].model);
        assert_int_equal(a[i].state, b[i].state);
        assert_int_equal(a[i].n_tokens, b[i].n_tokens);
        assert_int_equal(a[i].n_read, b[i].n_read);
        assert_int_equal(a[i].pinned, b[i].pinned);
        assert_int_equal(a[i].kept, b[i].kept);
        assert_int_equal(a[i].at_s, b[i].at_s);
        assert_int_equal(a[i].bytes, b[i].bytes);
    }
}

static void same_texts(struct wire_rep *a, struct wire_rep *b)
{
    if (a->kind == WIRE_CHOSEN) {
        assert_int_equal(a->u.chosen.n, b->u.chosen.n);
        assert_memory_equal(a->u.chosen.n_tokens, b->u.chosen.n_tokens,
                            a->u.chosen.n * sizeof(uint32_t));
        assert_memory_equal(a->u.chosen.sums, b->u.chosen.sums, a->u.chosen.n * sizeof(double));
        a->u.chosen.n_tokens = b->u.chosen.n_tokens = NULL;
        a->u.chosen.sums = b->u.chosen.sums = NULL;
    } else {
        assert_int_equal(a->u.embedding.n, b->u.embedding.n);
        assert_memory_equal(a->u.embedding.n_tokens, b->u.embedding.n_tokens,
                            a->u.embedding.n * sizeof(uint32_t));
        a->u.embedding.n_tokens = b->u.embedding.n_tokens = NULL;
    }
}

void sample_same_rep(const struct wire_rep *a, const struct wire_rep *b)
{
    struct wire_rep x = *a, y = *b;

    if (a->kind == WIRE_LISTED) {
        assert_int_equal(a->u.listed.n_rows, b->u.listed.n_rows);
        same_rows(a->u.listed.rows, b->u.listed.rows, a->u.listed.n_rows);
        x.u.listed.rows = y.u.listed.rows = NULL;
    } else if (a->kind == WIRE_STATS) {
        same_stats(&a->u.stats, &b->u.stats);
        x.u.stats = y.u.stats = (struct wire_stats){ 0 };
    } else if (a->kind == WIRE_WELCOME) {
        assert_string_equal(a->u.welcome.version, b->u.welcome.version);
        assert_string_equal(a->u.welcome.model, b->u.welcome.model);
        assert_string_equal(a->u.welcome.model_digest, b->u.welcome.model_digest);
        x.u.welcome.version = y.u.welcome.version = NULL;
        x.u.welcome.model = y.u.welcome.model = NULL;
        x.u.welcome.model_digest = y.u.welcome.model_digest = NULL;
    } else if (a->kind == WIRE_TEXT) {
        assert_string_equal(a->u.text.text, b->u.text.text);
        assert_int_equal(a->u.text.n_ids, b->u.text.n_ids);
        assert_memory_equal(a->u.text.tokens, b->u.text.tokens, a->u.text.n_ids * sizeof(ids[0]));
        x.u.text.text = y.u.text.text = NULL;
        x.u.text.tokens = y.u.text.tokens = NULL;
    } else if (a->kind == WIRE_KEPT) {
        assert_int_equal(a->u.kept.n, b->u.kept.n);
        assert_memory_equal(a->u.kept.token, b->u.kept.token, a->u.kept.n);
        x.u.kept.token = y.u.kept.token = NULL;
    } else if (a->kind == WIRE_CHOSEN || a->kind == WIRE_EMBEDDING) {
        same_texts(&x, &y);
    } else if (a->kind == WIRE_ERROR) {
        assert_string_equal(a->u.error.text, b->u.error.text);
        x.u.error.text = y.u.error.text = NULL;
    } else if (a->kind == WIRE_TRACED) {
        assert_int_equal(a->u.traced.n_row, b->u.traced.n_row);
        for (uint32_t i = 0; i < a->u.traced.n_row; i++)
            same_trace(&a->u.traced.row[i], &b->u.traced.row[i]);
        x.u.traced.row = y.u.traced.row = NULL;
    } else if (a->kind == WIRE_SEGMENT_MAP) {
        assert_int_equal(a->u.segment_map.n_row, b->u.segment_map.n_row);
        for (uint32_t i = 0; i < a->u.segment_map.n_row; i++)
            same_segment(&a->u.segment_map.row[i], &b->u.segment_map.row[i]);
        x.u.segment_map.row = y.u.segment_map.row = NULL;
    } else if (a->kind == WIRE_CACHE_ROWS) {
        assert_int_equal(a->u.cache_rows.n_row, b->u.cache_rows.n_row);
        for (uint32_t i = 0; i < a->u.cache_rows.n_row; i++)
            same_row(&a->u.cache_rows.row[i], &b->u.cache_rows.row[i]);
        x.u.cache_rows.row = y.u.cache_rows.row = NULL;
    }
    assert_memory_equal(&x, &y, sizeof(x));
}
