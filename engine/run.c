#include "engine/run.h"

bool forward_run_observes(const struct forward_run *run)
{
    return run->observe.weights || run->observe.asks;
}

/* What is neither of the other two. */
bool forward_run_reads(const struct forward_run *run)
{
    return !forward_run_observes(run) && run->gists.kind == FORWARD_NO_GISTS;
}

/* Gists among the tokens are rows of their own, and how many there are follows from where it
 * begins. */
uint32_t forward_run_rows(const struct forward_run *run)
{
    const struct seq *s = run->seq;

    return forward_run_reads(run)
               ? seq_raw_keys(s, s->n_tokens + run->n_tokens) - seq_raw_keys(s, s->n_tokens)
               : run->n_tokens;
}
