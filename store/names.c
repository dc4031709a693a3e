/* What owners called by name: a file each, small, replaced as a whole.
 *
 *     0    8    12    16    20   24  32   40    44 48        176        192   208       208 + len
 *     +----+----+-----+-----+----+---+----+-----+--+---------+----------+-----+---------+
 *     |mag.|ver.|hdr. |owner|kind|len|at_s|name |0 |name[128]|bytes' sum| sum | bytes   |
 *     |    |    |len  |     |    |   |    |len  |  |         |          |     |         |
 *     +----+----+-----+-----+----+---+----+-----+--+---------+----------+-----+---------+
 *
 * The file's name is the kind and a plain hash of the name, so that one that was damaged beside it,
 * the format file for instance, takes no name with it. The name in the header is compared, so two
 * of one hash are refused, never mixed up.
 *
 * In memory each name is a struct named, in an array in order of owner, kind and name, so that one
 * can be found, and an owner's listed, by bisection. Bytes are read from the disk when they are
 * asked for. */
#include "store/publish.h"

#include "base/files.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VERSION     1u
#define FILE_NAME   (SUM_TEXT + 11u) /* kind, '-', hash */
#define NAMES_SHARE 4u               /* a quarter of the store's bytes, at most */
#define NAMES_MAX   65536u           /* of all owners */
#define BLOCK       4096u

struct name_header {
    char magic[8];
    uint32_t version, header_len, owner, kind;
    uint64_t len, at_s;
    uint32_t name_len, zero;
    char name[STORE_NAME_MAX];
    struct store_hash bytes_sum, sum; /* sum: of all in front of it */
};
_Static_assert(offsetof(struct name_header, version) == 8, "layout");
_Static_assert(offsetof(struct name_header, header_len) == 12, "layout");
_Static_assert(offsetof(struct name_header, owner) == 16, "layout");
_Static_assert(offsetof(struct name_header, kind) == 20, "layout");
_Static_assert(offsetof(struct name_header, len) == 24, "layout");
_Static_assert(offsetof(struct name_header, at_s) == 32, "layout");
_Static_assert(offsetof(struct name_header, name_len) == 40, "layout");
_Static_assert(offsetof(struct name_header, zero) == 44, "layout");
_Static_assert(offsetof(struct name_header, name) == 48, "layout");
_Static_assert(offsetof(struct name_header, bytes_sum) == 176, "layout");
_Static_assert(offsetof(struct name_header, sum) == 192, "layout");
_Static_assert(sizeof(struct name_header) == 208, "layout");

static const char magic[8] = { 'g', 'i', 's', 't', 'd', '-', 'n', 'm' };

/* Not the name itself, which may hold any bytes and be longer than a file system takes. */
static void file_name(uint32_t kind, const char *name, char ret[FILE_NAME])
{
    char hash[SUM_TEXT];

    sum_text(sum_bytes(name, strlen(name)), hash);
    (void)snprintf(ret, FILE_NAME, "%" PRIu32 "-%s", kind, hash);
}

/* What the disk gives for it: whole blocks. */
static uint64_t file_len(uint64_t len)
{
    return (sizeof(struct name_header) + len + BLOCK - 1) / BLOCK * BLOCK;
}

/* Unused bytes of the name are zeros, and under the sum like the others. */
static void encode(struct name_header *h, const struct named *n, const void *bytes)
{
    *h = (struct name_header){ .version = VERSION,
                               .header_len = sizeof(*h),
                               .owner = n->owner,
                               .kind = n->kind,
                               .len = n->len,
                               .at_s = n->at_s,
                               .name_len = (uint32_t)strlen(n->name),
                               .bytes_sum = sum_bytes(bytes, n->len) };
    memcpy(h->magic, magic, sizeof(h->magic));
    memcpy(h->name, n->name, h->name_len);
    h->sum = sum_bytes(h, offsetof(struct name_header, sum));
}

/* The header's own claims. Whether it is of the owner and the file name under which it was found is
 * for the caller to compare. */
static bool decode(const struct name_header *h, struct named *ret)
{
    if (memcmp(h->magic, magic, sizeof(magic)) != 0 || h->version != VERSION ||
        h->header_len != sizeof(*h) || h->name_len < 1 || h->name_len > STORE_NAME_MAX ||
        h->len > STORE_NAMED_MAX || memchr(h->name, '\0', h->name_len) ||
        !sum_equal(h->sum, sum_bytes(h, offsetof(struct name_header, sum))))
        return false;
    *ret = (struct named){ .owner = h->owner, .kind = h->kind, .len = h->len, .at_s = h->at_s };
    memcpy(ret->name, h->name, h->name_len);
    return true;
}

/* Callers pass on what clients send: it is looked at here, and nowhere later. */
static bool is_name(const char *name)
{
    size_t len = strnlen(name, STORE_NAME_MAX + 1);

    return len >= 1 && len <= STORE_NAME_MAX && !memchr(name, '/', len);
}

/* --- in memory -------------------------------------------------------------------------------- */

static int compare(const struct named *n, uint32_t owner, uint32_t kind, const char *name)
{
    if (n->owner != owner)
        return n->owner < owner ? -1 : 1;
    if (n->kind != kind)
        return n->kind < kind ? -1 : 1;
    return strcmp(n->name, name);
}

/* Where a name is, or would be: names are many, and each request looks for one. */
static size_t place_of(const struct store *s, uint32_t owner, uint32_t kind, const char *name)
{
    size_t from = 0, to = s->counts.names;

    while (from < to) {
        size_t mid = from + (to - from) / 2;

        if (compare(s->names[mid], owner, kind, name) < 0)
            from = mid + 1;
        else
            to = mid;
    }
    return from;
}

static struct named *find(const struct store *s, uint32_t owner, uint32_t kind, const char *name)
{
    size_t at = place_of(s, owner, kind, name);

    return at < s->counts.names && compare(s->names[at], owner, kind, name) == 0 ? s->names[at]
                                                                                 : NULL;
}

/* Of all kinds. No name is empty, and the owner behind the last one has none. place_of with the
 * empty name is where the owner's first name stands, or would stand. */
static size_t n_of(const struct store *s, uint32_t owner)
{
    size_t end = owner == UINT32_MAX ? s->counts.names : place_of(s, owner + 1, 0, "");

    return end - place_of(s, owner, 0, "");
}

/* Room for one name more, and for all that are being written: to learn one can't fail. */
static bool reserve_place(struct store *s)
{
    size_t need = s->counts.names + STORE_JOBS_MAX, cap = s->names_cap ? s->names_cap : 512;
    struct named **names;

    if (need <= s->names_cap)
        return true;
    while (cap < need)
        cap *= 2;
    names = realloc(s->names, cap * sizeof(struct named *));
    if (!names)
        return false;
    s->names = names;
    s->names_cap = cap;
    return true;
}

/* Out of memory and out of the count; the file is the caller's. */
static void forget(struct store *s, struct named *n)
{
    size_t at = place_of(s, n->owner, n->kind, n->name);

    assert(at < s->counts.names && s->names[at] == n);
    s->counts.names--;
    memmove(&s->names[at], &s->names[at + 1], (s->counts.names - at) * sizeof(struct named *));
    s->named_bytes -= file_len(n->len);
    s->bytes -= file_len(n->len);
    free(n);
}

/* Takes n, whose bytes are counted already, in the place of an older one. */
static void learn(struct store *s, struct named *n)
{
    struct named *old = find(s, n->owner, n->kind, n->name);
    size_t at;

    if (old)
        forget(s, old);
    assert(s->counts.names < s->names_cap); /* reserve_place */
    at = place_of(s, n->owner, n->kind, n->name);
    n->id = ++s->next_name_id;
    memmove(&s->names[at + 1], &s->names[at], (s->counts.names - at) * sizeof(struct named *));
    s->names[at] = n;
    s->counts.names++;
}

/* From the end: nothing has to be moved. */
void names_close(struct store *s)
{
    while (s->counts.names > 0)
        forget(s, s->names[s->counts.names - 1]);
    free(s->names);
    s->names = NULL;
}

/* Continues behind the name that the caller got last, not behind its id: so a list goes on when
 * that one was deleted meanwhile. */
bool store_name_next(struct store *s, uint32_t owner, uint32_t kind, struct store_named *ret)
{
    const char *after = ret->id == 0 ? "" : ret->name;
    size_t at = place_of(s, owner, kind, after);
    const struct named *n;

    if (at < s->counts.names && compare(s->names[at], owner, kind, after) == 0)
        at++;
    n = at < s->counts.names ? s->names[at] : NULL;
    if (!n || n->owner != owner || n->kind != kind)
        return false;
    *ret = (struct store_named){
        .owner = owner, .kind = kind, .len = n->len, .at_s = n->at_s, .id = n->id
    };
    memcpy(ret->name, n->name, sizeof(ret->name));
    return true;
}

/* --- at the start ----------------------------------------------------------------------------- */

struct scanned {
    struct store *s;
    struct folder *d;
};

/* What is no name of ours is left for people to look at. Deleting is for records, which can be
 * computed again. */
static void scan_one(void *arg, const char *name)
{
    struct scanned *c = arg;
    struct name_header h;
    struct named *n;
    struct stat st;
    char expected[FILE_NAME];
    int fd;

    if (strncmp(name, FOLDERS_TEMP, strlen(FOLDERS_TEMP)) == 0) {
        (void)unlinkat(c->d->names_fd, name, 0);
        return;
    }
    fd = openat(c->d->names_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    n = malloc(sizeof(*n));
    if (fd >= 0 && n && pread(fd, &h, sizeof(h), 0) == sizeof(h) && fstat(fd, &st) == 0 &&
        S_ISREG(st.st_mode) && decode(&h, n) && n->owner == c->d->owner) {
        file_name(n->kind, n->name, expected);
        if (strcmp(expected, name) == 0 && c->s->counts.names < NAMES_MAX && reserve_place(c->s)) {
            c->s->named_bytes += file_len(n->len);
            c->s->bytes += file_len(n->len);
            learn(c->s, n);
            n = NULL;
        }
    } else {
        c->s->counts.refused += fd >= 0;
    }
    free(n);
    if (fd >= 0)
        (void)close(fd);
}

void names_scan(struct store *s, struct folder *d)
{
    struct scanned c = { s, d };

    if (d->names_fd >= 0)
        (void)folders_each(d->names_fd, scan_one, &c);
}

/* --- writing ---------------------------------------------------------------------------------- */

/* A put of a name, from its copy of the bytes to the rename. `n` goes to the array when that is
 * done; until then nobody sees it, and an older one of that name stays. */
struct name_put {
    struct job job; /* first */
    struct publish file;
    struct named *n;
    uint8_t *bytes; /* (n_bytes) header and what it names */
    size_t n_bytes;
    char to[FILE_NAME];
    bool counted, reserved, forgotten; /* counted: in named_bytes */
};

/* Gives back what is still the put's: learn() takes both over when the name is published. */
static void name_release(struct name_put *p)
{
    struct store *s = p->job.s;

    publish_close(&p->file);
    if (p->reserved)
        s->bytes -= file_len(p->n->len);
    if (p->n && p->counted)
        s->named_bytes -= file_len(p->n->len);
    p->reserved = p->counted = false;
}

static void name_drop(struct job *j)
{
    struct name_put *p = (struct name_put *)j;

    name_release(p);
    free(p->n);
    free(p->bytes);
    free(p);
}

/* All of its operations are publish.c's. */
static void on_done(void *job, uint32_t what, int64_t result)
{
    struct name_put *p = job;

    publish_done(&p->file, what, result);
    if (p->file.left)
        p->reserved = false; /* the file keeps its bytes */
}

/* Called until nothing is left to remove, then once more to end the job or to begin it again. */
static void name_failed(struct name_put *p)
{
    struct store *s = p->job.s;

    /* One that was renamed is whole and synced, only its folder is not: it may stay. */
    if (publish_clean(&p->file, NULL))
        return;
    if (p->file.fd < 0) /* what was not even handed to the disk */
        limits_not_written(s, file_len(p->n->len));
    if (publish_again(&p->file)) {
        limits_wrote(s, file_len(p->n->len));
        s->more = true;
        return;
    }
    if (p->file.err != -EBUSY)
        health_failed(&s->health, p->file.err, when_ns());
    job_end(&p->job, p->file.err);
}

/* True: there is room, or there never will be (err). False: wait, records are being deleted for it.
 */
static bool reserve(struct name_put *p)
{
    struct store *s = p->job.s;
    uint64_t len = file_len(p->n->len);

    if (p->reserved)
        return true;
    if (!limits_fits(s, len) && !limits_make_room_for_name(s, p->n->owner, len) &&
        !limits_deletes(s))
        p->file.err = -EBUSY;
    if (!limits_fits(s, len))
        return p->file.err < 0;
    s->bytes += len;
    p->reserved = true;
    return true;
}

/* The state is in the publish: nothing yet, a descriptor, renamed. */
static void name_step(struct job *j)
{
    struct name_put *p = (struct name_put *)j;
    struct store *s = j->s;

    if (j->n_out > 0 || (p->file.err == 0 && !reserve(p)))
        return;
    if (p->file.err < 0) {
        name_failed(p);
    } else if (p->file.fd < 0) {
        if (!publish_begin(&p->file, p->n->owner, true, 0) && p->file.err < 0)
            s->more = true;
    } else if (!p->file.renamed) {
        (void)publish_chain(&p->file, p->bytes, p->n_bytes, p->to);
    } else {
        health_wrote(&s->health);
        p->reserved = p->counted = false;
        learn(s, p->n);
        if (p->forgotten)
            (void)store_name_delete(s, p->n->owner, p->n->kind, p->n->name);
        p->n = NULL;
        job_end(j, 0);
    }
}

/* One put a name at a time: the order of two renames would be the disk's to choose. */
static struct name_put *under_way(const struct store *s, uint32_t owner, uint32_t kind,
                                  const char *name)
{
    struct job *j;

    TAILQ_FOREACH (j, &s->jobs, next) {
        struct name_put *p = (struct name_put *)j;

        if (j->kind == JOB_NAME && p->n && compare(p->n, owner, kind, name) == 0)
            return p;
    }
    return NULL;
}

/* Whether a put may begin. All of it is looked at before anything is counted. */
static int may_name(struct store *s, uint32_t owner, uint32_t kind, const char *name, size_t len)
{
    uint64_t bytes = file_len(len);

    if (!is_name(name) || len > STORE_NAMED_MAX)
        return -EINVAL;
    if (!job_may_write(s))
        return -EROFS;
    if (s->n_jobs >= STORE_JOBS_MAX || under_way(s, owner, kind, name))
        return -EAGAIN;
    if (!find(s, owner, kind, name) && n_of(s, owner) >= STORE_NAMES_MAX)
        return -EMFILE;
    if (s->named_bytes + bytes > s->limits.bytes / NAMES_SHARE || s->counts.names >= NAMES_MAX ||
        !limits_may_write(s, bytes, true))
        return -EDQUOT;
    return reserve_place(s) ? 0 : -ENOMEM;
}

/* What is counted here (named_bytes, today's budget) before the first step keeps two puts from
 * taking the same last bytes. */
int store_name_put(struct store *s, uint32_t owner, uint32_t kind, const char *name,
                   const void *bytes, size_t len, store_done_fn *done, void *arg)
{
    int err = may_name(s, owner, kind, name, len);
    struct name_header h;
    struct name_put *p;

    if (err < 0)
        return err;
    p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->job = (struct job){
        .s = s, .kind = JOB_NAME, .step = name_step, .drop = name_drop, .done = done, .arg = arg
    };
    p->file = publish_of(&p->job, on_done);
    p->n_bytes = sizeof(h) + len;
    p->bytes = malloc(p->n_bytes);
    p->n = calloc(1, sizeof(*p->n));
    if (!p->bytes || !p->n) {
        name_drop(&p->job);
        return -ENOMEM;
    }
    *p->n = (struct named){ .owner = owner, .kind = kind, .len = len, .at_s = when_s() };
    memcpy(p->n->name, name, strlen(name));
    encode(&h, p->n, bytes);
    memcpy(p->bytes, &h, sizeof(h));
    if (len > 0)
        memcpy(p->bytes + sizeof(h), bytes, len);
    file_name(kind, name, p->to);
    s->named_bytes += file_len(len);
    p->counted = true;
    limits_wrote(s, file_len(len));
    s->n_puts++;
    job_start(s, &p->job);
    return 0;
}

/* --- reading and deleting --------------------------------------------------------------------- */

/* Its length is what the file says, which is whole, and may be the next one already: its rename is
 * done by the disk's time, and known here a moment later. */
static int read_name(int fd, const struct named *n, void **ret, size_t *ret_len)
{
    struct name_header h;
    struct named found;
    void *bytes;
    int err = files_read(fd, &h, sizeof(h), 0);

    if (err < 0)
        return err;
    if (!decode(&h, &found) || compare(&found, n->owner, n->kind, n->name) != 0)
        return -EBADMSG;
    bytes = malloc(found.len + 1); /* none of 0 bytes */
    if (!bytes)
        return -ENOMEM;
    err = files_read(fd, bytes, found.len, sizeof(h));
    if (err == 0 && !sum_equal(h.bytes_sum, sum_bytes(bytes, found.len)))
        err = -EBADMSG;
    if (err < 0) {
        free(bytes);
        return err;
    }
    *ret = bytes;
    *ret_len = found.len;
    return 0;
}

/* Unlike records, names are opened by a call of our own, and the caller waits for the disk. */
int store_name_get(struct store *s, uint32_t owner, uint32_t kind, const char *name,
                   void **ret_bytes, size_t *ret_len)
{
    const struct named *n = is_name(name) ? find(s, owner, kind, name) : NULL;
    char file[FILE_NAME];
    struct folder *d;
    int fd, err = -ENOENT;

    d = n ? folders_get(&s->folders, owner, false, &err) : NULL;
    if (!d || d->names_fd < 0)
        return -ENOENT;
    file_name(kind, name, file);
    fd = openat(d->names_fd, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    err = read_name(fd, n, ret_bytes, ret_len);
    (void)close(fd);
    s->counts.refused += err == -EBADMSG;
    return err;
}

/* Nobody waits for it, and a failure only means what a power cut might have meant. */
static void on_synced(void *job, uint32_t what, int64_t result)
{
    (void)job, (void)what, (void)result;
}

/* The file first: when it can't be deleted the name stays, or it would be back after the next
 * start. */
static int delete_one(struct store *s, struct named *n)
{
    char file[FILE_NAME];
    int err = 0;
    struct folder *d = folders_get(&s->folders, n->owner, false, &err);

    file_name(n->kind, n->name, file);
    if (d && unlinkat(d->names_fd, file, 0) < 0 && errno != ENOENT)
        return -errno;
    forget(s, n);
    /* What was deleted should not come back after a power cut; nobody waits for that. */
    if (d && ops_room(&s->ops, 1))
        ops_queue(&s->ops, &(struct io_op){ .code = IO_SYNC, .fd = d->names_fd }, on_synced, s, 0);
    (void)ops_submit(&s->ops);
    return 0;
}

bool store_name_has(const struct store *s, uint32_t owner, uint32_t kind, const char *name)
{
    return find(s, owner, kind, name) != NULL;
}

/* One that is being written is deleted when it is published. There may be both: the new one and the
 * older that it replaces. */
int store_name_delete(struct store *s, uint32_t owner, uint32_t kind, const char *name)
{
    struct name_put *p = is_name(name) ? under_way(s, owner, kind, name) : NULL;
    struct named *n = is_name(name) ? find(s, owner, kind, name) : NULL;

    if (p)
        p->forgotten = true;
    if (!n)
        return p ? 0 : -ENOENT;
    return delete_one(s, n);
}

/* The owner's names are next to each other. delete_one moves the following ones to `at`. */
void names_forget(struct store *s, uint32_t owner)
{
    size_t at = place_of(s, owner, 0, "");
    struct job *j;

    TAILQ_FOREACH (j, &s->jobs, next) {
        struct name_put *p = (struct name_put *)j;

        if (j->kind == JOB_NAME && p->n && p->n->owner == owner)
            p->forgotten = true;
    }
    while (at < s->counts.names && s->names[at]->owner == owner)
        at += delete_one(s, s->names[at]) < 0; /* its file can't be deleted: it stays */
}
