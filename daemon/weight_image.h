/* daemon/weight_image.h - the image of the packed weights that the next start maps.
 *
 * Written once, behind READY, by a thread that gets what time nobody else wants, and only where the
 * next start is faster with it: a model that took more than a second to read and pack
 * (docs/weights.md has the measurements), on a disk that has twice the room. A folder that was
 * named gets one in any case.
 *
 * Threads    the scheduler's; the writing thread reads weights and nothing else.
 * Ownership  borrows the model until weight_image_close, which stops the writing and waits for it.
 */
#ifndef DAEMON_WEIGHT_IMAGE_H
#define DAEMON_WEIGHT_IMAGE_H

#include "daemon/cache_dir.h"
#include "daemon/config.h"
#include "engine/file/model.h"

struct weight_image;

/* The folder for images; false: none are to be used. */
bool weight_image_folder(const struct config *c, char ret[CACHE_DIR_MAX]);

/* The model was loaded in load_ns: writes its image if there is none and it pays. *ret: NULL, or
 * what is to be closed before the model. */
void weight_image_start(const struct config *c, const struct model *m, uint64_t load_ns,
                        struct weight_image **ret);
/* It is still being written. NULL: it is not. */
bool weight_image_busy(const struct weight_image *w);
void weight_image_close(struct weight_image *w);

#endif
