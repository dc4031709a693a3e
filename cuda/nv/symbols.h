/* cuda/nv/symbols.h - functions of a library that is loaded when it is needed.
 *
 * Threads    any.
 */
#ifndef CUDA_NV_SYMBOLS_H
#define CUDA_NV_SYMBOLS_H

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

struct symbol {
    const char *name;
    void *at; /* a pointer to such a function */
};

/* Fills in n of them. NULL, or the name of the first that the library does not have. */
static inline const char *symbols_find(void *lib, const struct symbol *all, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        void *f = dlsym(lib, all[i].name);

        if (!f)
            return all[i].name;
        /* memcpy: C has no cast from an object's pointer to a function's. */
        memcpy(all[i].at, &f, sizeof(f));
    }
    return NULL;
}

#endif
