/* engine/file/kept.h - packed weights in memory that outlives the process.
 *
 * They are an image (engine/file/image.h) in a memfd. A descriptor of it goes to who keeps it, as
 * systemd's descriptor store, and comes back at the next start:
 *
 *     file --> kept_alloc --> weights_read --> kept_finish --> descriptor --> kept by somebody
 *                                                                                    |
 *     served, no byte of the file's tensors was read <-- kept_take <-- descriptors <-'
 *
 * What comes back is believed as far as it can be checked: nobody can write it any more (seals), it
 * has the length that this model's layout asks for, its header names this file in its present state
 * (length, time of modification, inode, digest of its header), and each piece of the weights has
 * the digest that the header says. So a flipped bit, another model, a file that was replaced and an
 * older gistd are all found. Who can hand us descriptors of his own making is the service manager,
 * whom we trust with what program is run at all.
 *
 * Threads    one, the backend's, whose host threads compute the digests.
 * Ownership  borrows the descriptors found; that of kept_alloc is the caller's.
 * Errors     kept_take: -ENOENT, none of them will do, and why has a sentence about the last.
 */
#ifndef ENGINE_FILE_KEPT_H
#define ENGINE_FILE_KEPT_H

#include "engine/backend.h"
#include "engine/file/image.h"

#include <stdbool.h>

#define KEPT_FOUND_MAX 8u

struct kept {
    /* The caller's. */
    bool wanted; /* weights that are read from the file go to such memory */
    int found[KEPT_FOUND_MAX];
    uint32_t n_found;

    /* What became of it. */
    int used;            /* index of the one that was taken up; -1: none */
    int fd;              /* of new memory, which was finished; -1: none */
    struct why not_used; /* why the last of found is of no use; empty: it is */
    struct why not_kept; /* why there is no new memory although it was wanted; empty: there is */
};

/* ret_base: the image, image_len bytes of b's memory. ret_digest: as model.digest. */
int kept_take(struct kept *k, struct backend *b, const struct image_of *of, void **ret_base,
              char ret_digest[DIGEST_LEN], struct why *why);

/* Room for an image, to be filled and finished; in an error's case there is a sentence in not_kept
 * and other memory will do. */
int kept_alloc(struct kept *k, struct backend *b, const struct packed *packed, void **ret_base);
/* result 0: the arena is filled, and is described and sealed. What fails then is no error for who
 * computes with it: the memory is as good as any, and not_kept says why nobody else gets it; but
 * for -ENOMEM: there is nothing to compute with any more. Else the descriptor is closed. */
int kept_finish(struct kept *k, struct backend *b, const struct image_of *of, int result,
                const char digest[DIGEST_LEN], void *base);

#endif
