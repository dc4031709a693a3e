#include "engine/backend.h"

#include "engine/kv/pool.h"
#include "engine/plugin.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* A library and its device: found, and there. */
static int find_device(const char *library, const char *help, unsigned device,
                       const struct backend_ops **ret, unsigned *ret_device, struct why *why)
{
    const struct backend_ops *ops;
    int r = plugin_find(library, help, &ops, why);

    if (r == 0 && ops->look)
        r = ops->look(device, why);
    if (r < 0)
        return r;
    *ret = ops;
    *ret_device = device;
    return 0;
}

static int find_cuda(unsigned device, const struct backend_ops **ret, unsigned *ret_device,
                     struct why *why)
{
    return find_device("libgistd-cuda.so",
                       "build it with `make CUDA=1`, which needs nvcc, or use --device cpu", device,
                       ret, ret_device, why);
}

/* "cuda:N". */
static bool is_cuda(const char *name, unsigned *ret_device)
{
    const char *n = name + strlen("cuda:");
    char *end;
    unsigned long device;

    if (strncmp(name, "cuda:", strlen("cuda:")) != 0 || !isdigit((unsigned char)*n))
        return false;
    device = strtoul(n, &end, 10);
    *ret_device = (unsigned)device;
    return *end == '\0' && device < BACKEND_DEVICES_MAX;
}

static int use_cpu(const struct backend_ops **ret, unsigned *ret_device)
{
    *ret = &backend_cpu;
    *ret_device = 0;
    return 0;
}

bool backend_is_name(const char *name)
{
    unsigned device;

    return strcmp(name, backend_cpu.name) == 0 || strcmp(name, "auto") == 0 ||
           strcmp(name, "cuda-shim") == 0 || is_cuda(name, &device);
}

int backend_find(const char *name, const struct backend_ops **ret, unsigned *ret_device,
                 struct why *why)
{
    unsigned device;

    if (strcmp(name, backend_cpu.name) == 0)
        return use_cpu(ret, ret_device);
    if (strcmp(name, "auto") == 0)
        return find_cuda(0, ret, ret_device, why) == 0 ? 0 : use_cpu(ret, ret_device);
    if (strcmp(name, "cuda-shim") == 0)
        return find_device("libgistd-cuda-shim.so",
                           "it is for tests of the kernels, and `make shim` builds it", 0, ret,
                           ret_device, why);
    if (is_cuda(name, &device))
        return find_cuda(device, ret, ret_device, why);
    return why_set(why, -EINVAL,
                   "option device: found %.80s, allowed: cpu, cuda:0 (or another number below %u), "
                   "auto, cuda-shim",
                   name, BACKEND_DEVICES_MAX);
}

int backend_open(const struct backend_ops *ops, const struct backend_options *o,
                 struct backend **ret, struct why *why)
{
    struct backend_options with_host = *o;
    int r = plugin_check(ops, why);

    if (r < 0)
        return r;
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
