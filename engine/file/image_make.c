/* engine/file/image_make.c - an image packed straight into its file, for models that do not fit
 * into memory: the pages of a shared mapping go to the disk as they are filled. */
#include "engine/file/image_make.h"

#include "engine/backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Fills the arena behind the head, and publishes. */
static int fill(struct image_new *n, const struct image_of *of, struct weights *w,
                struct backend *b, const struct model_progress *progress, uint8_t *arena,
                struct why *why)
{
    struct packed_sum *sums = calloc(of->packed->n_sums, sizeof(*sums));
    char digest[DIGEST_LEN];
    int r;

    if (!sums)
        return why_set(why, -ENOMEM, "%s: no memory for the image", gguf_label(of->file));
    r = weights_read(w, b, arena, progress, digest);
    if (r == 0) {
        packed_sums(of->packed, b, arena, 0, of->packed->n_sums, sums);
        r = image_new_publish(n, of, digest, sums, why);
    }
    free(sums);
    return r;
}

int image_make(const char *folder, const struct image_of *of, struct weights *w, struct backend *b,
               const struct model_progress *progress, struct why *why)
{
    struct image_new n;
    uint8_t *map;
    int r = image_new_open(folder, of, &n, why);

    if (r < 0)
        return r;
    map = mmap(NULL, n.len, PROT_READ | PROT_WRITE, MAP_SHARED, n.fd, 0);
    if (map == MAP_FAILED) {
        r = why_set(why, -errno, "%s: an image can't be mapped: %s", gguf_label(of->file),
                    strerror(errno));
    } else {
        uint8_t *arena = map + image_head_len(of->packed);

        /* A stream reads weights into memory that the host writes, so the backend has to compute in
         * such memory. */
        if (backend_host(b, arena) == arena)
            r = fill(&n, of, w, b, progress, arena, why);
        else
            r = why_set(why, -ENOTSUP, "%s: this device can't stream weights",
                        gguf_label(of->file));
        (void)munmap(map, n.len);
    }
    image_new_close(&n);
    return r;
}
