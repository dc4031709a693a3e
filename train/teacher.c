#include "train/teacher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define MAGIC   "gist-teacher"
#define VERSION 3u

/* What the file was made for; compared as bytes, so all of them are set. */
struct file_head {
    char magic[16];
    uint64_t version, key;
    uint32_t n_rows, top;
    uint8_t zeros[24];
};
_Static_assert(sizeof(struct file_head) == 64, "layout");

/* sum: of the record behind it. */
struct record_head {
    uint64_t sum;
    uint32_t n, zero;
};
_Static_assert(sizeof(struct record_head) == 16, "layout");

/* record: room for one, by turns what is read and what is written. */
struct teacher {
    int fd;
    uint32_t n_rows, top;
    size_t len; /* of a record */
    uint8_t *record;
};

/* A file without a byte is new, and gets this header. Processes that open it at the same time write
 * the same one. */
static int read_head(const struct teacher *t, const struct file_head *want, const char *path,
                     struct why *why)
{
    struct file_head head;
    ssize_t n = pread(t->fd, &head, sizeof(head), 0);

    /* EIO and the like; an empty or short file is no such error. */
    if (n < 0)
        return why_set(why, -errno, "%s: %s", path, strerror(errno));
    if (n == 0) {
        n = pwrite(t->fd, want, sizeof(*want), 0);
        return n == (ssize_t)sizeof(*want) ? 0
                                           : why_set(why, n < 0 ? -errno : -ENOSPC,
                                                     "%s: its header could not be written: %s",
                                                     path, strerror(n < 0 ? errno : ENOSPC));
    }
    if (n != (ssize_t)sizeof(head) || memcmp(&head, want, sizeof(head)) != 0)
        return why_set(why, -EINVAL,
                       "%s: made with a different recipe, model or corpus, or not by gist-train",
                       path);
    return 0;
}

int teacher_open(const char *path, uint64_t key, uint32_t n_rows, uint32_t top,
                 struct teacher **ret, struct why *why)
{
    struct file_head head = { MAGIC, VERSION, key, n_rows, top, { 0 } };
    struct teacher *t = calloc(1, sizeof(*t));
    int r = 0;

    if (!t)
        return why_set(why, -ENOMEM, "%s: no memory", path);
    t->n_rows = n_rows;
    t->top = top;
    /* Records have room for every row of a sequence, so that each has a place of its own, found by
     * its number. Where nothing was written the file is a hole. */
    t->len = sizeof(struct record_head) + (size_t)n_rows * top * (sizeof(uint32_t) + sizeof(float));
    t->record = malloc(t->len);
    /* Private: the words say what the text was. */
    t->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (!t->record)
        r = why_set(why, -ENOMEM, "%s: no memory", path);
    else if (t->fd < 0)
        r = why_set(why, -errno, "%s: %s", path, strerror(errno));
    else
        r = read_head(t, &head, path, why);
    if (r < 0) {
        teacher_close(t);
        return r;
    }
    *ret = t;
    return 0;
}

void teacher_close(struct teacher *t)
{
    if (!t)
        return;
    if (t->fd >= 0)
        close(t->fd);
    free(t->record);
    free(t);
}

/* Where sequence `index` of the run is, in any process. */
static off_t place(const struct teacher *t, uint64_t index)
{
    return (off_t)(sizeof(struct file_head) + index * t->len);
}

/* Never 0, which is what a hole reads as. */
static uint64_t sum_of(const struct teacher *t)
{
    uint64_t sum = XXH3_64bits(t->record + sizeof(uint64_t), t->len - sizeof(uint64_t));

    return sum ? sum : 1;
}

bool teacher_get(struct teacher *t, uint64_t index, uint32_t n, uint32_t *ret_ids, float *ret_p)
{
    const uint8_t *from = t->record + sizeof(struct record_head);
    size_t half = (size_t)t->n_rows * t->top * sizeof(uint32_t);
    struct record_head head;

    /* Behind the end of the file, in a hole, cut by a full disk, or half written by another
     * process: all of it is as if it were not there, and the teacher is asked. */
    if (pread(t->fd, t->record, t->len, place(t, index)) != (ssize_t)t->len)
        return false;
    memcpy(&head, t->record, sizeof(head));
    if (head.sum == 0 || head.n != n || n > t->n_rows || head.sum != sum_of(t))
        return false;
    memcpy(ret_ids, from, (size_t)n * t->top * sizeof(uint32_t));
    memcpy(ret_p, from + half, (size_t)n * t->top * sizeof(float));
    return true;
}

/* One write of the whole record. What is not used of it is zero: the sum is over all of it. */
int teacher_put(struct teacher *t, uint64_t index, uint32_t n, const uint32_t *ids, const float *p)
{
    uint8_t *to = t->record + sizeof(struct record_head);
    size_t half = (size_t)t->n_rows * t->top * sizeof(uint32_t);
    struct record_head head = { 0, n, 0 };

    /* More rows than a sequence has: the caller's mistake. */
    if (n > t->n_rows)
        return -EINVAL;
    memset(t->record, 0, t->len);
    memcpy(t->record, &head, sizeof(head));
    memcpy(to, ids, (size_t)n * t->top * sizeof(uint32_t));
    memcpy(to + half, p, (size_t)n * t->top * sizeof(float));
    head.sum = sum_of(t);
    memcpy(t->record, &head, sizeof(head));
    return pwrite(t->fd, t->record, t->len, place(t, index)) == (ssize_t)t->len
               ? 0
               : -(errno ? errno : EIO);
}
