/* engine/file/kept.c - tries what was found, one after the other, and describes what is to be
 * kept. */
#include "engine/file/kept.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The digests last: they read all of the memory, the others a page of it. */
static int check(struct backend *b, const struct image_of *of, const uint8_t *base,
                 char ret_digest[DIGEST_LEN], struct why *why)
{
    int r = image_check_head(of, base, ret_digest, why);

    if (r == 0 && packed_check(of->packed, b, base + image_head_len(of->packed), 0,
                               of->packed->n_sums, image_sums(base)) < 0)
        r = why_set(why, -EBADMSG, "its weights have not the digests that they were kept with");
    return r;
}

/* Each cause has a sentence of its own; the log shows that of the last one that failed. */
static int take_one(struct backend *b, int fd, const struct image_of *of, void **ret_base,
                    char ret_digest[DIGEST_LEN], struct why *why)
{
    size_t len = image_len(of->packed);
    void *base;
    int r = backend_map_kept(b, fd, len, &base);

    /* The two that engine/backend.h's map_kept tells apart; anything else is the system's. */
    if (r == -EPERM)
        return why_set(why, r, "it is not sealed, so it could change while it is computed with");
    if (r == -EINVAL)
        return why_set(why, r, "it is no memory of the %zu bytes that this model takes", len);
    if (r < 0)
        return why_set(why, r, "it cannot be mapped: %s", strerror(-r));
    r = check(b, of, base, ret_digest, why);
    if (r < 0) {
        backend_free(b, base, len);
        return r;
    }
    *ret_base = base;
    return 0;
}

int kept_take(struct kept *k, struct backend *b, const struct image_of *of, void **ret_base,
              char ret_digest[DIGEST_LEN], struct why *why)
{
    for (uint32_t i = 0; i < k->n_found; i++) {
        /* why_set keeps the first sentence, and the last descriptor's is wanted. */
        k->not_used.text[0] = '\0';
        if (take_one(b, k->found[i], of, ret_base, ret_digest, &k->not_used) < 0)
            continue;
        k->used = (int)i;
        return 0;
    }
    return why_set(why, -ENOENT, "no kept weights: %s", k->not_used.text);
}

/* Head and arena in one memfd, so that what comes back says itself what it is. */
int kept_alloc(struct kept *k, struct backend *b, const struct packed *packed, void **ret_base)
{
    int r = backend_alloc_kept(b, image_len(packed), ret_base, &k->fd);

    if (r < 0)
        (void)why_set(&k->not_kept, r, "%s",
                      r == -ENOTSUP ? "they are in a device's memory" : strerror(-r));
    return r;
}

/* The memory stays with who computes with it, and nobody else gets it. */
static void close_fd(struct kept *k)
{
    (void)close(k->fd);
    k->fd = -1;
}

int kept_finish(struct kept *k, struct backend *b, const struct image_of *of, int result,
                const char digest[DIGEST_LEN], void *base)
{
    struct packed_sum *sums = result == 0 ? calloc(of->packed->n_sums, sizeof(*sums)) : NULL;
    int r = result == 0 && !sums ? -ENOMEM : result;

    if (sums) {
        packed_sums(of->packed, b, (uint8_t *)base + image_head_len(of->packed), 0,
                    of->packed->n_sums, sums);
        image_describe(of, digest, sums, base);
        /* Described before it is sealed: nothing can be written behind that. */
        r = b->ops->seal_kept(b, base, image_len(of->packed), k->fd);
    }
    free(sums);
    if (r < 0) {
        (void)why_set(&k->not_kept, r, "%s", strerror(-r));
        close_fd(k);
    }
    return r == -EFAULT ? -ENOMEM : 0;
}
