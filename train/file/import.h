/* train/file/import.h - a published gist model becomes an adapter file of ours.
 *
 * What is read is a checkpoint as Hugging Face keeps it (train/file/published.h,
 * train/file/beacon_config.h): the gist embedding and the projections of gists. Weights of the base
 * model are not: the adapter is for a GGUF file that has them. Where the checkpoint holds the base
 * model's last norm, the two are compared.
 *
 *     model.beacon_embed_tokens.weight                       gist.embedding
 *     model.layers.N.self_attn.beacon_q_proj.weight, .bias   layers.N.q.weight, .bias
 *
 * Types stay as they are, so no value changes.
 *
 * Threads    any; nothing is shared.
 * Errors     -EINVAL with a sentence, -EEXIST (see train/file/adapter_write.h), -ENOMEM, or the
 *            errno of the I/O.
 */
#ifndef TRAIN_FILE_IMPORT_H
#define TRAIN_FILE_IMPORT_H

#include "engine/file/model.h"

#include <stdbool.h>

struct import {
    const char *from; /* a file or a folder */
    const struct model *model;
    const char *out;
    bool replace;
    int (*check)(void *arg, const char *path, struct why *why); /* see train/file/adapter_write.h */
    void *arg;
    /* What config.json does not say or says otherwise; NULL: what it says. */
    const char *segment, *ratios, *sinks;
};

int import_run(const struct import *in, struct why *why);

#endif
