/* engine/file/image_write.h - an image of weights that are in memory, written beside their use.
 *
 * Threads    any but the backend's: it takes as long as the disk does. stop is asked on it.
 * Ownership  borrows all, the arena too, until it returns.
 * Errors     -ECANCELED (stop said so), or the errno of the I/O. Nothing is left of it then.
 */
#ifndef ENGINE_FILE_IMAGE_WRITE_H
#define ENGINE_FILE_IMAGE_WRITE_H

#include "engine/file/image_file.h"
#include "store/io.h"

#include <stdbool.h>

struct image_write {
    const char *folder;
    const struct image_of *of;
    const char *digest;   /* of the model */
    const uint8_t *arena; /* of->packed->len bytes that do not change */
    struct io *io;        /* this thread's, with nothing under way */
    bool (*stop)(void *arg);
    void *arg;
};

int image_write(const struct image_write *w, struct why *why);

#endif
