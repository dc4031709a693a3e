/* train/file/adapter_mark.h - a word in an adapter's metadata, written anew; the tensors stay as
 * they are, bit for bit.
 *
 * Threads    any, but one a path at a time.
 * Ownership  borrows everything; allocates the header and the largest tensor.
 * Errors     -EINVAL with a sentence, -ENOMEM, the errno of the I/O, or what check returned. The
 *            file is then what it was.
 */
#ifndef TRAIN_FILE_ADAPTER_MARK_H
#define TRAIN_FILE_ADAPTER_MARK_H

#include "base/why.h"

/* value NULL: the key is taken out. check as in train/file/adapter_write.h. */
int adapter_mark(const char *path, const char *key, const char *value,
                 int (*check)(void *arg, const char *path, struct why *why), void *arg,
                 struct why *why);

#endif
