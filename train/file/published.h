/* train/file/published.h - the tensors of a model as Hugging Face keeps them: one safetensors file,
 * or a folder with some of them and a config.json.
 *
 * Which file holds a tensor is found by asking all of them; a name that two files have is the first
 * file's, in the order of their names.
 *
 * Threads    one at a time.
 * Ownership  owns the open files; tensors point into them.
 * Errors     -EINVAL with a sentence, -ENOMEM, or the errno of the I/O.
 */
#ifndef TRAIN_FILE_PUBLISHED_H
#define TRAIN_FILE_PUBLISHED_H

#include "engine/file/safetensors.h"

#include <stdbool.h>

struct published;

int published_open(const char *path, struct published **ret, struct why *why);
void published_close(struct published *c);

/* The config.json in the folder, or beside the file. */
const char *published_config_path(const struct published *c);

/* NULL: no file has it. */
const struct safetensors_tensor *published_find(const struct published *c, const char *name);

/* The name of some tensor that has this in it, or NULL. */
const char *published_any(const struct published *c, const char *part);

/* All values of a tensor of this shape, as f32. ret NULL: only looks. ret_type may be NULL. */
int published_read(const struct published *c, const char *name, uint64_t rows, uint64_t cols,
                   enum safetensors_type *ret_type, float *ret, struct why *why);

#endif
