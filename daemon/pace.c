#include "daemon/pace.h"

/* A new measurement's weight: some ten steps until a change of speed is followed. */
#define WEIGHT 0.2

/* The first step: just enough to measure something, short on any machine. */
#define FIRST_TOKENS PACE_TOKENS_MIN

void pace_init(struct pace *p, uint32_t n_layers, uint32_t max_tokens)
{
    *p = (struct pace){ .n_layers = n_layers, .max_tokens = max_tokens };
}

/* The least of: what a layer's time allows, which all layers multiply; what a step's does, while
 * somebody decodes; and a batch. */
uint32_t pace_budget(const struct pace *p, bool decoding)
{
    double most = p->ns_per_token > 0 ? (double)PACE_LAYER_NS * p->n_layers / p->ns_per_token
                                      : (double)FIRST_TOKENS;
    uint32_t n;

    if (decoding && p->ns_per_token > 0 && most > (double)PACE_STEP_NS / p->ns_per_token)
        most = (double)PACE_STEP_NS / p->ns_per_token;
    n = most < (double)p->max_tokens ? (uint32_t)most : p->max_tokens;
    if (n >= p->max_tokens)
        return p->max_tokens;
    n -= n % PACE_TOKENS_MIN; /* whole pages */
    return n < PACE_TOKENS_MIN ? PACE_TOKENS_MIN : n;
}

void pace_measured(struct pace *p, uint32_t n_tokens, uint64_t ns)
{
    double now;

    if (n_tokens < PACE_TOKENS_MIN) /* fixed costs would pass for slowness */
        return;
    now = (double)ns / n_tokens;
    p->ns_per_token = p->ns_per_token > 0 ? (1 - WEIGHT) * p->ns_per_token + WEIGHT * now : now;
}

/* A leaking bucket in time. frames_at is when it was last looked at, so that each nanosecond counts
 * once, as earned here or as spent below. */
bool pace_earned(struct pace *p, uint64_t now_ns)
{
    uint64_t more = (now_ns - p->frames_at) / PACE_FRAMES_PART;
    uint64_t room = (uint64_t)(PACE_FRAMES_NS_MAX - p->frames_ns);

    p->frames_ns += (int64_t)(more < room ? more : room);
    p->frames_at = now_ns;
    return p->frames_ns > 0;
}

bool pace_spent(struct pace *p, uint64_t now_ns)
{
    uint64_t less = now_ns - p->frames_at;
    uint64_t room = (uint64_t)(p->frames_ns + PACE_FRAMES_DEBT_NS);

    p->frames_ns -= (int64_t)(less < room ? less : room);
    p->frames_at = now_ns;
    return p->frames_ns > 0;
}

/* The bucket is full again: whoever comes next finds the daemon ready. */
void pace_idle(struct pace *p)
{
    p->frames_ns = PACE_FRAMES_NS_MAX;
}
