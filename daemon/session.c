#include "daemon/session.h"

#include "daemon/client.h"
#include "daemon/prefix.h"
#include "daemon/served.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Whose texts the session may share, and the tree that it does that in. Users whom the kernel can't
 * tell apart here (the daemon is in a container, they are not) share with nobody: one would find
 * out by its usage and speed what the others wrote. The store on the disk is held to the same. */
static void share(const struct served *b, const struct client *c, enum session_sharing sharing,
                  struct memory *m)
{
    bool is_public = sharing == SESSION_PUBLIC, known = c->uid != b->stand_in;

    memory_share(m, is_public || known ? b->prefix : NULL, is_public ? PREFIX_PUBLIC : c->uid,
                 sharing == SESSION_PRIVATE || (!is_public && !known));
    memory_keep(m, is_public || known ? b->tier : NULL);
}

/* Pages come with what is read: an open session costs its ids' room, and no page. */
int session_new(struct served *b, struct client *c, uint64_t id, enum session_sharing sharing,
                const struct policy *policy, struct session **ret)
{
    struct session *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return -ENOMEM;
    s->client = c;
    s->parts.account = &c->held;
    s->id = id;
    s->chat_at = CHAT_AT_START;
    draft_rate_init(&s->drafts);
    r = seq_open(&s->seq, &b->pool, &c->account, policy_tokens_max(policy), policy->seg_len, 0);
    if (r == 0)
        r = memory_init(&s->memory, policy, b, &s->seq);
    if (r < 0) {
        session_free(s);
        return r;
    }
    share(b, c, sharing, &s->memory);
    *ret = s;
    return 0;
}

/* Again is nothing: one that is there already is only resized to what it is. */
int session_take_row(struct session *s, uint32_t n_vocab)
{
    void *p = s->row;
    int r = held_resize(s->parts.account, &p, &s->row_len, n_vocab * sizeof(*s->row));

    s->row = p;
    return r;
}

/* Nothing to copy is no error. */
int session_copy_row(const struct session *s, struct session *to)
{
    int r;

    if (!s->row_valid)
        return 0;
    r = session_take_row(to, (uint32_t)(s->row_len / sizeof(*s->row)));
    if (r < 0)
        return r;
    memcpy(to->row, s->row, s->row_len);
    to->row_valid = true;
    return 0;
}

/* As large as the vocabulary, so it is given back as soon as an answer has begun. */
void session_drop_row(struct session *s)
{
    void *p = s->row;

    (void)held_resize(s->parts.account, &p, &s->row_len, 0);
    s->row = NULL;
    s->row_valid = false;
}

/* Room for n marks; 0: they are freed. */
static int take_marks(struct session *s, size_t n)
{
    void *p = s->marks;
    int r = held_resize(s->parts.account, &p, &s->marks_len, n * sizeof(*s->marks));

    s->marks = p;
    return r;
}

/* In this order: memory lets go of its pages beside the sequence, and has its end written while the
 * sequence still has pages (tier_leave). */
void session_free(struct session *s)
{
    if (!s)
        return;
    session_drop_row(s);
    (void)take_marks(s, 0);
    memory_fini(&s->memory);
    seq_close(&s->seq);
    encode_text_fini(&s->parts);
    free(s);
}

uint32_t session_len(const struct session *s)
{
    return memory_len(&s->memory) + s->has_pending;
}

uint32_t session_count(const struct session *s)
{
    return session_len(s) - memory_filler(&s->memory);
}

/* A mark that finds no memory is missed only by who rewinds a conversation. */
void session_appended(struct session *s, enum chat_at at)
{
    s->chat_at = at;
    if (s->n_marks == s->marks_len / sizeof(*s->marks) &&
        take_marks(s, s->n_marks ? 2 * s->n_marks : 16) < 0)
        return;
    s->marks[s->n_marks++] = (struct session_mark){ session_len(s), at };
}

int session_adopt_behind(struct session *s, const struct session *from)
{
    int r;

    /* Documents end with a token that was read: a pending one is of an answer. */
    assert(!s->has_pending && !from->has_pending);
    r = memory_adopt_behind(&s->memory, &from->memory);
    if (r < 0)
        return r;
    session_drop_row(s);
    session_appended(s, from->chat_at);
    return 0;
}

/* Marks behind n are of a conversation that is not there any more. Parts of a message that was
 * still to come belong to what is taken back. */
void session_rewind(struct session *s, uint32_t n)
{
    session_truncate(s, n);
    while (s->n_marks > 0 && s->marks[s->n_marks - 1].n_tokens > n)
        s->n_marks--;
    if (n == 0)
        s->chat_at = CHAT_AT_START;
    else
        s->chat_at = s->n_marks > 0 ? s->marks[s->n_marks - 1].chat_at : CHAT_AT_NEXT;
    encode_text_fini(&s->parts);
}

/* The fork is nobody's yet: it has no id, and its client does not list it. */
int session_fork_bare(const struct session *s, struct session **ret)
{
    struct session *t = calloc(1, sizeof(*t));
    int r;

    if (!t)
        return -ENOMEM;
    t->client = s->client;
    t->parts.account = s->parts.account;
    t->priority = s->priority;
    t->chat_at = s->chat_at;
    t->n_asks = s->n_asks;
    t->drafts = s->drafts;
    t->has_pending = s->has_pending;
    t->pending = s->pending;
    r = seq_fork(&s->seq, &t->seq);
    if (r == 0)
        r = memory_fork(&s->memory, &t->memory, &t->seq);
    if (r < 0) {
        session_free(t);
        return r;
    }
    /* What is read behind it is an answer that may not be taken, or a text that is only scored. */
    t->memory.shared.keeps_nothing = true;
    *ret = t;
    return 0;
}

int session_fork(const struct session *s, uint64_t id, struct session **ret)
{
    struct session *t;
    int r = session_fork_bare(s, &t);

    if (r < 0)
        return r;
    t->id = id;
    t->memory.shared.keeps_nothing = s->memory.shared.keeps_nothing;
    r = take_marks(t, s->n_marks);
    if (r == 0)
        r = session_copy_row(s, t);
    if (r < 0) {
        session_free(t);
        return r;
    }
    if (s->n_marks)
        memcpy(t->marks, s->marks, s->n_marks * sizeof(*t->marks));
    t->n_marks = s->n_marks;
    *ret = t;
    return 0;
}

/* What was saved beside ids; the ids themselves were read, or restored, before. */
int session_stand(struct session *s, const uint32_t *pending, enum chat_at at,
                  const struct session_mark *marks, size_t n_marks)
{
    int r = take_marks(s, n_marks);

    if (r < 0)
        return r;
    if (n_marks)
        memcpy(s->marks, marks, n_marks * sizeof(*marks));
    s->n_marks = n_marks;
    s->chat_at = at;
    if (pending) {
        session_drop_row(s);
        s->has_pending = true;
        s->pending = *pending;
    }
    return 0;
}

/* In its account, and not in its table. */
static uint32_t pages_beside(const struct memory *m)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->hydration.n; i++)
        if (m->hydration.held[i].pages)
            n += seq_n_pages(m->hydration.held[i].n_keys);
    return n;
}

int session_move(struct session *s, struct client *to)
{
    size_t len = s->row_len + s->marks_len + s->parts.cap;
    uint32_t n;
    int r;

    hydrate_fetch_drop(&s->memory);
    memory_rest(&s->memory);
    r = held_move(s->parts.account, &to->held, len);
    if (r < 0)
        return r;
    /* The pages are the same: only whom they are charged to changes. */
    n = s->seq.n_pages + pages_beside(&s->memory);
    r = pool_account_move(s->seq.account, &to->account, n);
    if (r < 0) {
        (void)held_move(&to->held, s->parts.account, len); /* where they were */
        return r;
    }
    s->seq.account = &to->account;
    s->parts.account = &to->held;
    s->client = to;
    return 0;
}

int session_detach(struct session *s, struct pool_account *pages, struct held_account *held)
{
    int r;

    /* What it has beside its table is charged to the old account. */
    hydrate_fetch_drop(&s->memory);
    hydrate_end(&s->memory);
    memory_rest(&s->memory);
    r = pool_account_move(s->seq.account, pages, s->seq.n_pages);
    if (r < 0)
        return r;
    s->seq.account = pages;
    session_drop_row(s);
    (void)take_marks(s, 0);
    s->n_marks = 0;
    encode_text_fini(&s->parts);
    s->parts.account = held;
    s->client = NULL;
    return 0;
}

/* `whole` ones may go back into compressed segments: what the question is packed into is read once
 * more. Others only read again what is raw. */
uint32_t session_ask(struct session *s)
{
    struct memory *m = &s->memory;
    uint32_t n = s->n_asks, first = m->ladder.n_at[1] * m->seq->seg_len;
    uint32_t n_raw = m->n_ids > first ? m->n_ids - first : 0;
    bool whole = m->policy.automatic && memory_exact(m);

    s->n_asks = 0;
    /* An answer has begun since, or ids wait to be read again: it is not as the append left it. */
    if (n == 0 || s->has_pending || m->n_ids != m->seq->n_tokens)
        return 0;
    if (n > n_raw && !whole)
        n = n_raw;
    memory_turn(m, m->n_ids - n, m->n_ids);
    if (n == 0 || (!hydrate_can(m) && n <= n_raw))
        return 0;
    memory_reread(m, n);
    memory_turn(m, m->n_ids - n, m->n_ids);
    /* The last id is the pending one now: the answer begins with reading it. */
    m->n_ids--;
    session_drop_row(s);
    s->has_pending = true;
    s->pending = s->seq.tokens[m->n_ids];
    return n;
}

/* To n tokens, of which the last one is to be read again: the logits behind it are those that an
 * answer starts from, and they are not there. */
void session_truncate(struct session *s, uint32_t n)
{
    assert(n <= session_len(s));
    if (n < session_len(s))
        s->n_asks = 0;
    if (n == session_len(s) && (s->has_pending || s->row_valid))
        return;
    session_drop_row(s);
    s->has_pending = n > 0;
    if (n > 0)
        s->pending = s->seq.tokens[n - 1];
    memory_rewind(&s->memory, n > 0 ? n - 1 : 0);
}
