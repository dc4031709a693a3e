/* train/run_device.c - which device a process computes on, and the sum of gradients over processes
 * that have one each.
 */
#include "train/run_device.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void give_up(struct tensors **on)
{
    if (*on)
        (*on)->ops->close(*on);
    *on = NULL;
}

/* All on devices or none: values of both are not the same to the bit, and each process must make
 * the same step. With "auto" those that have a device give it back when another has none. */
static int agree(const struct ranks *ranks, bool is_auto, struct tensors **on, struct why *missing,
                 struct why *why)
{
    double with = *on != NULL;

    ranks_sum_double(ranks, &with, 1);
    if (is_auto && with < ranks->n && !missing->text[0])
        (void)why_set(missing, -ENODEV, "only %.0f of %u processes have a device", with, ranks->n);
    if (is_auto && with < ranks->n)
        give_up(on);
    if (is_auto || with == 0 || with == ranks->n)
        return 0;
    return why_set(why, -EINVAL,
                   "process %u computes on %s, but %.0f of %u on a device: give all of them a "
                   "device, or none",
                   ranks->rank, *on ? "a device" : "the CPU", with, ranks->n);
}

int run_device_open(const struct recipe *c, const struct ranks *ranks, struct tensors **ret,
                    char *ret_note, size_t cap, struct why *why)
{
    const struct tensors_ops *ops = NULL;
    struct why missing = { "" };
    bool is_auto = strcmp(c->device, "auto") == 0;
    struct tensors *on = NULL;
    unsigned n = 0;
    int r =
        tensors_find(c->device, ranks->local, ranks->n_local, &ops, &n, is_auto ? &missing : why);

    if (r == 0 && ops)
        r = ops->open(n, &on, is_auto ? &missing : why);
    /* Called by all, also by those that found nothing: it is a collective call. Who asked for a
     * device by name and has none leaves here, and ends the others. */
    if (r == 0 || is_auto)
        r = agree(ranks, is_auto, &on, &missing, why);
    if (r < 0) {
        give_up(&on);
        return r;
    }
    if (is_auto && !on)
        (void)snprintf(ret_note, cap, "On the CPU: %s.", missing.text);
    *ret = on;
    return 0;
}

static int sum_through(struct tensors *on, const struct ranks *ranks, const struct optim_tensor *t,
                       float *between)
{
    size_t len = t->n * sizeof(*between);
    int r;

    /* Waits for all that was queued; MPI gets memory of the process, whatever it was built with. */
    on->ops->get(on, between, t->g, len);
    r = on->ops->error(on);
    if (r < 0) /* nobody steps with what did not arrive: the others wait, until MPI ends them */
        return r;
    ranks_sum(ranks, between, t->n);
    on->ops->put(on, t->g, between, len);
    return 0;
}

/* One tensor after the other: the host needs room for the largest alone. */
int run_device_between(struct tensors *on, const struct ranks *ranks, const struct optim *o,
                       float **ret)
{
    size_t most = 1;

    for (uint32_t i = 0; i < o->n; i++)
        most = o->t[i].n > most ? o->t[i].n : most;
    *ret = on && ranks->n > 1 ? malloc(most * sizeof(**ret)) : NULL;
    return on && ranks->n > 1 && !*ret ? -ENOMEM : 0;
}

int run_device_sum(struct tensors *on, const struct ranks *ranks, const struct optim *o,
                   float *between)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < o->n; i++) {
        if (between)
            r = sum_through(on, ranks, &o->t[i], between);
        else
            ranks_sum(ranks, o->t[i].g, o->t[i].n);
    }
    return r;
}
