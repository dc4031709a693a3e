/* The threads are the backend's workers, who have nothing else to do at that moment. `next` is all
 * that they share: each answer is one worker's, and its request is nobody else's until backend_run
 * returns. */
#include "daemon/draws.h"

#include "daemon/request.h"
#include "daemon/sched.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

struct draws {
    uint32_t n_threads, n_vocab;
    struct sampler_candidate candidates[]; /* (n_threads, n_vocab) */
};

struct job {
    const struct sched *s;
    struct request *const *requests;
    float *const *rows;
    uint32_t n;
    _Atomic uint32_t next;
};

int draws_open(struct draws **ret, const struct backend_info *info, uint32_t n_vocab)
{
    uint32_t n = info->threads < DRAWS_MOST ? info->threads : DRAWS_MOST;

    *ret = NULL;
    if (n < 2)
        return 0;
    *ret = malloc(sizeof(**ret) + (size_t)n * n_vocab * sizeof((*ret)->candidates[0]));
    if (!*ret)
        return -ENOMEM;
    (*ret)->n_threads = n;
    (*ret)->n_vocab = n_vocab;
    return 0;
}

void draws_close(struct draws *d)
{
    free(d);
}

/* A slice is a scratch, and not an answer: some take fifty times as long as others. */
static void draw_some(void *arg, uint32_t slice, uint32_t worker)
{
    struct job *j = arg;
    struct draws *d = j->s->draws;
    uint32_t i;

    (void)worker;
    /* Relaxed: only the number counts. What was drawn is seen after backend_run's barrier. */
    while ((i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->n)
        if (j->requests[i]->ops->draw)
            j->requests[i]->ops->draw(j->s, j->requests[i], j->rows[i],
                                      d->candidates + (size_t)slice * d->n_vocab);
}

void draws_make(struct sched *s, struct request *const *requests, float *const *rows, uint32_t n)
{
    struct job j = { .s = s, .requests = requests, .rows = rows, .n = n };

    if (!s->draws || n < 2)
        return;
    backend_run(s->served.backend, draw_some, &j,
                n < s->draws->n_threads ? n : s->draws->n_threads);
}
