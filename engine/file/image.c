/* engine/file/image.c - the header of an image: written, and compared.
 *
 * What a header has to be is made once more from the file that is there (frame), and compared with
 * the one that was found field by field: so nothing that was found is a size or an offset of
 * anything that is read here.
 */
#include "engine/file/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* As it lies in the file, on a little-endian machine; the asserts are the drawing of image.h. */
struct header {
    char magic[8];
    uint32_t version, zero;
    uint64_t arena_off, arena_len, n_sums;
    struct packed_sum layout, sums, model, gguf_header;
    uint64_t gguf_len;
    int64_t mtime_s;
    uint32_t mtime_ns, zero2;
    uint64_t ino;
    char path[IMAGE_PATH_MAX + 1];
    struct packed_sum check;
};
_Static_assert(offsetof(struct header, arena_off) == 16, "format");
_Static_assert(offsetof(struct header, layout) == 40, "format");
_Static_assert(offsetof(struct header, gguf_len) == 104, "format");
_Static_assert(offsetof(struct header, ino) == 128, "format");
_Static_assert(offsetof(struct header, path) == 136, "format");
_Static_assert(offsetof(struct header, check) == 4080, "format");
_Static_assert(sizeof(struct header) == IMAGE_HEADER, "format");

static const char magic[8] = { 'g', 'i', 's', 't', 'd', 'w', 't', 's' };

/* Up to where the arena begins. */
size_t image_head_len(const struct packed *a)
{
    size_t n = IMAGE_HEADER + a->n_sums * sizeof(struct packed_sum);

    return (n + IMAGE_ALIGN - 1) / IMAGE_ALIGN * IMAGE_ALIGN;
}

size_t image_len(const struct packed *a)
{
    return image_head_len(a) + a->len;
}

const struct packed_sum *image_sums(const void *head)
{
    return (const struct packed_sum *)((const uint8_t *)head + IMAGE_HEADER);
}

static bool same(const struct packed_sum *a, const struct packed_sum *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* Of all that stands before it. */
static struct packed_sum check_of(const struct header *h)
{
    return packed_hash(h, offsetof(struct header, check));
}

int image_identify(const struct packed *a, const struct gguf *file, struct image_of *ret)
{
    struct stat st;

    if (fstat(gguf_fd(file), &st) < 0)
        return -errno;
    *ret = (struct image_of){ .packed = a,
                              .file = file,
                              .len = (uint64_t)st.st_size,
                              .ino = st.st_ino,
                              .mtime_s = st.st_mtim.tv_sec,
                              .mtime_ns = (uint32_t)st.st_mtim.tv_nsec };
    return 0;
}

/* All of a header but what only the file's and the arena's bytes say. */
static void frame(const struct image_of *of, struct header *ret)
{
    size_t len;
    const uint8_t *bytes = gguf_header(of->file, &len);

    memset(ret, 0, sizeof(*ret));
    memcpy(ret->magic, magic, sizeof(magic));
    ret->version = IMAGE_VERSION;
    ret->arena_off = image_head_len(of->packed);
    ret->arena_len = of->packed->len;
    ret->n_sums = of->packed->n_sums;
    ret->layout = of->packed->layout;
    ret->gguf_header = packed_hash(bytes, len);
    ret->gguf_len = of->len;
    ret->mtime_s = of->mtime_s;
    ret->mtime_ns = of->mtime_ns;
    ret->ino = of->ino;
    /* For people who find the image. It may be cut, and is not compared: a file may be moved. */
    (void)snprintf(ret->path, sizeof(ret->path), "%s", gguf_path(of->file));
}

/* model.digest is text, as people see it; images have bytes. */
static void digest_from_text(const char text[DIGEST_LEN], struct packed_sum *ret)
{
    for (size_t i = 0; i < sizeof(ret->bytes); i++) {
        unsigned byte = 0;

        (void)sscanf(text + 2 * i, "%2x", &byte);
        ret->bytes[i] = (uint8_t)byte;
    }
}

static void digest_to_text(const struct packed_sum *s, char ret[DIGEST_LEN])
{
    for (size_t i = 0; i < sizeof(s->bytes); i++)
        (void)snprintf(ret + 2 * i, 3, "%02x", s->bytes[i]);
}

/* Zeros between the sums and the arena, so that equal weights make equal images. */
void image_describe(const struct image_of *of, const char digest[DIGEST_LEN],
                    const struct packed_sum *sums, void *ret_head)
{
    struct header h;

    frame(of, &h);
    digest_from_text(digest, &h.model);
    h.sums = packed_digest(of->packed, sums);
    h.check = check_of(&h);
    memset(ret_head, 0, image_head_len(of->packed));
    memcpy(ret_head, &h, sizeof(h));
    memcpy((uint8_t *)ret_head + IMAGE_HEADER, sums, of->packed->n_sums * sizeof(*sums));
}

/* A header of another version need not have a digest where ours has it. */
static int check_version(const char *label, const struct header *h, struct why *why)
{
    if (memcmp(h->magic, magic, sizeof(magic)) != 0)
        return why_set(why, -EBADMSG, "image of %s: it does not begin with %.8s", label, magic);
    if (h->version != IMAGE_VERSION)
        return why_set(why, -ESTALE,
                       "image of %s: found version %" PRIu32
                       ", expected %u: another version of gistd wrote it",
                       label, h->version, IMAGE_VERSION);
    return 0;
}

/* Sizes are equal or the image is of no use: who opened it has mapped or read as much as `want`
 * says. */
static int check_place(const char *label, const struct header *h, const struct header *want,
                       struct why *why)
{
    if (!same(&h->layout, &want->layout) || h->arena_off != want->arena_off ||
        h->arena_len != want->arena_len || h->n_sums != want->n_sums)
        return why_set(why, -ESTALE, "image of %s: its weights lie otherwise than expected", label);
    return 0;
}

/* By what stat says, and the header's digest: to hash all of the file would take as long as to read
 * it. */
static int check_file(const char *label, const struct header *h, const struct header *want,
                      struct why *why)
{
    if (h->gguf_len == want->gguf_len && h->mtime_s == want->mtime_s &&
        h->mtime_ns == want->mtime_ns && h->ino == want->ino &&
        same(&h->gguf_header, &want->gguf_header))
        return 0;
    return why_set(why, -ESTALE,
                   "image of %s: the model's file was replaced or changed since it was made",
                   label);
}

/* In the order in which one makes the next worth asking: version, damage, layout, file, sums. */
int image_check_head(const struct image_of *of, const void *head, char ret_digest[DIGEST_LEN],
                     struct why *why)
{
    const char *label = gguf_label(of->file);
    struct packed_sum check;
    struct header h, want;
    int r;

    frame(of, &want);
    memcpy(&h, head, sizeof(h));
    r = check_version(label, &h, why);
    check = check_of(&h);
    if (r == 0 && !same(&check, &h.check))
        r = why_set(why, -EBADMSG, "image of %s: its header is damaged", label);
    /* Before the sums: how many there are says the layout. */
    if (r == 0)
        r = check_place(label, &h, &want, why);
    if (r == 0)
        r = check_file(label, &h, &want, why);
    check = packed_digest(of->packed, image_sums(head));
    if (r == 0 && !same(&check, &h.sums))
        r = why_set(why, -EBADMSG, "image of %s: its list of digests is damaged", label);
    if (r == 0)
        digest_to_text(&h.model, ret_digest);
    return r;
}
