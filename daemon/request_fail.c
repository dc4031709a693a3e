#include "daemon/request_fail.h"

#include "base/clock.h"
#include "daemon/generate.h"
#include "daemon/log.h"
#include "daemon/sched.h"
#include "engine/file/stream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A failure that is ours is logged; one that is the client's is told to the client, and only there.
 * That of a part is the whole's, which says so. */
static void log_failure(const struct request *r, enum wire_error code)
{
    struct journal_about about = client_about(r->client, JOURNAL_FAILED);

    if (r->lane)
        return;
    about.request = r->id;
    if (code == WIRE_E_INTERNAL || code == WIRE_E_NO_MEMORY)
        log_peer_about(LOG_LEVEL_ERROR, &about,
                       "client %" PRIu64 " (pid %d, %s), request %" PRIu64 " (%s): %s",
                       r->client->id, (int)r->client->pid, r->client->name, r->id, r->ops->name,
                       r->text);
    else
        log_debug("client %" PRIu64 ", request %" PRIu64 " (%s): %s", r->client->id, r->id,
                  r->ops->name, r->text);
}

/* What was said stays said: its reader is told how much it is, and what it took. */
static bool tells_usage(const struct request *r)
{
    return r->state && (r->ops == &request_generate || r->ops == &request_answers);
}

void request_fail(struct sched *s, struct request *r, enum wire_error code,
                  struct request_numbers numbers, const char *fmt, ...)
{
    char text[REQUEST_TEXT_MAX];
    va_list ap;

    /* First, while the request still has its session: undo takes that back to where it was. */
    if (r->ops->undo)
        r->ops->undo(s, r);
    if (r->parts)
        encode_text_fini(r->parts);
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    request_label(r->text, sizeof(r->text), text); /* names in it are cut, or the client's */
    log_failure(r, code);
    s->totals.requests_failed += code != WIRE_E_CANCELLED && !r->lane;
    r->last = (struct wire_rep){ .kind = WIRE_ERROR };
    r->last.u.error.code = code;
    r->last.u.error.text = r->text;
    r->last.u.error.had = numbers.had;
    r->last.u.error.asked = numbers.asked;
    r->last.u.error.limit = numbers.limit;
    r->last.u.error.has_usage = tells_usage(r);
    if (r->last.u.error.has_usage)
        r->last.u.error.usage = r->usage;
    request_finish(s, r);
}

void request_fail_cancelled(struct sched *s, struct request *r, const char *fmt, ...)
{
    char text[REQUEST_TEXT_MAX], how[64] = "cancelled";
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (r->expired)
        (void)snprintf(how, sizeof(how), "the deadline of %" PRIu64 " ms has passed",
                       (r->deadline_ns - r->arrived_ns) / CLOCK_MS);
    request_fail(s, r, r->expired ? WIRE_E_DEADLINE : WIRE_E_CANCELLED, REQUEST_NO_NUMBERS, "%s%s",
                 how, text);
}

/* Three accounts stand one above the other, and `by` is the one that had no room: its option is the
 * one that helps. */
void request_fail_memory(struct sched *s, struct request *r, int e)
{
    const struct held_account *had = &r->client->held, *a = had->by;
    char whose[64] = "this client's", where[32] = "", option[16] = "client-";

    if (e != -EDQUOT) {
        request_fail(s, r, WIRE_E_NO_MEMORY, REQUEST_NO_NUMBERS, "out of memory for this request");
        return;
    }
    if (a == &r->client->owner->held) {
        (void)snprintf(whose, sizeof(whose), "user %u's", (unsigned)r->client->uid);
        (void)stpcpy(where, " in all clients");
        (void)stpcpy(option, "owner-");
    } else if (a != had) {
        (void)stpcpy(whose, "all users'");
        option[0] = '\0';
    }
    request_fail(s, r, WIRE_E_LIMIT, (struct request_numbers){ a->used, had->refused, a->limit },
                 "%s texts, ids, scores and logits take %zu bytes%s and %zu more were asked "
                 "for; "
                 "the limit is %zu (--%stext-bytes)",
                 whose, a->used, where, had->refused, a->limit, option);
}

/* Weights were numbers when they were loaded (engine/file/weights.c), so something has overflowed
 * on the way, and the kernels hand a NaN on to the logits (engine/kv/page.h). Where the narrow type
 * of the context memory is to blame, and nothing else can be done by who runs the daemon, it says
 * so. */
void request_fail_finite(struct sched *s, struct request *r)
{
    char kv[16];

    (void)config_choice("kv-type", s->config->kv_type, kv, sizeof(kv));
    request_fail(s, r, WIRE_E_INTERNAL, REQUEST_NO_NUMBERS,
                 "the model's output is not finite: its values overflow after this text%s%s%s",
                 s->config->kv_type == CONFIG_KV_F32 ? "" : ", perhaps in context memory of type ",
                 s->config->kv_type == CONFIG_KV_F32 ? "" : kv,
                 s->config->kv_type == CONFIG_KV_F32 ? "" : " (try --kv-type f32)");
}

bool request_finite(struct sched *s, struct request *r, const float *x, size_t n)
{
    if (quant_finite(QUANT_F32, x, n))
        return true;
    request_fail_finite(s, r);
    return false;
}

bool request_take_logits(struct sched *s, struct request *r, uint32_t first, uint32_t n, float *ret)
{
    int e = forward_logits(&s->served.forward, first, n, ret);

    if (e < 0) {
        request_fail_step(s, r, e);
        return false;
    }
    return request_finite(s, r, ret, (size_t)n * s->served.model->n_vocab);
}

/* The most telling reason first: a device that is gone, a file that can't be read, an errno. */
void request_fail_step(struct sched *s, struct request *r, int e)
{
    const struct stream *stream = s->served.model->stream;

    if (served_lost(&s->served)) {
        request_fail(s, r, WIRE_E_INTERNAL, REQUEST_NO_NUMBERS,
                     "device %s was lost while it computed: ask again", s->config->device);
        return;
    }
    if (stream && stream_why(stream)[0]) {
        request_fail(s, r, WIRE_E_INTERNAL, REQUEST_NO_NUMBERS, "the model's step failed: %s",
                     stream_why(stream));
        return;
    }
    request_fail(s, r, WIRE_E_INTERNAL, REQUEST_NO_NUMBERS, "the model's step failed: %s",
                 strerror(-e));
}

/* Which of the limits stands against `need` pages more: its own, its owner's, what is kept for
 * other users, or that there are no more. One that is no less than the pool is nobody's wish.
 * Looked at in the order in which somebody can do something about it. */
static void fail_pages(struct sched *s, struct request *r, const struct pool_account *a,
                       uint64_t need, const char *begin, const char *less)
{
    const struct pool *p = &s->served.pool;
    const struct pool_owner *o = a->owner ? a->owner : &(struct pool_owner){ 0, UINT32_MAX };
    uint32_t n_free = served_pages_free(&s->served), n_pages = p->n_pages;
    uint32_t left = o->used < o->limit ? o->limit - o->used : 0;
    uint64_t ahead = owners_ahead(&s->owners, r->client->owner, clock_ns());
    const char *plural = need == 1 ? "" : "s";
    char kept[64] = "";

    if (a->limit < n_pages && need > a->limit - a->used) {
        request_fail(s, r, WIRE_E_LIMIT, (struct request_numbers){ a->used, need, a->limit },
                     "%s takes %" PRIu64 " more page%s of %u tokens; this client has %u of the %u "
                     "that it may have (--client-kv-bytes)%s",
                     begin, need, plural, POOL_PAGE_TOKENS, a->used, a->limit, less);
        return;
    }
    if (o->limit < n_pages && need > left) {
        request_fail(s, r, WIRE_E_LIMIT, (struct request_numbers){ o->used, need, o->limit },
                     "%s takes %" PRIu64 " more page%s of %u tokens; user %u has %u of the %u that "
                     "one user may have in all clients (--owner-kv-bytes)%s",
                     begin, need, plural, POOL_PAGE_TOKENS, (unsigned)r->client->uid, o->used,
                     o->limit, less);
        return;
    }
    if (need <= n_free)
        (void)snprintf(kept, sizeof(kept), ", of which %" PRIu64 " are kept for other users",
                       ahead > p->reserve ? ahead : p->reserve);
    request_fail(s, r, WIRE_E_POOL_FULL,
                 (struct request_numbers){ n_pages - n_free, need, n_pages },
                 "pool_full: %s takes %" PRIu64 " more page%s of %u tokens; %u of the pool's %u "
                 "are free%s (--kv-bytes)%s",
                 begin, need, plural, POOL_PAGE_TOKENS, n_free, n_pages, kept, less);
}

void request_fail_pages(struct sched *s, struct request *r, const struct pool_account *account,
                        uint64_t need, const char *what, ...)
{
    /* What would help beside more memory; the sentence ends with it. */
    const char *less = r->memory && compress_keeps_all(&r->memory->policy.spec)
                           ? "; automatic memory takes less (gistctl: --memory auto, libgist: "
                             "GIST_AUTO)"
                           : "";
    char begin[96];
    va_list ap;

    if (served_lost(&s->served)) { /* a page could not be copied */
        request_fail_step(s, r, -EIO);
        return;
    }
    va_start(ap, what);
    (void)vsnprintf(begin, sizeof(begin), what, ap);
    va_end(ap);
    fail_pages(s, r, account, need, begin, less);
}

/* Keys are counted as a whole here: what one more token takes depends on the gists among them. */
static void fail_budget(struct sched *s, struct request *r, uint64_t n_keys)
{
    const struct memory *m = r->memory;

    request_fail(
        s, r, WIRE_E_CONTEXT_LENGTH_EXCEEDED,
        (struct request_numbers){ 0, n_keys, m->policy.budget },
        "context_length_exceeded: after %u tokens the session has no room for one more: it "
        "would hold %" PRIu64 " keys, and its budget is %u%s",
        m->seq->n_tokens, n_keys, m->policy.budget,
        policy_longer(&m->policy, s->served.context_max));
}

/* MEMORY_WAITING is no failure, and does not come here. */
void request_fail_need(struct sched *s, struct request *r, const struct memory_need *need,
                       const struct forward_run *run)
{
    const struct pool_account *account = r->memory->seq->account;

    if (need->cause == MEMORY_BUDGET)
        fail_budget(s, r, need->wanted);
    else if (run->n_tokens > 0)
        request_fail_pages(s, r, account, need->wanted, "reading %u tokens again", run->n_tokens);
    else
        request_fail_pages(s, r, account, need->wanted, "compressing a segment");
}

/* What is read was found to fit when it began: no room is a mistake of ours, which costs one
 * request. What came back for a prompt goes first. */
bool request_room(struct sched *s, struct request *r, uint32_t *max)
{
    uint32_t room = memory_room(r->memory);
    uint64_t keys;

    while (room == 0 && hydrate_less(r->memory))
        room = memory_room(r->memory);
    if (*max > room)
        *max = room;
    if (room > 0)
        return true;
    memory_peak(r->memory, 1, &keys, NULL);
    fail_budget(s, r, keys);
    return false;
}
