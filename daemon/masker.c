#include "daemon/masker.h"

#include "base/thread.h"
#include "engine/backend.h"
#include "engine/forward.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct job {
    struct form *form;
    struct form_limit limit;
};

/* Jobs pass to the thread as a whole, by n_jobs, and come back by it being 0. So the array needs no
 * lock: only one of the two has it. */
struct masker {
    struct job jobs[FORWARD_RUNS_MAX];
    uint32_t n; /* the scheduler's: that were added */

    pthread_t thread;
    bool runs;
    pthread_mutex_t lock; /* of the next two */
    pthread_cond_t more, done;
    uint32_t n_jobs; /* not 0: the thread has them */
    bool stop;
};

static void *work(void *arg)
{
    struct masker *m = arg;

    (void)pthread_setname_np(pthread_self(), "gistd-mask");
    (void)pthread_mutex_lock(&m->lock);
    while (!m->stop) {
        uint32_t n = m->n_jobs;

        if (n == 0) {
            (void)pthread_cond_wait(&m->more, &m->lock);
            continue;
        }
        (void)pthread_mutex_unlock(&m->lock);
        for (uint32_t i = 0; i < n; i++)
            form_find(m->jobs[i].form, m->jobs[i].limit);
        (void)pthread_mutex_lock(&m->lock);
        m->n_jobs = 0;
        (void)pthread_cond_signal(&m->done);
    }
    (void)pthread_mutex_unlock(&m->lock);
    return NULL;
}

/* Signals are blocked since before there was a second thread (daemon/control.c). Masks have their
 * memory on the heap. */
static int start(struct masker *m)
{
    int e = thread_start(&m->thread, work, m);

    m->runs = e == 0;
    return e;
}

int masker_open(struct masker **ret, const struct backend_info *info)
{
    struct masker *m;
    int e;

    *ret = NULL;
    if (info->memory == 0 && info->threads >= thread_n_cpus()) /* no device, no CPU to spare */
        return 0;
    m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    (void)pthread_mutex_init(&m->lock, NULL);
    (void)pthread_cond_init(&m->more, NULL);
    (void)pthread_cond_init(&m->done, NULL);
    e = start(m);
    if (e < 0)
        masker_close(m);
    else
        *ret = m;
    return e;
}

void masker_close(struct masker *m)
{
    if (!m)
        return;
    (void)pthread_mutex_lock(&m->lock);
    m->stop = true;
    (void)pthread_cond_signal(&m->more);
    (void)pthread_mutex_unlock(&m->lock);
    if (m->runs)
        (void)pthread_join(m->thread, NULL);
    (void)pthread_cond_destroy(&m->more);
    (void)pthread_cond_destroy(&m->done);
    (void)pthread_mutex_destroy(&m->lock);
    free(m);
}

/* The form is borrowed until masker_wait. A step has FORWARD_RUNS_MAX runs at most, and a run one
 * answer. */
void masker_add(struct masker *m, struct form *f, struct form_limit limit)
{
    if (!m)
        return;
    assert(m->n < FORWARD_RUNS_MAX);
    m->jobs[m->n++] = (struct job){ f, limit };
}

void masker_go(struct masker *m)
{
    if (!m || m->n == 0)
        return;
    (void)pthread_mutex_lock(&m->lock);
    m->n_jobs = m->n;
    (void)pthread_cond_signal(&m->more);
    (void)pthread_mutex_unlock(&m->lock);
}

/* Called after each step, given up or not: nobody may touch a form before. */
void masker_wait(struct masker *m)
{
    if (!m || m->n == 0)
        return;
    (void)pthread_mutex_lock(&m->lock);
    while (m->n_jobs > 0)
        (void)pthread_cond_wait(&m->done, &m->lock);
    (void)pthread_mutex_unlock(&m->lock);
    m->n = 0;
}
