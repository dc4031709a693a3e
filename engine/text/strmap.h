/* engine/text/strmap.h - byte strings to numbers: an open-addressing table that is filled once.
 *
 * Threads    immutable after its last strmap_add.
 * Ownership  borrows the strings, which outlive it.
 * Errors     -ENOMEM; strmap_add: -EEXIST when the string is there (the first stays).
 */
#ifndef ENGINE_TEXT_STRMAP_H
#define ENGINE_TEXT_STRMAP_H

#include <stddef.h>
#include <stdint.h>

#define STRMAP_NONE UINT32_MAX

struct strmap {
    struct strmap_slot *slots;
    size_t mask; /* slots - 1; at most half of them are taken */
    size_t n, max;
};

int strmap_init(struct strmap *m, size_t max);
void strmap_fini(struct strmap *m);
int strmap_add(struct strmap *m, const uint8_t *s, size_t len, uint32_t value); /* not NONE */
uint32_t strmap_find(const struct strmap *m, const uint8_t *s, size_t len);

#endif
