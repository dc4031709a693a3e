/* cuda/part.h - one device of a backend: its runtime, its copies, and its layers of the model.
 *
 * Addresses are the device's own. Each call makes the device the calling thread's (rt_use): the
 * thread that opened it need not be the one that computes.
 *
 * Threads    one at a time.
 * Errors     -ENOMEM, -EIO (cuda/rt.h).
 */
#ifndef CUDA_PART_H
#define CUDA_PART_H

#include "cuda/rt.h"
#include "cuda/shift.h"
#include "cuda/spread.h"
#include "cuda/stage.h"
#include "cuda/step.h"

struct part {
    unsigned number; /* the device's */
    struct rt *rt;
    struct stage *stage;  /* for what computes */
    struct stage *spills; /* copies with a ticket: they run beside what computes */
    struct spread_view view;
    struct model model;         /* with its layers, once there is one */
    struct model_layer *layers; /* the model's */
    struct step *step;          /* NULL until there is a model, and so is the other */
    struct shift *shift;
};

/* bell: as stage_open has it, for copies with a ticket. After an error, part_close. */
int part_open(struct part *p, unsigned number, int bell, struct why *why);
void part_close(struct part *p);

/* n_layers of m's: those that the view says. */
int part_set_model(struct part *p, const struct model *m, uint32_t n_layers, uint32_t max_rows,
                   struct why *why);
size_t part_scratch(const struct part *p);

/* What computes from now on sees all copies, of both kinds. */
int part_join(struct part *p);
/* Nothing is queued any more. */
int part_wait(struct part *p);
int part_clear(struct part *p, void *mem, size_t n);
int part_copy(struct part *p, void *to, const void *from, size_t n);
/* A copy sees those before it. */
int part_put(struct part *p, void *to, const void *host, size_t n, uint64_t *ret_ticket);
int part_get(struct part *p, void *host, const void *from, size_t n, uint64_t *ret_ticket);

#endif
