/* engine/file/image_file.h - images of packed weights as files of a folder, one for each model.
 *
 * An image is named by a digest of its model's path, so that a new one takes the place of the old
 * one. It has no name until it is whole and on the medium:
 *
 *     O_TMPFILE ---> allocated ---> arena and head written ---> fsync ---> linked, renamed,
 *         |                               |                                    folder synced
 *         '---- a crash in between: the kernel frees it, nothing is left -----'
 *
 * Only a file of this user that nobody else may write is taken up.
 *
 * Threads    any; an object is one thread's at a time.
 * Ownership  image_file_open and image_new_open give a descriptor that the close gives back.
 * Errors     -ENOENT: there is no image; those of engine/file/image.h; else the errno of the I/O.
 */
#ifndef ENGINE_FILE_IMAGE_FILE_H
#define ENGINE_FILE_IMAGE_FILE_H

#include "engine/file/image.h"

struct image_file {
    int fd;     /* O_DIRECT where the file system has it */
    void *head; /* header and sums, checked */
    uint64_t arena_off;
    char digest[DIGEST_LEN]; /* of the GGUF file */
};

int image_file_open(const char *folder, const struct image_of *of, struct image_file *ret,
                    struct why *why);
void image_file_close(struct image_file *f);

/* One that is made. */
struct image_new {
    int folder, fd;
    size_t len;
    char name[64];
};

/* Makes the folder (0700) if need be, and a file without a name with all blocks that it will need.
 */
int image_new_open(const char *folder, const struct image_of *of, struct image_new *ret,
                   struct why *why);
/* The head, and the name. The arena was written, by whatever way, at image_head_len. */
int image_new_publish(struct image_new *n, const struct image_of *of, const char digest[DIGEST_LEN],
                      const struct packed_sum *sums, struct why *why);
void image_new_close(struct image_new *n);

#endif
