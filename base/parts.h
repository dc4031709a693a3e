/* base/parts.h - several buffers in one block of memory, counted and laid out by the same lines, so
 * that the two can't differ.
 *
 * Ownership  the block is the caller's, and the buffers are parts of it.
 */
#ifndef BASE_PARTS_H
#define BASE_PARTS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct part {
    void *at; /* address of a pointer */
    size_t bytes;
};

/* Gives each pointer its place in mem, at multiples of align (a power of two); with mem NULL only
 * counts. Returns the bytes. */
static inline size_t parts_lay_out(void *mem, const struct part *parts, size_t n, size_t align)
{
    size_t off = 0;

    for (size_t i = 0; i < n; i++) {
        if (mem) {
            /* By memcpy: these are pointers to several types, which no one lvalue may store to. */
            void *p = (uint8_t *)mem + off;

            memcpy(parts[i].at, &p, sizeof(p));
        }
        off += (parts[i].bytes + align - 1) & ~(align - 1);
    }
    return off;
}

#endif
