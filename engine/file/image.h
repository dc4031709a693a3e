/* engine/file/image.h - the packed weights of a model with a header that says whose they are.
 *
 * As a file (engine/file/image_file.h) or as a memfd that is passed on, all bytes little-endian:
 *
 *     | header: 4096 | sums: 16 each | zeros to a multiple of 2 MiB | arena (packed.h) |
 *
 *     0     magic "gistdwts"
 *     8     u32 version
 *     12    u32 zero
 *     16    u64 where the arena begins
 *     24    u64 bytes of the arena
 *     32    u64 number of sums
 *     40    layout: the arena's
 *     56    digest of the sums
 *     72    digest of the GGUF file's bytes, as model.digest has it in text
 *     88    digest of the GGUF file's header
 *     104   u64 bytes of the GGUF file
 *     112   i64 its time of modification, seconds; 120 u32 nanoseconds; 124 u32 zero
 *     128   u64 its inode
 *     136   its path, for readers: zeros behind it
 *     4080  digest of bytes [0, 4080)
 *     4096  sums
 *
 * A digest is 16 bytes of xxh3-128 in canonical order. The device's number is not in it: it may be
 * another one after the next boot. The arena begins at 2 MiB so that huge pages of a mapping and of
 * the page cache can meet.
 *
 * What is checked: image_check_head finds any changed byte of header and sums, another layout and
 * another file; packed_check with image_sums finds any changed byte of a tensor. Only what was
 * checked may be computed with.
 *
 * Threads    pure functions.
 * Errors     -ESTALE: of another model, another state of its file, or another version of gistd;
 *            -EBADMSG: damaged. why says what was found and what was expected.
 */
#ifndef ENGINE_FILE_IMAGE_H
#define ENGINE_FILE_IMAGE_H

#include "base/digest.h"
#include "engine/file/gguf.h"
#include "engine/file/packed.h"

#define IMAGE_VERSION  1u
#define IMAGE_ALIGN    ((size_t)2 << 20)
#define IMAGE_HEADER   4096u
#define IMAGE_PATH_MAX 3943u

/* Of which file, in which state: to be asked for before its tensors are read, so that who changes
 * it meanwhile has made another state. */
struct image_of {
    const struct packed *packed;
    const struct gguf *file;
    uint64_t len, ino;
    int64_t mtime_s;
    uint32_t mtime_ns;
};

/* -errno: the file's state can't be asked. */
int image_identify(const struct packed *a, const struct gguf *file, struct image_of *ret);

/* Bytes before the arena, and all of them. */
size_t image_head_len(const struct packed *a);
size_t image_len(const struct packed *a);

/* Writes all that comes before the arena. */
void image_describe(const struct image_of *of, const char digest[DIGEST_LEN],
                    const struct packed_sum *sums, void *ret_head);

/* head: IMAGE_HEADER bytes and the sums. ret_digest: as model.digest. */
int image_check_head(const struct image_of *of, const void *head, char ret_digest[DIGEST_LEN],
                     struct why *why);

const struct packed_sum *image_sums(const void *head);

#endif
