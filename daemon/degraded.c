#include "daemon/degraded.h"

#include "daemon/log.h"

#include <inttypes.h>
#include <time.h>

/* The sentence may change while it lasts (when the next try is): only its beginning is news. */
void degraded_look(struct degraded *d, const char *sentence)
{
    uint64_t now = (uint64_t)time(NULL);

    if (sentence[0] && d->since_s == 0) {
        d->since_s = now > 0 ? now : 1;
        log_peer_about(LOG_LEVEL_WARNING,
                       &(struct journal_about){ .message = JOURNAL_STORE_DEGRADED },
                       "store: %s; sessions go on", sentence);
    } else if (!sentence[0] && d->since_s > 0) {
        log_peer_about(LOG_LEVEL_INFO, &(struct journal_about){ .message = JOURNAL_STORE_WELL },
                       "store: all is well again, after %" PRIu64 " s",
                       now > d->since_s ? now - d->since_s : 0);
        d->since_s = 0;
    }
}
