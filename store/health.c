/* A disk may come back at any time, but trying it at every step would only cost time. So pauses
 * double, from a second to five minutes. */
#include "store/health.h"

#include "base/clock.h"
#include "base/shown.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PAUSE_FIRST CLOCK_S
#define PAUSE_MOST  (300 * CLOCK_S)

/* Puts that were under way together fail together: one pause for all of them. */
void health_failed(struct health *h, int err, uint64_t now_ns)
{
    h->write_err = -err;
    if (now_ns < h->until_ns)
        return;
    h->pause_ns = h->pause_ns == 0 ? PAUSE_FIRST : h->pause_ns * 2;
    if (h->pause_ns > PAUSE_MOST)
        h->pause_ns = PAUSE_MOST;
    h->until_ns = now_ns + h->pause_ns;
}

/* One write that succeeded is enough: the next failure begins with the shortest pause again. */
void health_wrote(struct health *h)
{
    h->write_err = 0;
    h->pause_ns = h->until_ns = 0;
}

bool health_writes(const struct health *h, uint64_t now_ns)
{
    return now_ns >= h->until_ns;
}

/* Errors that a person can do something about get better words than the C library's. */
static const char *in_words(int err)
{
    switch (err) {
    case ENOSPC:
        return "the disk is full, or has no file left to give (df, df -i)";
    case EDQUOT:
        return "the user's disk quota is used up";
    case EROFS:
        return "the file system is read-only";
    case EIO:
        return "the disk reports an I/O error";
    case ENOENT:
        return "the folder is gone and can't be made again";
    default:
        return strerror(err);
    }
}

/* The worst thing only, in this order: no answer, writes paused, the last write failed and another
 * may be tried, reads fail, today's budget is used up. The path may hold any bytes and goes to a
 * terminal, so it is shown escaped, and cut to what leaves room for the rest of the sentence. */
void health_say(const struct health *h, const char *path, uint64_t now_ns, char *ret, size_t cap)
{
    char shown[128];
    size_t n = shown_put(SHOWN_LINE, path, strlen(path), shown, sizeof(shown) - 1);

    shown[n] = '\0';
    ret[0] = '\0';
    if (h->silent)
        (void)snprintf(ret, cap,
                       "the disk of %s has not answered for %" PRIu64
                       " s; until it does context is neither kept nor read there",
                       shown, (now_ns - h->silent_since_ns) / CLOCK_S);
    else if (h->write_err != 0 && now_ns < h->until_ns)
        (void)snprintf(ret, cap,
                       "new context is not kept in %s: %s; the next try is in %" PRIu64 " s", shown,
                       in_words(h->write_err), (h->until_ns - now_ns + CLOCK_S - 1) / CLOCK_S);
    else if (h->write_err != 0)
        (void)snprintf(ret, cap, "new context was not kept in %s: %s; it is tried again", shown,
                       in_words(h->write_err));
    else if (h->read_err != 0)
        (void)snprintf(ret, cap, "kept context can't be read from %s: %s; it is computed instead",
                       shown, in_words(h->read_err));
    else if (h->spent)
        (void)snprintf(ret, cap,
                       "new context is not kept in %s: what may be written in 24 hours was written",
                       shown);
}
