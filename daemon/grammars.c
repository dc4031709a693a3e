#include "daemon/grammars.h"

#include "engine/text/gbnf.h"
#include "engine/text/schema.h"

#include <errno.h>
#include <stdlib.h>

void grammars_init(struct grammars *g)
{
    *g = (struct grammars){ .n = 0 };
    TAILQ_INIT(&g->list);
}

static void drop(struct grammars *g, struct grammars_entry *e)
{
    TAILQ_REMOVE(&g->list, e, link);
    g->bytes -= e->grammar->bytes;
    g->n--;
    grammar_free(e->grammar);
    free(e);
}

/* What is used stays: requests are limited, and so is each grammar. */
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

static XXH128_hash_t digest_of(uid_t uid, enum wire_grammar kind, const char *text, size_t len)
{
    return XXH3_128bits_withSeed(text, len, (uint64_t)uid << 8 | kind);
}

static struct grammars_entry *find(const struct grammars *g, XXH128_hash_t digest)
{
    struct grammars_entry *e;

    TAILQ_FOREACH (e, &g->list, link)
        if (XXH128_isEqual(e->digest, digest))
            break;
    return e;
}

static int compile(struct grammars *g, enum wire_grammar kind, const char *text, size_t len,
                   struct grammars_entry **ret, struct why *why)
{
    struct grammars_entry *x = calloc(1, sizeof(*x));
    int e = x ? 0 : -ENOMEM;

    if (e == 0)
        e = (kind == WIRE_GRAMMAR_GBNF ? gbnf_compile : schema_compile)(text, len, &x->grammar,
                                                                        why);
    if (e < 0) {
        free(x);
        return e;
    }
    g->n_compiled++;
    g->n++;
    g->bytes += x->grammar->bytes;
    *ret = x;
    return 0;
}

int grammars_get(struct grammars *g, const struct vocab *v, uid_t uid, enum wire_grammar kind,
                 const char *text, size_t len, struct grammars_entry **ret, struct why *why)
{
    XXH128_hash_t digest = digest_of(uid, kind, text, len);
    struct grammars_entry *x = find(g, digest);
    int e = make_trie(g, v);

    if (e < 0)
        return e;
    if (x) {
        g->n_found++;
        TAILQ_REMOVE(&g->list, x, link);
    } else {
        e = compile(g, kind, text, len, &x, why);
        if (e < 0)
            return e;
        x->digest = digest;
    }
    TAILQ_INSERT_HEAD(&g->list, x, link);
    x->n_users++;
    make_room(g);
    *ret = x;
    return 0;
}

void grammars_put(struct grammars *g, struct grammars_entry *e)
{
    if (!e)
        return;
    e->n_users--;
    make_room(g);
}
