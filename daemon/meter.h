/* daemon/meter.h - how long things take, as histograms, and where read tokens came from.
 *
 * Threads    the scheduler's; others have copies (daemon/metrics.h).
 */
#ifndef DAEMON_METER_H
#define DAEMON_METER_H

#include <stdint.h>

/* Upper bounds in seconds, as Prometheus has them; the last bucket has none. */
#define METER_BOUNDS                                                                               \
    {                                                                                              \
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60             \
    }
#define METER_BUCKETS 16u

struct meter_histogram {
    uint64_t n[METER_BUCKETS]; /* not summed up */
    uint64_t sum_ns;
};

struct meter {
    struct meter_histogram first_token[2], queue[2]; /* by enum wire_priority */
    struct meter_histogram between_tokens, cancel;
    uint64_t shared_tokens, restored_tokens; /* of prompts, not computed */
};

void meter_add(struct meter_histogram *h, uint64_t ns);

#endif
