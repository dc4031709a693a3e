#include "tests/support/fenced.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct fenced fenced_new(size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (len + page - 1) / page * page + page;
    uint8_t *mem = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (mem == MAP_FAILED || mprotect(mem + room - page, page, PROT_NONE) < 0)
        abort();
    return (struct fenced){ mem, room, mem + room - page - len };
}

void fenced_free(struct fenced *f)
{
    munmap(f->mem, f->len);
}
