/* train/run_room.h - what a recipe asks for, in shapes and in bytes, before anything is loaded.
 *
 * Threads    any.
 * Errors     run_room_make: -ENOMEM, or why the model's file or the recipe can't be
 * (engine/file/gguf.h, train/net/layout.h), with a sentence. run_room_check: -ENOMEM.
 */
#ifndef TRAIN_RUN_ROOM_H
#define TRAIN_RUN_ROOM_H

#include "train/recipe.h"
#include "train/step.h"

#include <stdio.h>

struct gists_shape run_room_gists(const struct recipe *c);
struct step_rule run_room_rule(const struct recipe *c);
/* A copy of the base as it was is there, too. */
bool run_room_asks_original(const struct recipe *c);
enum tensors_type run_room_type(const struct recipe *c, bool on_device);

/* Bytes where it is computed. */
struct run_room {
    uint64_t base;     /* as products have it, with a copy as it was where a loss asks that */
    uint64_t trained;  /* values, gradients, AdamW's moments */
    uint64_t n_values; /* that are trained */
    uint64_t gists;    /* their matrices as products have them, derivatives of whole ones */
    uint64_t rows;     /* of a sequence, until its way back is done */
    uint64_t attention, logits, decoder;
    uint64_t all, left; /* left: what is free there; 0: nobody knows */
};

/* Of the model's header alone. on: NULL: the CPU. */
int run_room_make(const struct recipe *c, struct tensors *on, struct run_room *ret,
                  struct why *why);

int run_room_check(const struct run_room *r, const char *device, struct why *why);
/* In a sentence. */
void run_room_line(const struct run_room *r, const char *device, char *ret, size_t cap);
/* Part by part. */
void run_room_print(const struct run_room *r, const char *device, FILE *f);

#endif
