/* cuda/together.c - one thread queues the same for all devices, layer by layer.
 *
 * What is added up must be queued on all devices or on none, and a device that fails leaves the
 * others waiting in a sum: so whoever waits here looks at all of them, and after an error none is
 * waited for before the sums are aborted.
 */
#include "cuda/together.h"

#include "cuda/step_inner.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

/* Looks at the devices between two questions whether to stop. */
#define LOOKS 64u
/* A sum of a trial takes milliseconds, and what never arrives is waited for without an error. */
#define TRIAL_S 60

/* y: of each device's own memory. */
struct together {
    struct part *parts;
    uint32_t n;
    struct sums *sums;
    float *y[BACKEND_DEVICES_MAX]; /* of each what is added up */
};

/* --- waiting ---------------------------------------------------------------------------------- */

static struct step *step_of(const struct together *t, uint32_t device)
{
    return t->parts[device].step;
}

/* The event of all devices that their layer i marks. In the computing streams, behind all that was
 * queued so far, sums included. */
static int mark(struct together *t, uint32_t i)
{
    int r = 0;

    for (uint32_t d = 0; d < t->n && r == 0; d++) {
        struct step *s = step_of(t, d);

        r = rt_record(s->rt, RT_COMPUTE, s->done[i % STEP_AHEAD]);
    }
    return r;
}

/* How many devices have not come to it. An error of one device counts before the patience for
 * others: these may be waiting for it. */
static int not_there(struct together *t, uint32_t i)
{
    int n = 0;

    for (uint32_t d = 0; d < t->n; d++) {
        struct step *s = step_of(t, d);
        int r = rt_event_done(s->rt, s->done[i % STEP_AHEAD]);

        if (r < 0 && r != -EAGAIN)
            return r;
        n += r == -EAGAIN;
    }
    return n;
}

/* Without a call that waits: that would be for one device, whose work may never end. */
static int await(struct together *t, uint32_t i, const struct forward_stop *stop)
{
    for (unsigned n = 1;; n++) {
        int r = not_there(t, i);

        if (r <= 0)
            return r;
        if (n % LOOKS == 0 && forward_told_to_stop(stop))
            return -ECANCELED;
    }
}

/* After an error: those that wait in a sum for a device that failed go on. */
static void give_up(struct together *t)
{
    sums_abort(t->sums);
    for (uint32_t d = 0; d < t->n; d++)
        (void)rt_wait(t->parts[d].rt, RT_COMPUTE);
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Sums of these over any devices are exact. Up to 8 * 9 / 2 * 97: far below what f32 counts in
 * ones. Each place has another value than its neighbours, and each device its own. */
static float trial_value(uint32_t device, size_t i)
{
    return (float)((device + 1) * (i % 97 + 1));
}

/* host (n) is read before part_put returns, and may be written for the next device. */
static int put_trial(struct together *t, float *host, size_t n)
{
    int r = 0;

    for (uint32_t d = 0; d < t->n && r == 0; d++) {
        for (size_t i = 0; i < n; i++)
            host[i] = trial_value(d, i);
        r = part_put(&t->parts[d], t->y[d], host, n * sizeof(*host), NULL);
        if (r == 0)
            r = part_join(&t->parts[d]);
    }
    return r;
}

/* 1: every device has what it should. */
static int get_trial(struct together *t, float *host, size_t n)
{
    int r = 0;

    for (uint32_t d = 0; d < t->n && r == 0; d++) {
        r = part_get(&t->parts[d], host, t->y[d], n * sizeof(*host), NULL);
        /* The sum over devices 0 .. n - 1 of d + 1 is n (n + 1) / 2: what a device of that number
         * would have sent. */
        for (size_t i = 0; i < n && r == 0; i++)
            if (host[i] != trial_value(t->n * (t->n + 1) / 2 - 1, i))
                return 0;
    }
    return r < 0 ? r : 1;
}

static bool is_over(void *arg)
{
    const struct timespec *end = arg;
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > end->tv_sec;
}

/* -ECANCELED: it does not end. */
static int await_trial(struct together *t)
{
    struct timespec end;
    const struct forward_stop stop = { is_over, &end };
    int r = mark(t, 0);

    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += TRIAL_S;
    if (r == 0)
        r = await(t, 0, &stop);
    if (r < 0)
        give_up(t);
    return r;
}

/* Of a token and of the most: a library takes other ways for them, and its memory for each. Behind
 * an IOMMU other bytes may arrive, as between two devices (cuda/link.h). */
static int try_sums(struct together *t, size_t row, uint32_t max_rows, struct why *why)
{
    const size_t sizes[] = { row, max_rows * row };
    float *host = malloc(max_rows * row * sizeof(*host));
    int r = 1;

    if (!host)
        return why_set(why, -ENOMEM, "no memory for sums over devices");
    for (unsigned i = 0; i < 2 && r == 1; i++) {
        r = put_trial(t, host, sizes[i]);
        if (r == 0)
            r = sums_run(t->sums, t->y, sizes[i]);
        if (r == 0)
            r = await_trial(t);
        if (r == 0)
            r = get_trial(t, host, sizes[i]);
    }
    free(host);
    if (r == 0)
        return why_set(why, -ENODEV,
                       "what is added up over %s:%u and the others is not what was sent: over PCIe "
                       "behind an IOMMU try iommu=pt, or NCCL_P2P_DISABLE=1 in the environment, or "
                       "use --split-mode layer",
                       rt_name, t->parts[0].number);
    if (r == -ECANCELED)
        return why_set(why, -ENODEV,
                       "sums over %s:%u and the others do not end: what one device sends does not "
                       "reach another; try NCCL_P2P_DISABLE=1 in the environment, or use "
                       "--split-mode layer",
                       rt_name, t->parts[0].number);
    return r < 0 ? why_set(why, r,
                           "sums over devices fail (NCCL_DEBUG=WARN in the environment "
                           "says more); use --split-mode layer")
                 : 0;
}

int together_open(struct part *parts, uint32_t n, uint32_t max_rows, struct together **ret,
                  struct why *why)
{
    struct together *t = calloc(1, sizeof(*t));
    size_t row = parts[0].model.n_embd;
    int devices[BACKEND_DEVICES_MAX], r;
    void *streams[BACKEND_DEVICES_MAX];

    if (!t)
        return why_set(why, -ENOMEM, "no memory for sums over devices");
    t->parts = parts;
    t->n = n;
    for (uint32_t i = 0; i < n; i++) {
        devices[i] = (int)parts[i].number;
        streams[i] = rt_stream(parts[i].rt, RT_COMPUTE);
        /* Where wo and w_down leave their results; the sum takes their place. */
        t->y[i] = step_residual(parts[i].step).y;
    }
    /* Up to all rows of a step at once. */
    r = sums_open(devices, streams, n, max_rows * row, &t->sums, why);
    if (r == 0)
        r = try_sums(t, row, max_rows, why);
    if (r < 0) {
        together_close(t, true);
        return r;
    }
    *ret = t;
    return 0;
}

size_t together_need(const struct model *m, uint32_t n, uint32_t max_rows)
{
    return sums_need(n, (size_t)max_rows * m->n_embd);
}

void together_close(struct together *t, bool lost)
{
    if (!t)
        return;
    if (lost && t->sums)
        sums_abort(t->sums);
    sums_close(t->sums);
    free(t);
}

/* --- the step --------------------------------------------------------------------------------- */

/* n_rows of each device, from the first on: the same number on all, or a sum would never end. */
static int add_up(struct together *t, uint32_t n_rows)
{
    return sums_run(t->sums, t->y, (size_t)n_rows * t->parts[0].model.n_embd);
}

static int run_layer(struct together *t, uint32_t i)
{
    uint32_t n_left = 0; /* the same on all of them */
    int r = 0;

    /* All of the layer's first half is queued on each device before the sum, which has to be queued
     * on all of them at a time. */
    for (uint32_t d = 0; d < t->n && r == 0; d++) {
        r = rt_use(t->parts[d].rt);
        if (r == 0)
            r = step_attention(step_of(t, d), i, &n_left);
    }
    if (r < 0 || n_left == 0)
        return r;
    r = add_up(t, n_left);
    for (uint32_t d = 0; d < t->n && r == 0; d++) {
        r = rt_use(t->parts[d].rt);
        if (r == 0)
            r = step_ffn(step_of(t, d), i, n_left);
    }
    return r == 0 ? add_up(t, n_left) : r;
}

/* The same plan for all: each has its own copy of it, with its own addresses. */
static int start(struct together *t, const struct plan *plan)
{
    int r = 0;

    for (uint32_t d = 0; d < t->n && r == 0; d++) {
        r = rt_use(t->parts[d].rt);
        if (r == 0)
            r = step_start(step_of(t, d), plan);
        if (r == 0)
            r = step_embed(step_of(t, d));
    }
    return r;
}

static int run_layers(struct together *t, const struct plan *plan, const struct forward_stop *stop)
{
    uint32_t n_layer = t->parts[0].model.n_layer;
    int r = start(t, plan);

    for (uint32_t i = 0; i < n_layer && r == 0; i++) {
        if (forward_told_to_stop(stop))
            return -ECANCELED;
        /* The mark is still that of layer i - STEP_AHEAD. */
        if (i >= STEP_AHEAD)
            r = await(t, i, stop);
        if (r == 0)
            r = run_layer(t, i);
        if (r == 0)
            r = mark(t, i);
    }
    /* On all, though the last one alone has the output matrix: hidden states are wanted on each. */
    for (uint32_t d = 0; d < t->n && r == 0; d++) {
        r = rt_use(t->parts[d].rt);
        if (r == 0)
            r = step_last_norm(step_of(t, d));
    }
    return r;
}

/* What was given up still reads the plan and writes to pages, and ends first, as cuda/step.c has
 * it. */
static int finish(struct together *t, int r)
{
    /* done[0] is recorded anew: the layer that had it comes before. */
    int e = r == -EIO ? r : mark(t, 0);

    if (e == 0)
        e = await(t, 0, NULL);
    if (e < 0)
        give_up(t);
    return r < 0 ? r : e;
}

int together_step(struct together *t, const struct plan *plan, const struct forward_stop *stop)
{
    int r = finish(t, run_layers(t, plan, stop));

    /* Only now are there outputs to ask for: step_start has taken those of the step before away. */
    for (uint32_t d = 0; d < t->n && r == 0; d++)
        step_of(t, d)->n_out = plan->n_out;
    return r;
}
