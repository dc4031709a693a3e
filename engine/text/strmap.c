#include "engine/text/strmap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The length beside the pointer: most strings that differ differ in it, and are told apart without
 * a look at their bytes. */
struct strmap_slot {
    const uint8_t *s;
    uint32_t len;
    uint32_t value; /* NONE: a free slot */
};

/* Eight bytes a step; the length is mixed in, so that the zeros behind the last bytes tell nothing.
 * Not keyed: strings are a vocabulary's, or the names of one grammar, whose number is limited. */
static uint64_t hash_bytes(const uint8_t *s, size_t len)
{
    uint64_t h = len * 0x9e3779b97f4a7c15u, word;

    for (; len >= sizeof(word); s += sizeof(word), len -= sizeof(word)) {
        memcpy(&word, s, sizeof(word));
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    word = 0;
    for (; len > 0; len--)
        word = word << 8 | s[len - 1];
    h = (h ^ word) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 29;
}

/* The slot of the string, or the free one where it would go: the table is at most half full, so
 * there is one. */
static struct strmap_slot *find_slot(const struct strmap *m, const uint8_t *s, size_t len)
{
    size_t at = hash_bytes(s, len) & m->mask;

    while (m->slots[at].value != STRMAP_NONE &&
           (m->slots[at].len != len || memcmp(m->slots[at].s, s, len) != 0))
        at = (at + 1) & m->mask;
    return &m->slots[at];
}

/* It never grows; the caller says how many strings there may be. */
int strmap_init(struct strmap *m, size_t max)
{
    size_t n_slots = 16, i;

    *m = (struct strmap){ .max = max };
    while (n_slots < 2 * max)
        n_slots *= 2;
    m->slots = malloc(n_slots * sizeof(*m->slots));
    if (!m->slots)
        return -ENOMEM;
    for (i = 0; i < n_slots; i++)
        m->slots[i] = (struct strmap_slot){ .value = STRMAP_NONE };
    m->mask = n_slots - 1;
    return 0;
}

void strmap_fini(struct strmap *m)
{
    free(m->slots);
    m->slots = NULL;
}

int strmap_add(struct strmap *m, const uint8_t *s, size_t len, uint32_t value)
{
    struct strmap_slot *slot = find_slot(m, s, len);

    assert(value != STRMAP_NONE && len <= UINT32_MAX);
    if (slot->value != STRMAP_NONE)
        return -EEXIST;
    assert(m->n < m->max);
    *slot = (struct strmap_slot){ .s = s, .len = (uint32_t)len, .value = value };
    m->n++;
    return 0;
}

uint32_t strmap_find(const struct strmap *m, const uint8_t *s, size_t len)
{
    return find_slot(m, s, len)->value;
}
