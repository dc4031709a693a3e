/* A list, the newest first: what is asked for moves to the front, what nobody uses goes from the
 * end. Bytes are counted by what an entry takes now, which changes when its job is done; so
 * is_made() is the only place where an entry becomes made. */
#include "daemon/grammars.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void grammars_init(struct grammars *g)
{
    *g = (struct grammars){ .n = 0 };
    TAILQ_INIT(&g->list);
}

int grammars_start(struct grammars *g, const struct vocab *v)
{
    return compiler_new(v, &g->compiler);
}

int grammars_bell(const struct grammars *g)
{
    return g->compiler ? compiler_bell(g->compiler) : -1;
}

/* The text stays as long as the entry: it is compared. */
static size_t size_of(const struct grammars_entry *e)
{
    return sizeof(*e) + e->job.len + (e->made && e->job.grammar ? e->job.grammar->bytes : 0);
}

/* Nobody's, and not the thread's. */
static void drop(struct grammars *g, struct grammars_entry *e)
{
    TAILQ_REMOVE(&g->list, e, link);
    g->bytes -= size_of(e);
    g->n--;
    grammar_free(e->job.grammar);
    free((char *)e->job.text);
    free(e);
}

/* Done, and known to be. One look under the lock of the compiler as long as it is not. */
static bool is_made(struct grammars *g, struct grammars_entry *e)
{
    if (e->made || !compiler_done(g->compiler, &e->job))
        return e->made;
    g->bytes -= size_of(e);
    e->made = true;
    g->bytes += size_of(e);
    g->n_compiled += e->job.err == 0;
    return true;
}

/* Nobody uses it. One that is being compiled is not let go of before that is done. */
static bool may_go(struct grammars *g, struct grammars_entry *e)
{
    return e->n_users == 0 && (is_made(g, e) || compiler_drop(g->compiler, &e->job));
}

/* What is used stays: it is charged to who uses it. Whoever gave one up while it was compiled does
 * not look at it again, so all are looked at here: megabytes would else be kept that nobody counts.
 */
static void make_room(struct grammars *g)
{
    struct grammars_entry *e, *before;

    TAILQ_FOREACH (e, &g->list, link)
        (void)is_made(g, e);
    for (e = TAILQ_LAST(&g->list, grammars_list);
         e && (g->bytes > GRAMMARS_BYTES_MAX || g->n > GRAMMARS_MAX); e = before) {
        before = TAILQ_PREV(e, grammars_list, link);
        if (may_go(g, e))
            drop(g, e);
    }
}

/* The thread first: it may still have a job. */
void grammars_fini(struct grammars *g)
{
    masks_free(g->masks);
    g->masks = NULL;
    compiler_free(g->compiler);
    g->compiler = NULL;
    while (!TAILQ_EMPTY(&g->list))
        drop(g, TAILQ_FIRST(&g->list));
}

/* To find it. Texts are compared in any case, so it may be a fast hash. */
static XXH128_hash_t digest_of(const struct grammars_ask *ask)
{
    return XXH3_128bits_withSeed(ask->text, ask->len, (uint64_t)ask->uid << 32 | ask->kind);
}

static struct grammars_entry *find(const struct grammars *g, XXH128_hash_t digest,
                                   const struct grammars_ask *ask)
{
    struct grammars_entry *e;

    TAILQ_FOREACH (e, &g->list, link)
        if (XXH128_isEqual(e->digest, digest) && e->job.uid == ask->uid &&
            strcmp(e->realm, ask->realm ? ask->realm : "") == 0 && e->job.kind == ask->kind &&
            e->job.len == ask->len && memcmp(e->job.text, ask->text, ask->len) == 0)
            break;
    return e;
}

/* Not in the list yet: where it stands there is the caller's to say. */
static struct grammars_entry *make(struct grammars *g, const struct grammars_ask *ask,
                                   XXH128_hash_t digest)
{
    struct grammars_entry *e = calloc(1, sizeof(*e));
    char *text = malloc(ask->len + 1);

    if (!e || !text) {
        free(e);
        free(text);
        return NULL;
    }
    memcpy(text, ask->text, ask->len);
    e->digest = digest;
    (void)snprintf(e->realm, sizeof(e->realm), "%s", ask->realm ? ask->realm : "");
    e->job =
        (struct compiler_job){ .kind = ask->kind, .uid = ask->uid, .text = text, .len = ask->len };
    g->n++;
    g->bytes += size_of(e);
    return e;
}

/* The account of all of the client's user has what it takes now. Whose limit it was is told by the
 * client's account, as with all that it is refused (request_fail_memory). */
static int charge(struct grammars_entry *e, struct held_account *client)
{
    struct held_account *account = client->above ? client->above : client;
    int r;

    if (!e->account)
        e->account = account;
    r = held_charge(e->account, &e->charged, size_of(e));
    if (r < 0) {
        client->refused = e->account->refused;
        client->by = e->account->by;
    }
    return r;
}

/* Charged before it is compiled, and again when its size is known (grammars_ready). One that fails
 * to be charged is as it was, or gone if it is new. */
int grammars_get(struct grammars *g, const struct grammars_ask *ask, struct grammars_entry **ret)
{
    XXH128_hash_t digest = digest_of(ask);
    struct grammars_entry *e = find(g, digest, ask);
    bool fresh;
    int r;

    if (e && e->n_users == 0 && is_made(g, e) && e->job.err < 0) { /* for want of memory, say */
        drop(g, e);
        e = NULL;
    }
    fresh = !e;
    if (e) {
        TAILQ_REMOVE(&g->list, e, link);
        g->n_found += is_made(g, e);
    } else {
        e = make(g, ask, digest);
    }
    if (!e)
        return -ENOMEM;
    TAILQ_INSERT_HEAD(&g->list, e, link);
    r = charge(e, ask->account);
    if (r == 0) {
        e->n_users++;
        if (fresh)
            compiler_put(g->compiler, &e->job);
        *ret = e;
    } else if (e->n_users == 0) {
        e->account = NULL;
        if (fresh)
            drop(g, e);
    }
    make_room(g);
    return r;
}

/* -EAGAIN: the bell rings when it is. With the first grammar of all the cache of masks is made,
 * which needs the trie. */
int grammars_ready(struct grammars *g, struct grammars_entry *e, struct held_account *account,
                   struct why *why)
{
    int r = is_made(g, e) ? e->job.err : -EAGAIN;

    if (r == 0)
        r = charge(e, account);
    if (r == 0 && !g->masks)
        r = masks_new(compiler_trie(g->compiler), GRAMMARS_MASK_BYTES, &g->masks);
    if (r < 0 && r != -EAGAIN && why)
        *why = e->job.why;
    return r;
}

void grammars_put(struct grammars *g, struct grammars_entry *e)
{
    if (!e)
        return;
    if (--e->n_users == 0) {
        /* It was charged once, to the account of the user, however many of his answers use it. */
        (void)held_charge(e->account, &e->charged, 0);
        e->account = NULL;
        /* Compiled again, a hostile one takes its time again; but it is asked for again, too. */
        if (may_go(g, e) && (!e->made || e->job.err < 0))
            drop(g, e);
    }
    make_room(g);
}
