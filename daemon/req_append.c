/* daemon/req_append.c - Append: text, ids or chat messages into a session.
 *
 * Encoded in slices, checked against the context and the pool, and only then read, chunk by chunk.
 * An append that fails or is cancelled leaves the session as it was.
 */

#include "daemon/append.h"
#include "daemon/kept.h"
#include "daemon/part.h"
#include "daemon/prompt.h"
#include "daemon/ranking.h"

#include "base/clock.h"
#include "daemon/reply.h"
#include "daemon/room.h"
#include "daemon/sched.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of bulk that can't be too much yet: tokens of more than 32 bytes are rare. What is longer
 * is refused before it is encoded. */
#define BULK_MAX(context) (32 * (size_t)(context) + 65536)

struct append {
    struct encode encode; /* ids: the session's pending token, if any, comes first */
    uint32_t had;         /* tokens of the session before, session_len */
    uint32_t n_ids;       /* of its memory before */
    bool ready;           /* all ids are known, and fit: it begins as soon as it may */
    struct follow_reader reader;
    bool reading;                 /* undo takes the session back only from here on */
    uint32_t done;                /* ids that were read */
    uint32_t shared;              /* of them by others before */
    uint32_t restored;            /* of them came from the disk */
    uint32_t gave_way;            /* for others, at so many ids and one; 0: never */
    struct tier_restore *restore; /* under way; NULL: none */
    uint32_t n_turn;              /* the last so many ids ask something; 0: that is not known */
    uint32_t n_prompt;            /* n_turn, if that may bring segments back; else 0 */
    bool hydrated;                /* that is done */
    struct hydrate_job *hydrate;  /* under way; NULL: none */
    struct ranking ranking;       /* of what is packed, for the prompt */
    bool fetched; /* what the prompt may point to, while the text before it is read */
    bool special, open_answer;
    enum chat_at chat_after;
    append_done_fn *done_fn;   /* NULL: the reply is Appended */
    bool tells;                /* how far it is, */
    bool told_reading;         /* has told since it does not wait for others */
    uint32_t n_told;           /* and has last told this */
    uint64_t ready_ns;         /* since when */
    struct trace_times *times; /* the request's */
};

/* --- start ------------------------------------------------------------------------------------ */

/* Nothing is answered here. What is false here start() refuses, and says why. */
static bool append_takes_bulk(const struct sched *s, const struct request *r,
                              const struct wire_req *m)
{
    const struct session *x = client_find_session(r->client, m->u.append.session);

    (void)s;
    return x && !x->closing && !x->busy && !kept_claimed(x) &&
           r->parts->len + m->bulk_len <= BULK_MAX(x->seq.max_tokens);
}

static bool bulk_fits(struct sched *s, struct request *r, const struct wire_req *m)
{
    uint32_t had = session_len(r->session), limit = r->session->seq.max_tokens;
    uint64_t len = r->parts->len + m->bulk_len;
    bool ids = m->u.append.kind == WIRE_APPEND_TOKENS;

    if (len <= BULK_MAX(limit))
        return true;
    request_fail(s, r, WIRE_E_CONTEXT_LENGTH_EXCEEDED,
                 (struct request_numbers){ had, len / (ids ? 4 : 32), limit },
                 "context_length_exceeded: %s %" PRIu64
                 " bytes, which cannot fit: the session has %u tokens of at most %u",
                 ids ? "these ids have" : "this text has", len, had, limit);
    return false;
}

/* Plain text breaks into a conversation: what follows is a turn of its own, not the beginning with
 * its system message. */
static int add_text(struct append *a, const struct wire_req *m, struct encode_text *parts)
{
    a->special = m->u.append.special;
    if (a->chat_after == CHAT_AT_START)
        a->chat_after = CHAT_AT_NEXT;
    return encode_take_text(&a->encode, parts, a->special);
}

/* 0 also where it was answered: the request is in its last phase then. */
static int add_tokens(struct sched *s, struct request *r, struct append *a,
                      struct encode_text *parts)
{
    struct encode *en = &a->encode;
    size_t first = en->n_ids;
    int e;

    if (!request_whole_ids(s, r, parts->len))
        return 0;
    e = encode_ids(en, parts->s, parts->len / 4);
    encode_text_fini(parts);
    if (e < 0)
        return e;
    if (!request_known_ids(s, r, en->ids + first, en->n_ids - first))
        return 0;
    if (a->chat_after == CHAT_AT_START)
        a->chat_after = CHAT_AT_NEXT;
    return 0;
}

static int emit_piece(void *arg, const struct chat_piece *p)
{
    struct append *a = arg;

    return encode_add(&a->encode, p->text, p->len, p->special);
}

/* The messages' texts lie one after the other. -EBADMSG: they don't fill it. */
static int split_messages(const struct wire_req *m, const struct encode_text *texts,
                          struct chat_message *ret)
{
    const char *s = texts->s ? texts->s : "";
    uint64_t off = 0;

    for (uint32_t i = 0; i < m->u.append.n_messages; i++) {
        uint64_t len = m->u.append.messages[i].text_len;

        if (len > texts->len - off)
            return -EBADMSG;
        ret[i] = (struct chat_message){ m->u.append.messages[i].role, s + off, len };
        off += len;
    }
    return off == texts->len ? 0 : -EBADMSG;
}

static int render(struct sched *s, struct append *a, const struct wire_req *m,
                  const struct encode_text *texts)
{
    uint32_t n = m->u.append.n_messages;
    struct chat_message *msgs = calloc(n + 1, sizeof(*msgs));
    int e = msgs ? split_messages(m, texts, msgs) : -ENOMEM;

    if (e == 0)
        e = chat_render(s->served.chat, msgs, n, a->chat_after, m->u.append.open_answer, emit_piece,
                        a);
    free(msgs);
    return e;
}

static int add_chat(struct sched *s, struct request *r, struct append *a, const struct wire_req *m,
                    struct encode_text *parts)
{
    size_t len = parts->len;
    int e;

    if (!s->served.chat) {
        request_fail(s, r, WIRE_E_UNSUPPORTED, REQUEST_NO_NUMBERS,
                     "%.300s; send plain text instead", s->served.chat_why.text);
        return 0;
    }
    a->open_answer = m->u.append.open_answer;
    e = render(s, a, m, parts);
    encode_text_fini(parts);
    a->chat_after = m->u.append.open_answer ? CHAT_AT_OPEN_TURN : CHAT_AT_NEXT;
    if (e == -EINVAL)
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "a message has a role that this model's chat template does not know; use "
                     "system, user or assistant");
    else if (e == -EPROTO)
        request_fail(
            s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
            "messages of tools are not what they should be: \"tools\" is the first message "
            "of a conversation and has a line of JSON for each, \"calls\" has lines of a "
            "name, a space and JSON");
    else if (e == -ENODATA)
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "this model's chat template can't begin a conversation without a message");
    else if (e == -EBADMSG)
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "the lengths of the messages do not add up to the %zu bytes of text", len);
    else
        return e;
    return 0;
}

/* What stands before the new text: a pending token that the model has not read yet, and the begin
 * of text of a model that wants one. */
static int add_before(struct sched *s, struct request *r, struct append *a,
                      const struct wire_req *m)
{
    const struct vocab *v = s->served.vocab;
    const struct session *session = r->session;

    if (session->has_pending)
        return encode_id(&a->encode, session->pending);
    if (a->had == 0 && m->u.append.kind == WIRE_APPEND_TEXT && vocab_add_bos(v) &&
        vocab_bos(v) != VOCAB_NONE)
        return encode_id(&a->encode, vocab_bos(v));
    return 0;
}

static int begin_append(struct sched *s, struct request *r, append_done_fn *done)
{
    struct append *a = calloc(1, sizeof(*a));
    int e;

    r->state = a;
    if (!a)
        return -ENOMEM;
    a->done_fn = done;
    a->times = &r->times;
    a->had = session_len(r->session);
    a->chat_after = r->session->chat_at;
    r->session->parts_ranked = 0; /* the next part is another text's */
    /* One more than can fit: enough to know that it doesn't. */
    e = encode_init(&a->encode, &r->client->held, s->served.vocab, r->session->seq.max_tokens + 1u);
    return e < 0 ? e : session_take_row(r->session, s->served.model->n_vocab);
}

int append_take_ids(struct sched *s, struct request *r, const uint32_t *ids, size_t n,
                    enum chat_at after, append_done_fn *done)
{
    int e = begin_append(s, r, done);
    struct append *a = r->state;

    if (e < 0)
        return e;
    a->chat_after = after;
    return request_known_ids(s, r, ids, n) ? encode_ids(&a->encode, ids, n) : 0;
}

int append_take(struct sched *s, struct request *r, const struct wire_req *m, append_done_fn *done)
{
    struct encode_text *parts = r->parts;
    int e = begin_append(s, r, done);
    struct append *a = r->state;

    if (e == 0)
        e = add_before(s, r, a, m);
    if (e < 0)
        return e;
    switch (m->u.append.kind) {
    case WIRE_APPEND_TOKENS:
        return add_tokens(s, r, a, parts);
    case WIRE_APPEND_CHAT:
        return add_chat(s, r, a, m, parts);
    case WIRE_APPEND_TEXT:
        break;
    }
    return add_text(a, m, parts);
}

static void count(struct request *r)
{
    r->usage.prompt_tokens = session_len(r->session);
    memory_account(&r->session->memory, &r->usage);
}

static void set_last(struct request *r)
{
    r->last = (struct wire_rep){ .kind = WIRE_APPENDED };
    r->last.u.appended.n_tokens = session_count(r->session);
    r->last.u.appended.usage = r->usage;
}

static void finish(struct sched *s, struct request *r)
{
    const struct append *a = r->state;

    if (!r->session->row_valid) /* nothing was read */
        session_drop_row(r->session);
    count(r);
    if (a && a->done_fn) {
        a->done_fn(s, r);
        return;
    }
    set_last(r);
    request_finish(s, r);
}

static int append_start(struct sched *s, struct request *r, const struct wire_req *m,
                        const uint8_t *bulk)
{
    int e;

    if (!request_take_session(s, r, m->u.append.session) || !bulk_fits(s, r, m))
        return 0;
    e = encode_text_add(r->parts, bulk, m->bulk_len);
    if (e == 0 && !m->u.append.more) {
        e = append_take(s, r, m, NULL);
        if (r->state)
            ((struct append *)r->state)->tells = m->u.append.progress;
        return e;
    }
    if (e == 0 && part_wants(r, m)) {
        count(r);
        set_last(r); /* kept for the end of that */
        return part_start(r);
    }
    if (e == 0)
        finish(s, r);
    return e;
}

/* --- work: encode, then take pages ------------------------------------------------------------ */

/* A text that begins with the begin of text itself does not get a second one. */
static void drop_second_bos(struct sched *s, struct append *a)
{
    struct encode *e = &a->encode;
    uint32_t bos = vocab_bos(s->served.vocab);

    if (a->had > 0 || !a->special || !vocab_add_bos(s->served.vocab) || e->n_ids < 2 ||
        e->ids[0] != bos || e->ids[1] != bos)
        return;
    memmove(e->ids, e->ids + 1, --e->n_ids * sizeof(*e->ids));
    e->n_total--;
}

/* Before anything is read: an append happens as a whole or not at all, and to find out in the
 * middle would cost the time of what was read, and a rewind. */
static bool fits_context(struct sched *s, struct request *r, uint32_t had, uint64_t n_new)
{
    const struct seq *q = &r->session->seq;
    uint32_t budget = r->memory->policy.budget;
    uint64_t keys, now;

    memory_peak(r->memory, 0, &now, NULL);
    memory_peak(r->memory, n_new + r->session->has_pending, &keys, NULL);
    if (had + n_new <= q->max_tokens && keys <= budget)
        return true;
    if (had + n_new > q->max_tokens || compress_keeps_all(&r->memory->policy.spec))
        request_fail(s, r, WIRE_E_CONTEXT_LENGTH_EXCEEDED,
                     (struct request_numbers){ had, n_new, q->max_tokens },
                     "context_length_exceeded: the session has %u tokens and %" PRIu64
                     " more were asked for; the limit is %u%s",
                     had, n_new, q->max_tokens,
                     compress_keeps_all(&r->memory->policy.spec)
                         ? policy_longer(&r->memory->policy, s->served.context_max)
                         : "");
    else
        request_fail(s, r, WIRE_E_CONTEXT_LENGTH_EXCEEDED,
                     (struct request_numbers){ now, keys - now, budget },
                     "context_length_exceeded: the session has %u tokens and %" PRIu64
                     " more were asked for; compressed they take %" PRIu64 " keys, but the "
                     "session's budget is %u%s",
                     had, n_new, keys, budget,
                     policy_longer(&r->memory->policy, s->served.context_max));
    return false;
}

/* Pages beyond its own that the session takes at most while it reads n ids more. */
static uint64_t more_pages(const struct request *r, uint64_t n)
{
    uint64_t pages, had = r->session->seq.n_pages;

    memory_peak(r->memory, n, NULL, &pages);
    return pages > had ? pages - had : 0;
}

/* What has come back finds too few pages beside others of its user that are at work: it waits for
 * them, and keeps nothing from them. Nobody follows it from here on: they might be those. */
static bool goes_again(struct sched *s, struct request *r, uint64_t more)
{
    if (!room_to_go(s, r, more))
        return false;
    if (r->reader)
        follow_leave(&s->follow, r->reader);
    r->reader = NULL;
    s->room_made = true;
    return true;
}

/* Whether there are pages for n ids more, as far as can be known: what others take in the meantime
 * may still be in the way of a session that gives and takes pages while it reads. True: it goes on.
 * False: it waits, or was failed, which its phase says. */
static bool fits_pool(struct sched *s, struct request *r, uint32_t n)
{
    const struct pool_account *a = r->session->seq.account;
    struct owner *owner = r->client->owner;
    uint64_t more = more_pages(r, n);

    if (room_has(s, r, a, more)) {
        owner_served(owner);
        return true;
    }
    if (room_comes(s, r, a, more) || goes_again(s, r, more))
        return false;
    if (more <= pool_room_shared(a)) /* nothing but what others have stands against it */
        owner_refused(owner, more, clock_ns());
    request_fail_pages(s, r, a, more, "reading %u more tokens", n);
    return false;
}

/* Pages for n ids more and the first part of an answer behind them. Those that are only being
 * written to the disk will be there. */
static bool finds_pages(struct sched *s, const struct request *r, uint64_t n)
{
    const struct seq *q = &r->session->seq;
    uint64_t more = more_pages(r, n + q->seg_len);

    return room_has(s, r, q->account, more) || room_comes(s, r, q->account, more);
}

/* An automatic memory holds as much as there are pages for. That is decided here, where it is known
 * what is to be read, and before anything of it is. */
static void fit_budget(struct sched *s, struct request *r, uint64_t n_new)
{
    while (r->memory->policy.automatic && !finds_pages(s, r, n_new) && memory_lower(r->memory))
        ;
}

/* What asks: a short append, or the end of one that opens an answer, a long text with a question
 * behind it. Whether plain text that is long asks is not known before it is to be answered
 * (session_ask). */
static uint32_t turn_of(const struct sched *s, const struct append *a, const struct memory *m)
{
    uint32_t n = (uint32_t)a->encode.n_ids;

    if (n < m->policy.seg_len)
        return n;
    return a->open_answer ? prompt_len(s->served.vocab, a->encode.ids, n) : 0;
}

/* Behind nothing there is nothing to bring back. */
static void begin_turn(const struct sched *s, struct append *a, struct memory *m)
{
    uint32_t n = m->n_ids + (uint32_t)a->encode.n_ids;

    a->n_turn = turn_of(s, a, m);
    a->n_prompt = m->hydrate > 0 && n > m->policy.seg_len ? a->n_turn : 0;
    memory_turn(m, n - a->n_turn, n);
}

/* In this order: who gives pages back first, then how much may be kept, then whether that is
 * enough. From follow_join on others may wait for what it reads. */
static void prepare(struct sched *s, struct request *r, struct append *a)
{
    uint64_t n_new;

    drop_second_bos(s, a);
    n_new = a->encode.n_total - r->session->has_pending;
    if (n_new == 0) {
        finish(s, r);
        return;
    }
    /* What the last prompt brought back goes: it would be in the way of the next. */
    hydrate_end(r->memory);
    (void)room_make(s, r, r->session->seq.account, more_pages(r, n_new));
    fit_budget(s, r, n_new);
    if (!fits_context(s, r, a->had, n_new))
        return;
    begin_turn(s, a, r->memory);
    a->ready = true;
    a->ready_ns = clock_ns();
    a->n_ids = r->memory->n_ids;
    a->reader = (struct follow_reader){ .memory = r->memory,
                                        .ids = a->encode.ids,
                                        .n_had = a->n_ids,
                                        .n = (uint32_t)a->encode.n_ids,
                                        .priority = r->priority };
    r->reader = &a->reader;
    follow_join(&s->follow, r->reader);
}

/* What is known of an empty session's ids: in memory, else on the disk. False: it waits, for who
 * reads them just now or for the disk. */
static bool take_over(struct sched *s, struct append *a, struct memory *m)
{
    /* The prompt is to be read behind what it brings back, whoever has read it before. */
    uint32_t n = (uint32_t)a->encode.n_ids - (a->n_prompt ? a->n_prompt - 1 : 0);

    if (!a->reading) {
        if (m->n_ids == 0 && follow_waits(&s->follow, &a->reader))
            return false;
        /* From here on the session changes: what an undo goes back to. */
        a->reading = true;
        if (m->n_ids == 0) {
            a->shared = memory_adopt(m, a->encode.ids, n);
            a->restore = tier_restore_begin(&m->kept, a->encode.ids, n);
        }
        a->done = a->shared;
    }
    if (!a->restore)
        return true;
    a->reader.restoring = true; /* who follows it may go on doing so */
    trace_waits(a->times);
    if (tier_restore_go(a->restore, &a->shared) == -EAGAIN)
        return false;
    trace_waited(a->times, &a->times->restore);
    a->restore = NULL;
    a->reader.restoring = false;
    a->restored = m->n_ids - a->shared;
    a->done = m->n_ids;
    return true;
}

/* False: it waits, as long as take_over does or for pages that are being written to the disk. */
static bool begin(struct sched *s, struct request *r, struct append *a)
{
    struct memory *m = r->memory;
    struct seq *q = &r->session->seq;
    uint32_t n;

    if (!take_over(s, a, m))
        return false;
    n = (uint32_t)a->encode.n_ids - a->done;
    if (!fits_pool(s, r, n))
        return r->phase != REQUEST_WORK;
    r->phase = REQUEST_RUN;
    /* Pages of a context that stays whole are taken now, others as they are wanted. */
    if (memory_room(m) >= n && seq_reserve(q, n) < 0)
        request_fail_pages(s, r, q->account, seq_wants(q, n), "reading %u more tokens", n);
    return true;
}

bool append_work(struct sched *s, struct request *r)
{
    struct append *a = r->state;
    int e;

    if (r->ranking) {
        (void)ranking_go(s, r, &a->ranking);
        return true;
    }
    e = a->ready ? 1 : encode_step(&a->encode);

    if (e < 0)
        request_fail_memory(s, r, e);
    else if (e == 1 && !a->ready)
        prepare(s, r, a);
    return a->ready ? begin(s, r, a) : true;
}

struct append_progress append_progress(const struct request *r)
{
    const struct append *a = r->state;

    if (!a || !a->ready)
        return (struct append_progress){ .ids = NULL };
    return (struct append_progress){ a->encode.ids, (uint32_t)a->encode.n_ids, a->done,
                                     a->chat_after };
}

/* --- reading ---------------------------------------------------------------------------------- */

static uint32_t append_left(const struct request *r)
{
    const struct append *a = r->state;

    return (uint32_t)a->encode.n_ids - a->done;
}

/* So many of the last ids may be a question. */
static uint32_t asks(const struct sched *s, const struct append *a)
{
    return prompt_len(s->served.vocab, a->encode.ids, (uint32_t)a->encode.n_ids);
}

/* The last n ids point to what is packed: that is ranked. False: not yet. */
static bool ranks(struct sched *s, struct request *r, uint32_t n)
{
    struct append *a = r->state;

    return ranking_ready(s, r, &a->ranking, r->memory, a->encode.ids + a->encode.n_ids - n, n);
}

/* What the prompt is likely to point to comes from the disk while the text before it is read.
 * False: it is being ranked. */
static bool fetch(struct sched *s, struct request *r)
{
    struct append *a = r->state;

    if (a->n_prompt == 0 || !hydrate_may_fetch(r->memory))
        a->fetched = true;
    if (a->fetched)
        return true;
    if (!ranks(s, r, a->n_prompt))
        return false;
    a->fetched = true;
    hydrate_fetch(r->memory, a->ranking.job);
    return true;
}

/* Before the prompt: what it points to comes back. False: that is under way. */
static bool hydrate(struct sched *s, struct request *r)
{
    struct append *a = r->state;
    struct memory *m = r->memory;
    uint32_t n = (uint32_t)a->encode.n_ids;

    if (!a->hydrated && hydrate_can(m) && !ranks(s, r, a->n_prompt)) {
        trace_waits(a->times);
        return false;
    }
    if (!a->hydrated) {
        a->hydrated = true;
        a->hydrate = hydrate_begin(m, a->encode.ids + n - a->n_prompt, a->n_prompt, n - a->done,
                                   a->ranking.job);
    }
    if (a->hydrate)
        trace_waits(a->times);
    if (a->hydrate && hydrate_go(a->hydrate) == -EAGAIN)
        return false;
    trace_waited(a->times, &a->times->hydrate);
    a->hydrate = NULL;
    return true;
}

/* How many of the ids come next. 0: not yet. */
static uint32_t next_ids(struct sched *s, struct request *r)
{
    const struct append *a = r->state;
    uint32_t left = append_left(r);

    if (left > a->n_prompt)
        return fetch(s, r) ? left - a->n_prompt : 0;
    return a->n_prompt == 0 || hydrate(s, r) ? left : 0;
}

/* The last ids of a text that is not known to ask, but may: before they are read what they point to
 * is ranked, so that it can come at once when they are (append_rows). False: not yet. */
static bool guesses(struct sched *s, struct request *r)
{
    const struct append *a = r->state;
    uint32_t n = a->n_turn ? 0 : asks(s, a);

    return n == 0 || !hydrate_may_fetch(r->memory) || ranks(s, r, n);
}

/* Once for what comes next: who comes back to no more pages than it had fails. */
static bool gives_way(struct sched *s, struct request *r, uint32_t n)
{
    struct append *a = r->state;

    if (a->gave_way == a->done + 1 || !room_gives_way(s, r, n))
        return false;
    a->gave_way = a->done + 1;
    return true;
}

bool append_plan(struct sched *s, struct request *r, uint32_t max, struct forward_run *ret)
{
    struct append *a = r->state;
    uint32_t left = append_left(r), next, n;

    if (r->cancelled)
        return false;
    next = next_ids(s, r);
    if (next == 0 || !request_room(s, r, &max) || (max >= left && next == left && !guesses(s, r)))
        return false;
    *ret = (struct forward_run){ .seq = &r->session->seq,
                                 .tokens = a->encode.ids + a->done,
                                 .n_tokens = next < max ? next : max };
    ret->want = ret->n_tokens == left ? FORWARD_WANT_LAST : FORWARD_WANT_NONE;
    if (seq_reserve(ret->seq, ret->n_tokens) == 0) {
        r->paused = false;
        return true;
    }
    if (room_comes(s, r, ret->seq->account, seq_wants(ret->seq, ret->n_tokens)))
        return false; /* the disk rings */
    /* At once: nobody rings for what it gave up itself. */
    while (hydrate_less(r->memory))
        if (seq_reserve(ret->seq, ret->n_tokens) == 0) {
            r->paused = false;
            return true;
        }
    n = seq_wants(ret->seq, ret->n_tokens);
    if (served_lost(&s->served) || (!room_waits(s, r, n) && !gives_way(s, r, n)))
        request_fail_pages(s, r, ret->seq->account, n, "reading %u more tokens", ret->n_tokens);
    return false;
}

/* n_out is 1 with the last ids, whose logits are the answer's first, and 0 before them. */
void append_rows(struct sched *s, struct request *r, uint32_t first, uint32_t n_out, uint32_t n)
{
    struct append *a = r->state;
    struct session *session = r->session;

    a->done += n;
    s->totals.prompt_tokens += n;
    if (n_out == 0)
        return;
    if (!request_take_logits(s, r, first, 1, s->logits))
        return; /* the session's row is still that of where it goes back to */
    memcpy(session->row, s->logits, s->served.model->n_vocab * sizeof(*session->row));
    session->row_valid = true;
    session->has_pending = false;
    session_appended(session, a->chat_after);
    session->n_asks = a->n_turn ? 0 : asks(s, a);
    a->reading = false;
    if (session->n_asks > 0) /* before it is known to */
        hydrate_fetch(r->memory, a->ranking.job);
    r->usage.computed_tokens = a->done - a->shared - a->restored;
    r->usage.shared_tokens = a->shared;
    r->usage.restored_tokens = a->restored;
    r->usage.prompt_ns = clock_ns() - a->ready_ns;
    finish(s, r);
}

/* Before the session changes hands or goes: the disk may still be writing to its pages. */
static void stop_restore(struct request *r)
{
    struct append *a = r->state;

    if (!a)
        return;
    tier_restore_drop(a->restore);
    a->restore = NULL;
    hydrate_drop(a->hydrate);
    a->hydrate = NULL;
    ranking_drop(r, &a->ranking);
}

void append_undo(struct sched *s, struct request *r)
{
    struct append *a = r->state;

    (void)s;
    stop_restore(r);
    if (a && a->reading) { /* before that the sequence is as it was */
        away_rest(&r->session->memory);
        memory_rewind(&r->session->memory, a->n_ids);
    }
    if (r->session && !r->session->row_valid)
        session_drop_row(r->session);
}

/* What is kept is asked when the session is as it was: that is what the next one will find. */
static void append_cancel(struct sched *s, struct request *r)
{
    const struct append *a = r->state;
    uint32_t n = a ? (uint32_t)a->encode.n_ids : 0, kept;

    if (!a || !a->reading) {
        request_fail_cancelled(s, r, " before any of the text was read");
        return;
    }
    append_undo(s, r);
    kept = r->memory->n_ids == 0 ? memory_known(r->memory, a->encode.ids, n) : 0;
    if (kept > 0)
        request_fail_cancelled(s, r,
                               ": %u of %u tokens were read; %u are kept, and reading the same "
                               "again goes on from there",
                               a->done, n, kept);
    else
        request_fail_cancelled(s, r, ": %u of %u tokens were read; the session is as it was before",
                               a->done, n);
}

void append_fini(struct request *r)
{
    struct append *a = r->state;

    stop_restore(r);
    if (a)
        encode_fini(&a->encode);
    free(a);
}

/* A reader that is behind hears less often: what finds no room is not said. */
static int append_flush(struct sched *s, struct request *r)
{
    struct wire_rep rep = { .id = r->id, .kind = WIRE_APPENDED };
    struct append *a = r->state;
    uint32_t n, n_found;

    if (!a || !a->tells || !a->ready || a->restore || r->phase == REQUEST_LAST)
        return 0;
    /* What it waits for is computed by somebody else. */
    n = a->reading ? a->done : follow_read(&a->reader);
    n_found = a->reading ? a->shared + a->restored : n;
    if (n == a->n_told && a->reading == a->told_reading)
        return 0;
    rep.u.appended.n_read = n;
    rep.u.appended.n_all = (uint32_t)a->encode.n_ids;
    rep.u.appended.n_found = n_found;
    if (reply_send(s, r, &rep, NULL) == 0) {
        a->n_told = n;
        a->told_reading = a->reading;
    }
    return 0;
}

const struct request_ops request_append = {
    .name = "append",
    .takes_bulk = append_takes_bulk,
    .start = append_start,
    .work = append_work,
    .plan = append_plan,
    .left = append_left,
    .rows = append_rows,
    .flush = append_flush,
    .cancel = append_cancel,
    .undo = append_undo,
    .fini = append_fini,
};
