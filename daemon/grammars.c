#include "daemon/grammars.h"

#include "engine/text/gbnf.h"
#include "engine/text/schema.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void grammars_init(struct grammars *g)
{
    *g = (struct grammars){ .n = 0 };
    TAILQ_INIT(&g->list);
}

static size_t size_of(const struct grammars_entry *e)
{
    return sizeof(*e) + e->len + e->grammar->bytes;
}

static void drop(struct grammars *g, struct grammars_entry *e)
{
    TAILQ_REMOVE(&g->list, e, link);
    g->bytes -= size_of(e);
    g->n--;
    grammar_free(e->grammar);
    free(e->text);
    free(e);
}

/* What is used stays: it is charged to who uses it. */
static void make_room(struct grammars *g)
{
    struct grammars_entry *e, *before;

    for (e = TAILQ_LAST(&g->list, grammars_list);
         e && (g->bytes > GRAMMARS_BYTES_MAX || g->n > GRAMMARS_MAX); e = before) {
        before = TAILQ_PREV(e, grammars_list, link);
        if (e->n_users == 0)
            drop(g, e);
    }
}

void grammars_fini(struct grammars *g)
{
    while (!TAILQ_EMPTY(&g->list))
        drop(g, TAILQ_FIRST(&g->list));
    masks_free(g->masks);
    trie_free(g->trie);
    g->masks = NULL;
    g->trie = NULL;
}

/* With the first grammar: a daemon that is asked for none need not sort its tokens. */
static int make_trie(struct grammars *g, const struct vocab *v)
{
    int e = 0;

    if (!g->trie)
        e = trie_new(v, &g->trie);
    if (e == 0 && !g->masks)
        e = masks_new(g->trie, GRAMMARS_MASK_BYTES, &g->masks);
    return e;
}

static XXH128_hash_t digest_of(const struct grammars_ask *ask)
{
    return XXH3_128bits_withSeed(ask->text, ask->len, (uint64_t)ask->uid << 32 | ask->kind);
}

static struct grammars_entry *find(const struct grammars *g, XXH128_hash_t digest,
                                   const struct grammars_ask *ask)
{
    struct grammars_entry *e;

    TAILQ_FOREACH (e, &g->list, link)
        if (XXH128_isEqual(e->digest, digest) && e->uid == ask->uid && e->kind == ask->kind &&
            e->len == ask->len && memcmp(e->text, ask->text, e->len) == 0)
            break;
    return e;
}

static int compile(struct grammars *g, const struct grammars_ask *ask, XXH128_hash_t digest,
                   struct grammars_entry **ret, struct why *why)
{
    struct grammars_entry *x = calloc(1, sizeof(*x));
    char *text = malloc(ask->len + 1);
    int e = x && text ? 0 : -ENOMEM;

    if (e == 0)
        e = (ask->kind == WIRE_GRAMMAR_GBNF ? gbnf_compile : schema_compile)(ask->text, ask->len,
                                                                             &x->grammar, why);
    if (e < 0) {
        free(text);
        free(x);
        return e;
    }
    memcpy(text, ask->text, ask->len);
    x->text = text;
    x->len = ask->len;
    x->digest = digest;
    x->uid = ask->uid;
    x->kind = ask->kind;
    g->n_compiled++;
    g->n++;
    g->bytes += size_of(x);
    *ret = x;
    return 0;
}

/* The first of its users has it charged to all of them. */
static int use(struct grammars_entry *e, struct held_account *client)
{
    struct held_account *account = client->above ? client->above : client;

    if (e->n_users == 0) {
        int r = held_charge(account, &e->charged, size_of(e));

        if (r < 0) {
            client->refused = account->refused;
            client->by = account->by;
            return r;
        }
        e->account = account;
    }
    e->n_users++;
    return 0;
}

int grammars_get(struct grammars *g, const struct vocab *v, const struct grammars_ask *ask,
                 struct grammars_entry **ret, struct why *why)
{
    XXH128_hash_t digest = digest_of(ask);
    struct grammars_entry *x = find(g, digest, ask);
    int e = make_trie(g, v);

    if (e < 0)
        return e;
    if (x) {
        g->n_found++;
        TAILQ_REMOVE(&g->list, x, link);
    } else {
        e = compile(g, ask, digest, &x, why);
        if (e < 0)
            return e;
    }
    TAILQ_INSERT_HEAD(&g->list, x, link);
    e = use(x, ask->account);
    if (e == 0)
        *ret = x;
    make_room(g);
    return e;
}

void grammars_put(struct grammars *g, struct grammars_entry *e)
{
    if (!e)
        return;
    if (--e->n_users == 0)
        (void)held_charge(e->account, &e->charged, 0);
    make_room(g);
}
