/* train/file/model_write.h - a base model that was trained, as a GGUF file: its own file with other
 * values.
 *
 *     magic "GGUF" | version | counts | all pairs as they are |
 *     a record for each tensor, in their order | padding | values, each
 *     at a multiple of the alignment
 *
 * Metadata and tokenizer are the bytes of the file that it was read from, but for
 * general.file_type. Matrices become F16, vectors F32; rows of q and k of `llama` files stay
 * permuted (engine/file/weights.h). Tensors that are not trained (rope_freqs) are copied.
 *
 * Source     the GGUF specification (ggml's docs/gguf.md); engine/file/gguf.h.
 *
 * Threads    all of OpenMP's.
 * Errors     -EINVAL (a value that F16 does not hold), -ENOMEM, -EIO (a device failed), or the
 *            errno of the I/O; always with a sentence.
 */
#ifndef TRAIN_FILE_MODEL_WRITE_H
#define TRAIN_FILE_MODEL_WRITE_H

#include "train/net/base.h"

/* b: one that base_train made parameters of. Written beside path, synced and renamed. ret_digest as
 * model.digest. */
int model_write(const char *path, const struct base *b, char ret_digest[33], struct why *why);

#endif
