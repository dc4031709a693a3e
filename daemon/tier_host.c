/* Memory that a device and a disk copy from and to: it stays where it is, registered with both.
 * What it can't be registered with costs speed, and nothing else.
 */
#include "daemon/tier_inner.h"

#include "store/io.h"
#include "store/record.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

/* What only passes through has so much at least (host_bytes in daemon/tier.h). */
#define STAGE_BYTES ((uint64_t)64 << 20)

/* Refused, the backend copies by memory of its own. Other users of it are not told: a daemon whose
 * system locks less than it was asked to says so once, at start. */
static void pin(struct tier *t)
{
    size_t len;
    void *mem = shelf_memory(t->shelf, &len);
    int r = t->backend->ops->pin ? t->backend->ops->pin(t->backend, mem, len) : 0;

    t->pinned = r == 0;
    if (r < 0)
        (void)why_set(
            &t->note, r,
            "host-bytes: %zu bytes of host memory can't be pinned (%s): copies of context "
            "to and from the device take longer; raise the limit of locked memory, or "
            "lower host-bytes",
            len, strerror(-r));
}

/* Room for two segments of the default length is kept free of records, so that one can be copied
 * while the disk has the other. */
static int open_shelf(struct tier *t, uint64_t bytes)
{
    size_t page = t->pool->page_bytes;
    uint64_t stage = (uint64_t)2 * SEQ_SEGMENT_DEFAULT / POOL_PAGE_TOKENS * page;
    struct shelf_options o = { .page_bytes = page, .bytes = bytes, .passes = bytes == 0 };

    if (stage < STAGE_BYTES)
        stage = STAGE_BYTES;
    o.n_stage = (uint32_t)(stage / page);
    if (o.passes)
        o.bytes = stage + o.n_stage * 16; /* and what it counts them with */
    return shelf_open(&o, &t->shelf);
}

/* Without the memory that was asked for what passes through to a store still has room, or there is
 * nothing that this would be for. */
int tier_host_open(struct tier *t, uint64_t bytes)
{
    int r = open_shelf(t, bytes);

    /* The seed of hashes where no store has one: nobody can make two texts that meet. */
    if (getrandom(t->secret, sizeof(t->secret), 0) != (ssize_t)sizeof(t->secret))
        return -EIO;
    if (r < 0 && bytes > 0) {
        (void)why_set(&t->note, r,
                      r == -EINVAL
                          ? "host-bytes: %llu bytes have no room for two pages of context: none is "
                            "kept in host memory"
                          : "host-bytes: there is no memory for %llu bytes: no context is kept in "
                            "host memory",
                      (unsigned long long)bytes);
        r = t->store ? open_shelf(t, 0) : r;
    }
    if (r < 0)
        return r;
    pin(t);
    if (t->io) {
        size_t len;
        void *mem = shelf_memory(t->shelf, &len);

        (void)io_register(t->io, mem, len); /* refused: each transfer pins its pages anew */
    }
    return 0;
}

/* Memory was registered with the device that is gone. The disk's registration is still good. */
void tier_again(struct tier *t)
{
    if (t->shelf)
        pin(t);
}

void tier_host_close(struct tier *t)
{
    size_t len;
    void *mem;

    if (!t->shelf)
        return;
    mem = shelf_memory(t->shelf, &len);
    if (t->pinned && t->backend->ops->unpin)
        t->backend->ops->unpin(t->backend, mem, len);
    if (t->io)
        io_unregister(t->io);
    shelf_close(t->shelf);
}

/* With a store its own seed, so that a record has one name in host memory and on the disk. */
struct store_hash tier_hash(const struct tier *t, struct store_hash before, const uint32_t *ids,
                            uint32_t n)
{
    return t->store ? store_hash(t->store, before, ids, n) : record_hash(t->secret, before, ids, n);
}
