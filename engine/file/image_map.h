/* engine/file/image_map.h - an image's own pages as the weights.
 *
 * Nothing is copied: a start whose image is in the page cache has its weights as soon as they are
 * compared with their digests, and several daemons share one copy. All of it is read and compared
 * before the first byte is computed with.
 *
 * What it costs: the kernel may drop pages when it is short of memory, and reads them anew from the
 * file, which nobody compares then; and who cuts the file off under us ends the process. mlock
 * (daemon/options.def) prevents the first, the file's mode the second.
 *
 * Threads    one, the backend's, whose host threads read and compare.
 * Errors     -EBADMSG: damaged; -EIO: a page of it can't be read; -ENOTSUP: the device can't use
 *            the host's memory; else an errno.
 */
#ifndef ENGINE_FILE_IMAGE_MAP_H
#define ENGINE_FILE_IMAGE_MAP_H

#include "engine/backend.h"
#include "engine/file/image_file.h"

struct image_map {
    void *at; /* NULL: there is none */
    size_t len;
    uint8_t *arena;
};

int image_map_open(const struct image_file *f, const struct packed *p, struct backend *b,
                   struct image_map *ret);
void image_map_close(struct image_map *m);

#endif
