/* daemon/headroom.h - how much memory this process can still take, and who says so.
 *
 * Asked are, and the least of them counts:
 *
 *     the machine              MemAvailable of /proc/meminfo
 *     cgroups                  memory.max (v2) or memory.limit_in_bytes (v1) of our own and of
 *                              every one above it, less what is in use there; page cache that can
 *                              be dropped is not in use
 *     this process             RLIMIT_AS, RLIMIT_DATA
 *
 * Swap is not counted: context that lies there would be read from the disk for every token. What
 * other processes take a moment later is not foreseen, so memory that is promised has to be touched
 * at once (place_populate).
 *
 * Threads    any.
 * Errors     none: what can't be read sets no limit.
 */
#ifndef DAEMON_HEADROOM_H
#define DAEMON_HEADROOM_H

#include <stdint.h>

struct headroom {
    uint64_t bytes;  /* UINT64_MAX: nobody sets a limit */
    char cause[320]; /* "the cgroup /a has a limit of 230686720 bytes and 1048576 in use" */
};

/* root: "" for the real /proc and /sys/fs/cgroup, a folder with files of these names in tests. */
void headroom_read(const char *root, struct headroom *ret);

/* The context memory to take: `asked` bytes, or without (0) up to HEADROOM_KV_DEFAULT, and no more
 * than half of what is there. 0: asked can't be had. */
#define HEADROOM_KV_DEFAULT ((uint64_t)512 << 20)
uint64_t headroom_kv_bytes(const struct headroom *h, uint64_t asked);

/* Of a device, which has nothing else to do: all but a sixteenth, and that for what comes
 * later. */
uint64_t headroom_device_kv_bytes(const struct headroom *h);

/* Of the host's, for copies of what leaves a device's pool of so many bytes. It is pinned, so
 * nobody else has it any more: pinning all of a large machine would take long, and its page cache.
 */
#define HEADROOM_HOST_MAX ((uint64_t)32 << 30)
uint64_t headroom_host_bytes(const struct headroom *h, uint64_t pool);

/* Left for what comes later: arenas, texts and the work of requests. */
#define HEADROOM_RESERVE ((uint64_t)32 << 20)

#endif
