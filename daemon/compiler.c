#include "daemon/compiler.h"

#include "base/thread.h"
#include "engine/text/callform.h"
#include "engine/text/ending.h"
#include "engine/text/gbnf.h"
#include "engine/text/schema.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Users whose uids are equal modulo this take turns as one. */
#define TURNS 64u

TAILQ_HEAD(job_list, compiler_job);

/* One thread: more of them would take CPUs from who computes. */
struct compiler {
    const struct vocab *vocab;
    int bell;
    pthread_t thread;
    bool runs;
    pthread_mutex_t lock; /* of all below it */
    pthread_cond_t more;
    struct job_list queue;
    bool stop;
    uint64_t turns[TURNS], turn; /* when a job of such users was begun last; now */
    struct trie *trie; /* the thread's until its first job is done, then nobody's to change */
};

/* --- the thread ------------------------------------------------------------------------------- */

static uint64_t *turn_of(struct compiler *c, const struct compiler_job *job)
{
    return &c->turns[job->uid % TURNS];
}

/* The first job of who had none for the longest: of three users, too, none has two before each of
 * the others had one. Under the lock. */
static struct compiler_job *take(struct compiler *c)
{
    struct compiler_job *job, *best = NULL;

    TAILQ_FOREACH (job, &c->queue, link)
        if (!best || *turn_of(c, job) < *turn_of(c, best))
            best = job;
    TAILQ_REMOVE(&c->queue, best, link);
    *turn_of(c, best) = ++c->turn;
    return best;
}

static int compile_text(struct compiler_job *job)
{
    switch (job->kind) {
    case WIRE_GRAMMAR_GBNF:
        return gbnf_compile(job->text, job->len, &job->grammar, &job->why);
    case WIRE_GRAMMAR_CALLS:
        return callform_compile(job->text, job->len, &job->grammar, &job->why);
    case WIRE_GRAMMAR_SCHEMA:
        return schema_compile(job->text, job->len, &job->grammar, &job->why);
    default:
        return why_set(&job->why, -ENOTSUP, "grammars of kind %d are not known: gistd is too old",
                       (int)job->kind);
    }
}

/* Without the lock. The trie is made with the first job: who uses no grammars pays nothing for
 * it. */
static int compile(struct compiler *c, struct compiler_job *job)
{
    int e = 0;

    if (!c->trie)
        e = trie_new(c->vocab, &c->trie);
    if (e == 0)
        e = compile_text(job);
    if (e == 0)
        e = ending_measure(job->grammar, c->trie);
    if (e < 0) {
        grammar_free(job->grammar);
        job->grammar = NULL;
    }
    return e;
}

static void *work(void *arg)
{
    struct compiler *c = arg;

    (void)pthread_setname_np(pthread_self(), "gistd-grammar");
    (void)pthread_mutex_lock(&c->lock);
    while (!c->stop) {
        struct compiler_job *job;

        if (TAILQ_EMPTY(&c->queue)) {
            (void)pthread_cond_wait(&c->more, &c->lock);
            continue;
        }
        /* Out of the queue: compiler_drop finds it no more, and says so. */
        job = take(c);
        (void)pthread_mutex_unlock(&c->lock);
        job->err = compile(c, job);
        (void)pthread_mutex_lock(&c->lock);
        job->done = true;
        /* Behind `done`: who wakes finds it. */
        (void)eventfd_write(c->bell, 1);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* --- the scheduler ---------------------------------------------------------------------------- */

/* Signals are blocked since before there was a second thread (daemon/control.c). Its stack is
 * enough: what nests is limited (GBNF's brackets, a schema's depth). */
static int start(struct compiler *c)
{
    int e = thread_start(&c->thread, work, c);

    c->runs = e == 0;
    return e;
}

int compiler_new(const struct vocab *v, struct compiler **ret)
{
    struct compiler *c = calloc(1, sizeof(*c));
    int e;

    if (!c)
        return -ENOMEM;
    c->vocab = v;
    TAILQ_INIT(&c->queue);
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->more, NULL);
    c->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    e = c->bell < 0 ? -errno : start(c);
    if (e < 0) {
        compiler_free(c);
        return e;
    }
    *ret = c;
    return 0;
}

/* What is being compiled is waited for. */
void compiler_free(struct compiler *c)
{
    if (!c)
        return;
    (void)pthread_mutex_lock(&c->lock);
    c->stop = true;
    (void)pthread_cond_signal(&c->more);
    (void)pthread_mutex_unlock(&c->lock);
    if (c->runs)
        (void)pthread_join(c->thread, NULL);
    (void)pthread_cond_destroy(&c->more);
    (void)pthread_mutex_destroy(&c->lock);
    if (c->bell >= 0)
        (void)close(c->bell);
    trie_free(c->trie);
    free(c);
}

int compiler_bell(const struct compiler *c)
{
    return c->bell;
}

void compiler_put(struct compiler *c, struct compiler_job *job)
{
    (void)pthread_mutex_lock(&c->lock);
    job->done = false;
    TAILQ_INSERT_TAIL(&c->queue, job, link);
    (void)pthread_cond_signal(&c->more);
    (void)pthread_mutex_unlock(&c->lock);
}

bool compiler_done(struct compiler *c, const struct compiler_job *job)
{
    bool done;

    (void)pthread_mutex_lock(&c->lock);
    done = job->done;
    (void)pthread_mutex_unlock(&c->lock);
    return done;
}

/* False also when it is done: then it is the caller's anyway. */
bool compiler_drop(struct compiler *c, struct compiler_job *job)
{
    struct compiler_job *x;

    (void)pthread_mutex_lock(&c->lock);
    TAILQ_FOREACH (x, &c->queue, link)
        if (x == job)
            break;
    if (x)
        TAILQ_REMOVE(&c->queue, x, link);
    (void)pthread_mutex_unlock(&c->lock);
    return x != NULL;
}

/* Without the lock: the caller has seen a job done, and it does not change after the first. */
const struct trie *compiler_trie(const struct compiler *c)
{
    return c->trie;
}
