/* engine/backend.c - finds who computes, and stands in where nobody does.
 *
 * Most functions call the backend's and do no more. Two cases are settled here, so that callers
 * need not know them: a backend that is NULL is memory of the process, and a function that a table
 * leaves out does, or refuses, what engine/backend.h says of NULL there.
 */
#include "engine/backend.h"

#include "engine/devices.h"
#include "engine/file/model.h"
#include "engine/kv/pool.h"
#include "engine/plugin.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

int backend_find(const char *name, const struct backend_ops **ret,
                 struct backend_devices *ret_devices, struct why *why)
{
    const struct backend_ops *ops;
    struct backend_devices devices = { 0 };
    int r = devices_library(name, &ops, &devices, why);

    if (r == 0 && ops->look)
        r = ops->look(&devices, why);
    /* The library is here, but no device of its kind is. why keeps its sentence, which is shown and
     * is no error. */
    if (r < 0 && strcmp(name, "auto") == 0) {
        ops = &backend_cpu;
        r = 0;
    }
    if (r < 0)
        return r;
    *ret = ops;
    *ret_devices = devices;
    return 0;
}

int backend_open(const struct backend_ops *ops, const struct backend_options *o,
                 struct backend **ret, struct why *why)
{
    struct backend_options with_host = *o;
    int r = plugin_check(ops, why);

    if (r < 0)
        return r;
    /* A plug-in is linked to no part of the CPU's, and computes its host's part by this table. */
    with_host.host = &backend_cpu;
    return ops->open(&with_host, ret, why);
}

void backend_close(struct backend *b)
{
    if (b)
        b->ops->close(b);
}

int backend_alloc(struct backend *b, size_t n, void **ret)
{
    void *mem;

    if (b)
        return b->ops->alloc(b, n, ret);
    /* Zeroed and at a page, as backends' memory is; of what is never touched nothing is
     * reserved. */
    mem = mmap(NULL, n ? n : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
               -1, 0);
    if (mem == MAP_FAILED)
        return -ENOMEM;
    *ret = mem;
    return 0;
}

/* Of the process: the trainer's, which is there when it is used. */
int backend_populate(struct backend *b, void *mem, size_t n)
{
    return b && b->ops->populate ? b->ops->populate(b, mem, n) : 0;
}

int backend_discard(struct backend *b, void *mem, size_t n)
{
    return b && b->ops->discard ? b->ops->discard(b, mem, n) : -ENOTSUP;
}

int backend_alloc_kept(struct backend *b, size_t n, void **ret, int *ret_fd)
{
    return b && b->ops->alloc_kept ? b->ops->alloc_kept(b, n, ret, ret_fd) : -ENOTSUP;
}

int backend_map_kept(struct backend *b, int fd, size_t n, void **ret)
{
    return b && b->ops->map_kept ? b->ops->map_kept(b, fd, n, ret) : -ENOTSUP;
}

void backend_free(struct backend *b, void *mem, size_t n)
{
    if (!mem)
        return;
    if (b)
        b->ops->free(b, mem, n);
    else
        (void)munmap(mem, n ? n : 1);
}

void *backend_host(struct backend *b, void *mem)
{
    return b ? b->ops->host(b, mem) : mem;
}

/* No ticket: it waits. */
int backend_put(struct backend *b, void *to, const void *host, size_t n)
{
    if (b)
        return b->ops->put(b, to, host, n, NULL);
    memcpy(to, host, n);
    return 0;
}

int backend_get(struct backend *b, void *host, const void *from, size_t n)
{
    if (b)
        return b->ops->get(b, host, from, n, NULL);
    memcpy(host, from, n);
    return 0;
}

int backend_clear(struct backend *b, void *mem, size_t n)
{
    if (b)
        return b->ops->clear(b, mem, n);
    memset(mem, 0, n);
    return 0;
}

int backend_alloc_weights(struct backend *b, const struct model *m, void **ret, struct why *why)
{
    return b && b->ops->alloc_weights ? b->ops->alloc_weights(b, m, ret, why)
                                      : backend_alloc(b, m->packed.len, ret);
}

int backend_alloc_pages(struct backend *b, const struct pool *p, void **ret)
{
    return b && b->ops->alloc_pages ? b->ops->alloc_pages(b, p, ret)
                                    : backend_alloc(b, p->mem_len, ret);
}

/* One device has all layers, one behind the other. */
int backend_get_layers(struct backend *b, void *host, const void *from, uint32_t n_layers,
                       size_t len)
{
    return b && b->ops->get_layers ? b->ops->get_layers(b, host, from, len)
                                   : backend_get(b, host, from, n_layers * len);
}

int backend_copy_page(struct backend *b, const struct pool *p, uint32_t from, uint32_t to)
{
    if (b)
        return b->ops->copy_page(b, p, from, to);
    memcpy(p->mem + to * p->page_bytes, p->mem + from * p->page_bytes, p->page_bytes);
    return 0;
}

void backend_run(struct backend *b, backend_slice_fn *fn, void *arg, uint32_t n)
{
    if (b) {
        b->ops->run(b, fn, arg, n);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        fn(arg, i, 0);
}
