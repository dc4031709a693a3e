/* train/file/beacon_config.h - the config.json of a published gist model: what its gists are, and
 * of which model.
 *
 * Activation Beacon (arXiv 2401.03462) writes fields beacon_window, beacon_ratio and so on beside
 * those that Hugging Face's Llama and Qwen2 have. A plain Fine-KV checkpoint may have the same with
 * gist_ in place of beacon_, in its tensors' names, too.
 *
 * Source     research/Long_LLM/activation_beacon/src of FlagOpen/FlagEmbedding
 *
 * Threads    any; nothing is shared.
 * Errors     -EINVAL (what can't be an adapter of ours, and why), -ENOMEM, or the errno of the I/O.
 */
#ifndef TRAIN_FILE_BEACON_CONFIG_H
#define TRAIN_FILE_BEACON_CONFIG_H

#include "engine/file/adapter.h"

struct beacon_config {
    const char *prefix;       /* "beacon" or "gist" */
    bool has[ADAPTER_QKV__N]; /* gists have projections of their own to q, k, v */
    uint32_t window;          /* tokens of a segment; 0: not said */
    uint32_t sinks;
    uint32_t ratios[ADAPTER_RATIOS_MAX], n_ratios; /* ascending, those that we know */
};

/* Checks against the model that it belongs to it, by its dimensions. */
int beacon_config_read(const char *path, const struct model *m, struct beacon_config *ret,
                       struct why *why);

#endif
