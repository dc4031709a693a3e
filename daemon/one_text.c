#include "daemon/one_text.h"

#include "daemon/memory.h"
#include "engine/text/vocab.h"

#include <string.h>

/* A text begins once: what a model wants at the beginning of each stands before the first only. */
static struct one_part without_bos(const struct vocab *v, const struct one_part *p)
{
    struct one_part rest = *p;

    if (p->n > 0 && vocab_add_bos(v) && p->ids[0] == vocab_bos(v)) {
        rest.ids++;
        rest.n--;
    }
    return rest;
}

/* Policies are compared as they come, so that one_text_choose needs no list of the parts.
 * n_together rounds up to segments, as documents that stand side by side do. */
int one_text_add(struct one_text *t, const struct vocab *v, const struct one_part *p)
{
    const struct one_part part = t->n_parts ? without_bos(v, p) : *p;
    uint64_t len = p->policy->seg_len;
    void *mem = t->ids;
    int r = held_resize(t->account, &mem, &t->ids_len, ((size_t)t->n + part.n) * sizeof(*part.ids));

    if (r < 0)
        return r;
    t->ids = mem;
    if (part.n)
        memcpy(t->ids + t->n, part.ids, part.n * sizeof(*part.ids));
    t->n += part.n;
    t->n_together = (t->n_together + len - 1) / len * len + p->n;
    if (t->n_parts++ == 0) {
        t->policy = *p->policy;
        t->same = t->may_be_one = t->is_public = true;
    }
    t->same &= policy_same(&t->policy, p->policy);
    t->may_be_one &= p->policy->automatic || compress_keeps_all(&p->policy->spec);
    if (!t->policy.automatic && p->policy->automatic)
        t->policy = *p->policy;
    t->is_public &= p->is_public;
    /* What stands last says where the conversation is. */
    t->chat_at = p->chat_at;
    return 0;
}

/* Texts that are kept whole, but are too long together. */
static bool is_long(const struct one_text *t)
{
    return compress_keeps_all(&t->policy.spec) && t->n_together > policy_tokens_max(&t->policy);
}

/* The budget stays the first one's: what was room enough for each is what the whole has. */
static bool make_automatic(struct one_text *t, const struct served *b)
{
    const struct wire_memory m = { .automatic = true,
                                   .has_budget = true,
                                   .budget = t->policy.budget };
    struct why why = { "" };

    return policy_read(&m, NULL, t->policy.seg_len, b, &t->policy, &why) == 0;
}

/* An automatic policy takes any text as it comes, so it may be asked for behind any documents, and
 * documents that have one stand together with those that are kept whole. Automatic ones differ at
 * most by what there was room for when each was added. */
bool one_text_choose(struct one_text *t, const struct policy *said, const struct served *b)
{
    if (said && said->automatic) {
        if (t->n_parts == 1 && policy_same(said, &t->policy))
            return false;
        t->policy = *said;
        return true;
    }
    if (t->n_parts < 2 || (!t->same && !(t->may_be_one && t->policy.automatic)))
        return false;
    if (!memory_joins(&t->policy))
        return true;
    return !said && is_long(t) && make_automatic(t, b);
}

void one_text_fini(struct one_text *t)
{
    void *mem = t->ids;

    if (t->account)
        (void)held_resize(t->account, &mem, &t->ids_len, 0);
    *t = (struct one_text){ .account = t->account };
}
