/* daemon/metrics.h - the daemon's numbers at one moment, and how Prometheus reads them.
 *
 * The scheduler fills a struct, which goes to the control thread by a letter; that one prints it.
 * Who reads decides what is printed: root and the daemon's user (owner_sees_all) have all of it.
 * Others have what tells nothing of a single request: no times to first tokens, no tokens of
 * prompts or guesses, nothing read from the store or compressed, and of owners their own. From
 * those it would follow how much of another user's prompt was there before.
 *
 * Names are part of the interface: gistd_, base units, no colons.
 *
 * Threads    metrics_print: any. The others: the scheduler's.
 */
#ifndef DAEMON_METRICS_H
#define DAEMON_METRICS_H

#include "daemon/meter.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define METRICS_OWNERS 64u

struct metrics_owner {
    uid_t uid;
    uint32_t clients, sessions, pages, gist_pages;
};

struct metrics {
    char model[129], digest[65];
    uint64_t uptime_ns, requests, requests_failed, prompt_tokens, generated_tokens, steps;
    uint64_t client_errors, drafted_tokens, accepted_tokens, gave_way;
    uint32_t clients, sessions, running, waiting;
    uint32_t kept, detached; /* sessions: that outlive their connection; of these, without one */
    uint64_t detached_bytes; /* of their answers, that nobody has taken */
    uint64_t gist_tokens, gists; /* tokens of sessions that stand compressed, as so many keys */
    uint32_t pages, pages_free, pages_cached;
    uint64_t page_bytes, weights_bytes, kv_bytes;
    bool idle;
    uint32_t pages_returned;
    uint64_t idles, pressures;
    bool store;
    uint64_t store_bytes, store_limit, store_records, store_written, store_read, store_refused;
    uint64_t host_bytes, host_limit, host_records, host_evicted, host_tokens; /* limit 0: none */
    struct meter meter;
    struct metrics_owner owners[METRICS_OWNERS]; /* those beyond are left out */
    uint32_t n_owners;
    uid_t stand_in; /* whose owner is nobody's own (daemon/served.h) */
};

struct owner;
struct sched;

/* What a user's clients and documents have together. */
struct metrics_owner metrics_owner_of(const struct sched *s, const struct owner *o);

void metrics_fill(struct metrics *m, struct sched *s);

/* m NULL: the model is not loaded. all: the reader may have all; else what concerns uid. */
void metrics_print(const struct metrics *m, bool all, uid_t uid, FILE *out);

#endif
