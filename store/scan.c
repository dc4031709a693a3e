/* The start: every folder is listed, every record's header read and verified, many at once. What a
 * header says is taken only if its checksum, its name and its hashes say the same; then it is a
 * record whose pages are verified when they are read.
 *
 * Folders are done one after the other, the files of one READERS at a time: each reader opens a
 * file, reads its beginning, perhaps more of it, and takes the next name. All of that waits for the
 * disk (ops_wait), and only store_open calls it. */
#include "store/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READERS    64u
#define FIRST_READ 8192u /* has the whole header of a segment of 1,024 tokens */

/* The names of one folder's records, read before the first is opened: what is deleted or written
 * meanwhile would confuse readdir. */
struct listing {
    struct store *s;
    struct folder *d;
    char (*names)[RECORD_NAME];
    uint32_t n, cap;
    bool no_memory;
};

struct scan;

/* `name` points into the listing. buf has RECORD_HEADER_MAX bytes, aligned. */
struct reader {
    struct scan *scan;
    const char *name;
    int fd;
    bool busy;
    uint32_t want; /* bytes of the header */
    struct stat st;
    uint8_t *buf;
};

struct scan {
    struct store *s;
    struct listing *list;
    struct entries replaced;
    uint32_t next, n_busy;
    struct reader readers[READERS];
};

/* Only what could be a record of ours is opened; anything else in the folder is somebody's own. */
static bool is_record_name(const char *name)
{
    return strlen(name) == RECORD_NAME - 1 && strspn(name, "0123456789abcdef") == RECORD_NAME - 1;
}

/* Temporary files are of a daemon that did not end well: the lock says that no other one is
 * writing. */
static void list_one(void *arg, const char *name)
{
    struct listing *l = arg;

    if (strncmp(name, FOLDERS_TEMP, strlen(FOLDERS_TEMP)) == 0) {
        (void)unlinkat(l->d->fd, name, 0);
        return;
    }
    if (!is_record_name(name) || l->no_memory)
        return;
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 1024;
        void *names = realloc(l->names, cap * sizeof(*l->names));

        if (!names) {
            l->no_memory = true;
            return;
        }
        l->names = names;
        l->cap = cap;
    }
    memcpy(l->names[l->n++], name, RECORD_NAME);
}

/* --- one record ------------------------------------------------------------------------------- */

/* A record can be computed again, so one that is not sound is not worth keeping for anybody to look
 * at. */
static void refuse(struct reader *r)
{
    struct scan *c = r->scan;

    c->s->counts.refused++;
    (void)unlinkat(c->list->d->fd, r->name, 0);
}

/* The header's sum says that it is as it was written; the rest, that it was written here, for this
 * owner, and under this secret. */
static bool is_sound(const struct reader *r, const struct record *rec)
{
    const struct store *s = r->scan->s;
    char name[RECORD_NAME];

    if (rec->key.owner != r->scan->list->d->owner || (uint64_t)r->st.st_size != record_len(rec))
        return false;
    record_name(s->index.secret, &rec->key, rec->ids, rec->n_tokens, name);
    return strcmp(name, r->name) == 0 &&
           sum_equal(rec->own,
                     record_hash(s->index.secret, rec->key.before, rec->ids, rec->n_tokens));
}

/* The bytes and the share are counted before the entry is added: what index_add replaces is deleted
 * through the same counters. */
static void take(struct reader *r)
{
    struct store *s = r->scan->s;
    uint64_t now_s = when_s();
    struct record rec;
    struct entry *e;
    const char *what;
    int err;

    if (record_decode(r->buf, r->want, &rec, &what) < 0 || !is_sound(r, &rec)) {
        refuse(r);
        return;
    }
    e = index_new(&s->index, &rec);
    if (!e)
        return; /* found again by a start with more memory */
    e->used_s = r->st.st_mtime < 0 ? 0 : (uint64_t)r->st.st_mtime;
    if (e->used_s > now_s) /* from a clock that was ahead */
        e->used_s = now_s;
    s->bytes += record_len(&rec);
    shares_add(&s->shares, rec.key.owner, record_len(&rec));
    err = index_add(&s->index, e, &r->scan->replaced);
    if (err == -EEXIST) { /* a tail that was replaced, and not yet deleted */
        e->taken = true;
        TAILQ_INSERT_TAIL(&r->scan->replaced, e, lru);
    } else if (err < 0) {
        s->bytes -= record_len(&rec);
        shares_take(&s->shares, rec.key.owner, record_len(&rec));
        index_free(e);
    }
}

/* --- many at once ----------------------------------------------------------------------------- */

/* The reader is free for the next name. */
static void done_with(struct reader *r)
{
    if (r->fd >= 0)
        (void)close(r->fd);
    r->fd = -1;
    r->busy = false;
    r->scan->n_busy--;
}

static void on_read(void *job, uint32_t what, int64_t result);

/* There is room: the operation whose completion calls this has just freed its slot. `what` is the
 * length that was asked for. */
static void queue_read(struct reader *r, uint32_t len)
{
    ops_queue(&r->scan->s->ops,
              &(struct io_op){ .code = IO_READ, .fd = r->fd, .mem = r->buf, .len = len }, on_read,
              r, len);
}

static void on_read(void *job, uint32_t what, int64_t result)
{
    struct reader *r = job;

    if (result < 0) { /* perhaps another time */
        done_with(r);
        return;
    }
    r->want = result < RECORD_HEADER_MIN ? 0 : record_claims(r->buf);
    if (r->want > what && (uint64_t)r->want <= (uint64_t)r->st.st_size) {
        queue_read(r, r->want);
        return;
    }
    if (r->want == 0 || r->want > (uint64_t)result)
        refuse(r);
    else
        take(r);
    done_with(r);
}

/* What is no file of ours is left alone. The kernel is told not to read ahead: of each file the
 * first blocks are wanted, and the rest would be many times that. */
static void on_open(void *job, uint32_t what, int64_t result)
{
    struct reader *r = job;

    (void)what;
    r->fd = result < 0 ? -1 : (int)result;
    if (r->fd < 0 || fstat(r->fd, &r->st) < 0 || !S_ISREG(r->st.st_mode) ||
        r->st.st_uid != geteuid()) {
        done_with(r);
        return;
    }
    folders_block(r->fd);
    (void)posix_fadvise(r->fd, 0, 0, POSIX_FADV_RANDOM);
    queue_read(r, FIRST_READ);
}

static void start(struct reader *r, const char *name)
{
    r->name = name;
    r->busy = true;
    r->scan->n_busy++;
    ops_queue(&r->scan->s->ops,
              &(struct io_op){ .code = IO_OPEN,
                               .fd = r->scan->list->d->fd,
                               .path = name,
                               .flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC },
              on_open, r, 0);
}

/* READERS are at work until the list is used up, then until the last of them is done. */
static void read_all(struct scan *c)
{
    while (c->next < c->list->n || c->n_busy > 0) {
        for (uint32_t i = 0; i < READERS && c->next < c->list->n; i++) {
            if (!c->readers[i].busy && ops_room(&c->s->ops, 1))
                start(&c->readers[i], c->list->names[c->next++]);
        }
        ops_wait(&c->s->ops);
    }
}

/* Records first, names afterwards. */
static int scan_folder(struct store *s, struct folder *d, uint8_t *bufs)
{
    struct listing list = { .s = s, .d = d };
    struct scan c = { .s = s, .list = &list };
    int err = folders_each(d->fd, list_one, &list);

    TAILQ_INIT(&c.replaced);
    for (uint32_t i = 0; i < READERS; i++)
        c.readers[i] =
            (struct reader){ .scan = &c, .fd = -1, .buf = bufs + (size_t)i * RECORD_HEADER_MAX };
    read_all(&c);
    free(list.names);
    limits_delete_all(s, &c.replaced);
    names_scan(s, d);
    return list.no_memory ? -ENOMEM : err;
}

/* --- all folders ------------------------------------------------------------------------------ */

/* Opens what is there and adds it to the list of folders; a folder that is no owner's, or not ours,
 * is passed over. */
static void open_owner(void *arg, const char *name)
{
    struct store *s = arg;
    uint32_t owner;
    int err;

    if (folders_owner(name, &owner))
        (void)folders_get(&s->folders, owner, false, &err);
}

/* The folders come in the order of the directory, so the list by last use is put in order at the
 * end, once. */
int scan_all(struct store *s)
{
    uint8_t *bufs = aligned_alloc(IO_ALIGN, (size_t)READERS * RECORD_HEADER_MAX);
    struct folder *d;
    int err;

    if (!bufs)
        return -ENOMEM;
    err = folders_each(s->folders.root_fd, open_owner, s);
    SLIST_FOREACH(d, &s->folders.list, next)
    {
        if (err == 0)
            err = scan_folder(s, d, bufs);
    }
    free(bufs);
    index_sort(&s->index);
    return err;
}

/* Looks for each record with a system call of its own, and waits for the disk: this happens when
 * somebody deleted the store's folder under a running daemon. */
int scan_again(struct store *s)
{
    struct entry *e, *next;
    int err = folders_again(&s->folders);

    if (err < 0)
        return err;
    limits_again(s);
    for (e = TAILQ_FIRST(&s->index.lru); e; e = next) {
        struct folder *d = folders_get(&s->folders, e->r.key.owner, false, &err);
        struct stat st;

        next = TAILQ_NEXT(e, lru);
        if (!d || fstatat(d->fd, e->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            limits_delete(s, e);
    }
    return 0;
}
