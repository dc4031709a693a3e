/* daemon/req_answers.c - a Generate of several answers: each is written in a lane (daemon/lanes.h)
 * behind a fork of the session, which shares its pages.
 *
 * Answer i is what a Generate of one answer gives with the seed that was asked for and i more. Its
 * Text and its own Done carry i; the last Done is the whole's, with what all of them took. The
 * session stays as it is: which of them it goes on with is its client's choice.
 */
#include "daemon/generate.h"
#include "daemon/lanes.h"
#include "daemon/room.h"
#include "daemon/sched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct answers {
    struct lanes lanes;
    struct wire_req said;       /* of which each is made; stops lie in mem */
    struct encode_text grammar; /* its bulk */
    void *mem;
};

/* --- start ------------------------------------------------------------------------------------ */

/* The message goes with its frame, and later lanes begin when that is long gone. Pointers first,
 * then the strings, in one piece. */
static int copy_stops(struct answers *a)
{
    uint32_t n = a->said.u.generate.n_stops;
    const char *const *from = a->said.u.generate.stops;
    size_t len = 1;
    const char **to;
    char *p;

    for (uint32_t i = 0; i < n; i++)
        len += strlen(from[i]) + 1;
    a->mem = to = malloc(n * sizeof(*to) + len);
    if (!a->mem)
        return -ENOMEM;
    p = (char *)(to + n);
    for (uint32_t i = 0; i < n; i++) {
        to[i] = p;
        p = stpcpy(p, from[i]) + 1;
    }
    a->said.u.generate.stops = to;
    return 0;
}

static int lane_begin(struct sched *s, struct request *whole, struct lane *l);

static int answers_start(struct sched *s, struct request *r, const struct wire_req *m,
                         const uint8_t *bulk)
{
    struct answers *a;

    (void)bulk;
    if (m->u.generate.n > ANSWERS_MAX) {
        request_fail(s, r, WIRE_E_BAD_REQUEST,
                     (struct request_numbers){ 0, m->u.generate.n, ANSWERS_MAX },
                     "%u answers in one request; %u are allowed", m->u.generate.n, ANSWERS_MAX);
        return 0;
    }
    a = calloc(1, sizeof(*a));
    r->state = a;
    if (!a)
        return -ENOMEM;
    a->said = *m;
    a->grammar = encode_text_take(r->parts);
    lanes_init(&a->lanes, &request_generate, lane_begin, m->u.generate.n);
    r->usage.prompt_tokens = session_len(r->session);
    memory_account(r->memory, &r->usage);
    return copy_stops(a);
}

/* --- a lane ----------------------------------------------------------------------------------- */

/* Tokens that a lane has pages for before it begins: more at once would be cut for want of some
 * than one after the other are. */
#define TOKENS_AHEAD 256u

/* The only one takes its chance, as a single answer does. */
static int take_pages(struct lane *l, uint32_t max_tokens)
{
    struct session *x = l->session;
    uint32_t n = max_tokens && max_tokens < TOKENS_AHEAD ? max_tokens : TOKENS_AHEAD;
    uint32_t room = memory_room(&x->memory), left = x->seq.max_tokens - x->seq.n_tokens;
    int e;

    n = n < room ? n : room;
    n = n < left ? n : left;
    e = n > 0 ? seq_reserve(&x->seq, n) : 0;
    return l->of->n_open > 0 ? e : 0;
}

/* As generate_start, with a fork of the session and a copy of the grammar in place of what a client
 * sends. The lane's request has the text only while generate_begin takes it. */
static int lane_begin(struct sched *s, struct request *whole, struct lane *l)
{
    const struct answers *a = whole->state;
    struct request *r = &l->request;
    struct encode_text grammar = { .account = a->grammar.account };
    struct wire_req m = a->said;
    int e = session_fork_bare(whole->session, &l->session);

    if (e == 0)
        e = session_copy_row(whole->session, l->session);
    if (e == 0)
        e = take_pages(l, m.u.generate.max_tokens);
    if (e == 0)
        e = encode_text_add(&grammar, a->grammar.s, a->grammar.len);
    if (e < 0)
        return e;
    m.u.generate.seed += l->index;
    r->phase = REQUEST_WORK;
    r->session = l->session;
    r->memory = &l->session->memory;
    r->parts = &grammar;
    e = generate_begin(s, r, &m);
    r->parts = NULL;
    encode_text_fini(&grammar);
    if (e < 0)
        request_generate.fini(r);
    return e;
}

/* Not even one can begin: it waits, or fails. */
static void fail_lane(struct sched *s, struct request *r, int e)
{
    const struct seq *q = &r->session->seq;

    if (e != -ENOSPC)
        request_fail_memory(s, r, e);
    else if (!room_to_share(s, r, q->account, q->n_pages))
        request_fail_pages(s, r, q->account, q->n_pages, "a fork of %u tokens",
                           session_count(r->session));
}

/* --- the whole -------------------------------------------------------------------------------- */

static bool answers_work(struct sched *s, struct request *r)
{
    struct answers *a = r->state;
    int e;

    /* What is due for the session's memory is done once, and not in every fork of it. */
    if (a->lanes.n_begun == 0 && memory_behind(r->memory)) {
        r->phase = REQUEST_RUN;
        return true;
    }
    e = lanes_work(s, r, &a->lanes);
    if (e < 0) {
        fail_lane(s, r, e);
        return r->phase == REQUEST_LAST;
    }
    r->paused = false;
    if (r->phase == REQUEST_WORK && lanes_ended(&a->lanes)) {
        r->last = (struct wire_rep){ .kind = WIRE_DONE };
        r->last.u.done.usage = r->usage;
        request_finish(s, r);
    }
    return e > 0 || r->phase == REQUEST_LAST;
}

static void answers_undo(struct sched *s, struct request *r)
{
    struct answers *a = r->state;

    (void)s;
    if (a)
        lanes_leave(&a->lanes);
}

static void answers_fini(struct request *r)
{
    struct answers *a = r->state;

    if (!a)
        return;
    lanes_leave(&a->lanes);
    encode_text_fini(&a->grammar);
    free(a->mem);
    free(a);
}

const struct request_ops request_answers = {
    .name = "generate",
    .start = answers_start,
    .work = answers_work,
    .plan = lanes_plan,
    .undo = answers_undo,
    .fini = answers_fini,
};
