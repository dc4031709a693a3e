#include "cuda/part.h"

#include <errno.h>
#include <stdlib.h>

/* A stage for each of the two kinds of copies, as one that waited for pages to the disk would hold
 * a step up. */
int part_open(struct part *p, unsigned number, int bell, struct why *why)
{
    int r;

    *p = (struct part){ .number = number };
    r = rt_open(number, &p->rt, why);
    if (r == 0 && (stage_open(p->rt, RT_COPY, -1, &p->stage) < 0 ||
                   stage_open(p->rt, RT_SPILL, bell, &p->spills) < 0))
        r = why_set(why, -ENOMEM, "no pinned memory for copies to %s:%u", rt_name, number);
    return r;
}

/* What borrows goes first. The number and the view stay, for opening again after a loss. */
void part_close(struct part *p)
{
    if (p->rt)
        (void)rt_use(p->rt);
    shift_close(p->shift);
    step_close(p->step);
    stage_close(p->spills);
    stage_close(p->stage);
    rt_close(p->rt);
    free(p->layers);
    *p = (struct part){ .number = p->number, .view = p->view };
}

int part_set_model(struct part *p, const struct model *m, uint32_t n_layers, uint32_t max_rows,
                   struct why *why)
{
    int r = rt_use(p->rt);

    p->layers = calloc(n_layers, sizeof(*p->layers));
    if (!p->layers)
        return why_set(why, -ENOMEM, "no memory for a model's layers");
    view_model(&p->view, m, n_layers, p->layers, &p->model);
    if (r == 0)
        /* The view's model is a copy, with pointers of this device. */
        r = step_open(p->rt, p->stage, &p->model, &p->view, max_rows, &p->step, why);
    if (r == 0 &&
        shift_open(p->rt, p->stage, &p->model, &p->view, step_angles(p->step), &p->shift) < 0)
        r = why_set(why, -ENOMEM, "no memory on the device for moving keys");
    return r;
}

size_t part_scratch(const struct part *p)
{
    return p->step ? step_bytes(p->step) + shift_bytes(p->shift) : 0;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* Spills too: who computes with a page that was just hydrated must see it. */
int part_join(struct part *p)
{
    int r = rt_use(p->rt);

    if (r == 0)
        r = stage_join(p->stage);
    return r == 0 ? stage_join(p->spills) : r;
}

/* The computing stream last: it may follow the other two. */
int part_wait(struct part *p)
{
    static const enum rt_stream all[] = { RT_COPY, RT_SPILL, RT_COMPUTE };
    int r = 0;

    for (unsigned i = 0; i < sizeof(all) / sizeof(*all) && r == 0; i++)
        r = rt_wait(p->rt, all[i]);
    return r;
}

/* In the computing stream: fast, and in order with what uses it. */
int part_clear(struct part *p, void *mem, size_t n)
{
    int r = part_join(p);

    return r == 0 ? rt_clear(p->rt, RT_COMPUTE, mem, n) : r;
}

int part_copy(struct part *p, void *to, const void *from, size_t n)
{
    int r = part_join(p);

    return r == 0 ? rt_copy(p->rt, RT_COMPUTE, to, from, n) : r;
}

/* By way of what computes, which shall not wait for a copy with a ticket only because there is
 * another: such a copy comes behind the other stage's, which what computes follows, and no more is
 * asked of it. One without sees copies of both. */
static int join_for(struct part *p, const uint64_t *ret_ticket)
{
    int r = rt_use(p->rt);

    if (r < 0)
        return r;
    return ret_ticket ? stage_join(p->stage) : part_join(p);
}

int part_put(struct part *p, void *to, const void *host, size_t n, uint64_t *ret_ticket)
{
    int r = join_for(p, ret_ticket);

    return r == 0 ? stage_put(ret_ticket ? p->spills : p->stage, to, host, n, ret_ticket) : r;
}

int part_get(struct part *p, void *host, const void *from, size_t n, uint64_t *ret_ticket)
{
    int r = join_for(p, ret_ticket);

    return r == 0 ? stage_get(ret_ticket ? p->spills : p->stage, host, from, n, ret_ticket) : r;
}
