/* http/pool.c - idle connections as a stack: the one that was used last is taken first, and is the
 * likeliest to be alive. What is over POOL_IDLE_MAX is closed. */

#include "http/pool.h"

#include <stdio.h>
#include <string.h>

#define CONNECT_MS 10000 /* a daemon that answers nothing at all, not even that it loads */

void pool_init(struct pool *p, const char *path, unsigned max)
{
    *p = (struct pool){ .path = path, .max = max };
    (void)pthread_mutex_init(&p->lock, NULL);
}

void pool_fini(struct pool *p)
{
    while (p->n_idle > 0)
        gist_disconnect(p->idle[--p->n_idle]);
    (void)pthread_mutex_destroy(&p->lock);
}

static int on_loading(void *arg, unsigned percent)
{
    unsigned *to = arg;

    *to = percent;
    return 1; /* who asked is told so, and comes again */
}

/* A daemon that loads its model is not waited for: the client is told so and comes again, and its
 * place is free for others meanwhile. */
int pool_open(struct pool *p, gist_conn **ret, struct problem *problem)
{
    unsigned percent = 0;
    const struct gist_connect_opts opts = { .size = sizeof(opts),
                                            .path = p->path,
                                            .name = "gist-http",
                                            .timeout_ms = CONNECT_MS,
                                            .on_loading = on_loading,
                                            .arg = &percent };

    if (gist_connect_with(&opts, ret) == 0)
        return 0;
    if (gist_error_code(NULL) == GIST_E_CANCELLED)
        return problem_set(problem, PROBLEM_LOADING, NULL,
                           "gistd is loading its model (%u %%): ask again in a moment", percent);
    return problem_of_gist(problem, NULL);
}

static void count_out(struct pool *p, int by)
{
    (void)pthread_mutex_lock(&p->lock);
    p->n_out += (unsigned)by;
    (void)pthread_mutex_unlock(&p->lock);
}

/* Its place is taken before it connects, which may take long, and given back if that fails. */
int pool_take(struct pool *p, gist_conn **ret, bool *ret_fresh, struct problem *problem)
{
    gist_conn *c = NULL;
    bool full;
    int r;

    (void)pthread_mutex_lock(&p->lock);
    full = p->n_out >= p->max;
    p->n_out += !full;
    if (!full && p->n_idle > 0)
        c = p->idle[--p->n_idle];
    (void)pthread_mutex_unlock(&p->lock);
    if (full)
        return problem_set(problem, PROBLEM_LIMIT, NULL,
                           "%u requests are being answered, as many as --max-requests allows: ask "
                           "again in a moment",
                           p->max);
    if (c && gist_dispatch(c) < 0) { /* its daemon is gone */
        gist_disconnect(c);
        c = NULL;
    }
    *ret_fresh = !c;
    *ret = c;
    if (c)
        return 0;
    r = pool_open(p, ret, problem);
    if (r < 0)
        count_out(p, -1);
    return r;
}

/* The place stays taken, but for when there is no new one. */
int pool_renew(struct pool *p, gist_conn *c, gist_conn **ret, struct problem *problem)
{
    int r;

    gist_disconnect(c);
    r = pool_open(p, ret, problem);
    if (r < 0)
        count_out(p, -1);
    return r;
}

int pool_take_stats(struct pool *p, gist_conn **ret, struct gist_stats *ret_stats,
                    struct problem *problem)
{
    gist_conn *c;
    bool fresh;
    int r;

    if (pool_take(p, &c, &fresh, problem) < 0)
        return -1;
    r = gist_stats(c, ret_stats);
    /* The daemon was started anew since: once more, on one that can't be from before. */
    if (r < 0 && !fresh && gist_error_code(c) == GIST_E_TRANSPORT) {
        if (pool_renew(p, c, &c, problem) < 0)
            return -1;
        r = gist_stats(c, ret_stats);
    }
    if (r < 0) {
        (void)problem_of_gist(problem, c);
        pool_drop(p, c);
        return -1;
    }
    *ret = c;
    return 0;
}

/* Ollama's clients add a tag to a name that has none. */
int pool_check_model(const gist_conn *c, const char *asked, struct problem *problem)
{
    struct gist_info info;
    size_t n;

    gist_info(c, &info);
    n = strlen(info.model);
    if (!asked || strcmp(asked, info.model) == 0 ||
        (strncmp(asked, info.model, n) == 0 && strcmp(asked + n, ":latest") == 0))
        return 0;
    return problem_set(problem, PROBLEM_NOT_FOUND, "model",
                       "there is no model \"%s\" here: gistd serves \"%s\"", asked, info.model);
}

void pool_put(struct pool *p, gist_conn *c)
{
    (void)pthread_mutex_lock(&p->lock);
    p->n_out--;
    if (p->n_idle < POOL_IDLE_MAX) {
        p->idle[p->n_idle++] = c;
        c = NULL;
    }
    (void)pthread_mutex_unlock(&p->lock);
    gist_disconnect(c);
}

void pool_drop(struct pool *p, gist_conn *c)
{
    gist_disconnect(c);
    count_out(p, -1);
}
