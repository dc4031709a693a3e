/* engine/file/image_make.h - an image straight from a model's file, without room for the model.
 *
 * The weights are packed into a mapping of the image: what is done goes to the disk whenever the
 * kernel needs its memory.
 *
 * Threads    one, the backend's, whose host threads pack.
 * Errors     those of image_file.h and weights.h; -ENOTSUP: the device packs into memory of its
 *            own alone.
 */
#ifndef ENGINE_FILE_IMAGE_MAKE_H
#define ENGINE_FILE_IMAGE_MAKE_H

#include "engine/file/image_file.h"
#include "engine/file/weights.h"

int image_make(const char *folder, const struct image_of *of, struct weights *w, struct backend *b,
               const struct model_progress *progress, struct why *why);

#endif
