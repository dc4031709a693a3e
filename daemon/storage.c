/* Opened after the model, since what a record means depends on it, and before READY, so that the
 * first request finds what was kept.
 */
#include "daemon/storage.h"

#include "daemon/cache_dir.h"
#include "daemon/headroom.h"
#include "daemon/log.h"
#include "daemon/served.h"
#include "daemon/tier.h"
#include "engine/kv/seq.h"
#include "store/io.h"
#include "store/record.h"
#include "store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#define DAY_S 86400u

/* False: there is to be none, or nobody says where. */
bool storage_folder(const struct config *c, char ret[CACHE_DIR_MAX])
{
    if (strcmp(c->store, "none") == 0)
        return false;
    if (!c->store[0])
        return cache_dir("store", ret);
    (void)snprintf(ret, CACHE_DIR_MAX, "%s", c->store);
    return true;
}

/* The disk is others', too: of what the store has and what is free it takes no more than half. */
static void bound(struct store *store, const char *path, uint64_t most)
{
    struct store_stats s;
    struct statvfs fs;
    uint64_t room;

    if (statvfs(path, &fs) < 0)
        return;
    store_stats(store, &s);
    room = (s.bytes + (uint64_t)fs.f_bavail * fs.f_frsize) / 2;
    if (room < most)
        store_set_limit(store, room);
}

/* Each put would be refused, and nobody told why nothing ever comes back. */
static void warn_of_small(const struct served *b, uint32_t segment)
{
    const struct record r = { .n_tokens = segment,
                              .n_pages = seq_n_pages(segment),
                              .page_bytes = (uint32_t)b->pool.page_bytes };
    uint64_t len = record_len(&r);
    struct store_stats s;

    store_stats(b->store, &s);
    if (len > s.limit)
        log_warning(
            "the store may have %.1f MiB, and a segment of %u tokens takes %.1f MiB: none is "
            "kept; raise --store-bytes, or make room on its disk",
            (double)s.limit / (1 << 20), segment, (double)len / (1 << 20));
}

_Static_assert((int)CONFIG_IO_AUTO == IO_AUTO && (int)CONFIG_IO_URING == IO_URING &&
                   (int)CONFIG_IO_THREADS == IO_THREADS,
               "the option's choices are the io's kinds");

/* Why there is no io_uring is no error where threads will do. */
static int open_io(struct served *b, const struct config *c)
{
    const struct io_options io = { .kind = (enum io_kind)c->io };
    int r = io_open(&io, &b->io, &b->store_why);

    if (r == 0 && io_why(b->io)[0])
        log_info("the store is read and written by threads: %s", io_why(b->io));
    return r;
}

/* Limits first, then half of the disk: store_open has counted what is there. */
static int open_store(struct served *b, const struct config *c, const char *path)
{
    const struct store_limits limits = { .bytes = c->store_bytes,
                                         .owner_bytes = c->owner_store_bytes,
                                         .write_a_day = c->store_write_bytes,
                                         .age_s = (uint64_t)c->store_age * DAY_S };
    int r = store_open(path, b->io, &limits, &b->store, &b->store_why);

    if (r < 0)
        return r;
    if (store_note(b->store)[0])
        log_info("%s", store_note(b->store));
    bound(b->store, path, c->store_bytes);
    warn_of_small(b, c->segment);
    return 0;
}

/* -errno: io_uring was asked for, and can't be had. */
static int open_disk(struct served *b, const struct config *c, struct why *why)
{
    char path[CACHE_DIR_MAX];
    int r;

    if (strcmp(c->store, "none") == 0) {
        (void)why_set(&b->store_why, -ENOENT, "the store is switched off (--store none)");
        return 0;
    }
    r = open_io(b, c);
    /* Whoever asks for it wants to know that he has it. */
    if (r < 0 && c->io == CONFIG_IO_URING)
        return why_set(why, r, "option io: %s; with auto or threads gistd does without",
                       b->store_why.text);
    if (r == 0 && !storage_folder(c, path))
        r = why_set(&b->store_why, -ENOENT,
                    "there is no folder for the store: set --store, or HOME");
    if (r == 0)
        r = open_store(b, c, path);
    if (r < 0) {
        log_warning("context is kept in memory only: %s", b->store_why.text);
        storage_close(b);
    }
    return 0;
}

/* Bytes of host memory behind a device's pool. */
static int choose_host(const struct served *b, const struct config *c, uint64_t *ret,
                       struct why *why)
{
    struct headroom room;
    uint64_t asked;
    int r = config_host_bytes(c, &asked, why);

    *ret = 0;
    if (r < 0 || asked == 0)
        return r;
    if (backend_host(b->backend, b->pool.mem)) {
        if (asked != CONFIG_HOST_AUTO)
            log_warning(
                "host-bytes is of no use with --device %s: its context is in this machine's "
                "memory already",
                c->device);
        return 0;
    }
    headroom_read("", &room);
    *ret = asked == CONFIG_HOST_AUTO ? headroom_host_bytes(&room, b->pool.mem_len) : asked;
    if (*ret <= room.bytes)
        return 0;
    return why_set(why, -ENOMEM,
                   "option host-bytes: found %" PRIu64 ", but %" PRIu64
                   " are available: %s; lower host-bytes or raise the limit",
                   *ret, room.bytes, room.cause);
}

/* Without it nothing would go to the store or come from there, so that is closed as well. */
static void open_tier(struct served *b, const struct config *c, uint64_t host)
{
    const struct tier_options o = { .store = b->store,
                                    .pool = &b->pool,
                                    .model = b->model,
                                    .idle_ns = (uint64_t)c->store_idle_ms * 1000000,
                                    .always = c->store_restore == CONFIG_RESTORE_ALWAYS,
                                    .host_bytes = host,
                                    .io = b->io };

    if (!b->store && host == 0)
        return;
    if (tier_open(&o, &b->tier) < 0) {
        if (b->store)
            (void)why_set(&b->store_why, -ENOMEM, "no memory for the store's queue");
        log_warning("context that leaves the pool is not kept: there is no memory for it");
        storage_close(b);
        return;
    }
    if (tier_host_note(b->tier)[0])
        log_warning("%s", tier_host_note(b->tier));
}

int storage_open(struct served *b, const struct config *c, struct why *why)
{
    uint64_t host;
    int r = choose_host(b, c, &host, why);

    if (r == 0)
        r = open_disk(b, c, why);
    if (r == 0)
        open_tier(b, c, host);
    return r;
}

/* The store first: what it calls back belongs to the tier. */
void storage_close(struct served *b)
{
    /* Else memory and io are what the disk may still write to: they are left to the end of the
     * process. */
    if (store_close(b->store)) {
        tier_close(b->tier);
        io_close(b->io);
    } else {
        log_warning("what the disk of the store has not answered to is given up");
    }
    b->store = NULL;
    b->tier = NULL;
    b->io = NULL;
}
