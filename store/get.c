/* A get, and a verify, which is a get of all pages into memory of its own, and of the header too:
 *
 *     OPEN ----> HEADER (verify) ----> PAGES: read, hashed as they come ----> called back
 *
 * Reads are queued and their pages hashed in the order in which they come, while others are still
 * read. The entry is busy from the first step to get_drop, so it is not evicted; when it is deleted
 * nevertheless (a bad page found by another get), its file stays open and its memory stays until
 * then. */
#include "store/inside.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define VERIFY_PAGES 4u                 /* in memory at once */
#define OUT_MAX      64u                /* transfers of one get */
#define EIO_MOST     2u                 /* reads that fail; then the record goes */
#define WINDOW       ((size_t)32 << 20) /* bytes read and not yet hashed */

/* What a completion was of, in 32 bits: one of these, or a run of pages, its first in the low half
 * and their number in the high one. RECORD_PAGES_MAX fits into either, and a run has one page at
 * least, so the two kinds don't meet. */
enum { OP_OPEN, OP_HEADER, OP__N };
#define OP_PAGES(first, n) ((first) | (n) << 16)

struct get {
    struct job job; /* first */
    struct entry *e;
    int fd;
    bool verify, header_ok, cached;               /* cached: in the page cache */
    uint8_t *own;                                 /* verify: a header, then VERIFY_PAGES pages */
    uint32_t n_pages, n_queued, n_came, n_hashed; /* n_hashed <= n_came <= n_queued <= n_pages */
    int err;
    void **pages;
    uint16_t came[RECORD_PAGES_MAX]; /* pages in the order in which they came */
};

static struct get *get_of(struct job *j)
{
    return (struct get *)j;
}

/* Nothing is out: the disk has done with the descriptor and with the caller's pages. */
static void get_drop(struct job *j)
{
    struct get *g = get_of(j);

    if (g->fd >= 0)
        (void)close(g->fd);
    limits_unbusy(j->s, g->e);
    free(g->own);
    free(g->pages);
    free(g);
}

/* --- the disk's speed ------------------------------------------------------------------------- */

/* Time counts once, however many reads are out in it. The disk's speed is all bytes by all time in
 * which at least one read was out, whoever asked. It says what a record is worth in limits.c. */
static void reading_begins(struct store *s)
{
    if (s->n_reading++ == 0)
        s->reading_since_ns = when_ns();
}

static void reading_ends(struct store *s, int64_t bytes)
{
    if (bytes > 0)
        s->counts.read_bytes += (uint64_t)bytes;
    if (--s->n_reading == 0)
        s->counts.read_ns += when_ns() - s->reading_since_ns;
}

/* --- operations ------------------------------------------------------------------------------- */

/* A verify reuses its few pages: page i lies where page i - VERIFY_PAGES was, once that is hashed.
 */
static void *page_at(const struct get *g, uint32_t i)
{
    if (!g->verify)
        return g->pages[i];
    return g->own + RECORD_HEADER_MAX + (size_t)(i % VERIFY_PAGES) * g->e->r.page_bytes;
}

/* The header on the disk is compared with what the start or the put knew of it. Only then are the
 * sums that pages are compared with the ones that the file has, too. */
static void on_header(struct get *g)
{
    const struct record *r = &g->e->r;
    struct record found;
    const char *what;

    g->header_ok =
        record_decode(g->own, record_header_len(r->n_tokens, r->n_pages), &found, &what) == 0 &&
        found.n_tokens == r->n_tokens && found.n_pages == r->n_pages &&
        memcmp(found.ids, r->ids, r->n_tokens * sizeof(*r->ids)) == 0 &&
        memcmp(found.sums, r->sums, r->n_pages * sizeof(*r->sums)) == 0;
    if (!g->header_ok)
        g->err = -EBADMSG;
}

/* The first error stays: what fails behind it often does because of it. */
static void on_done(void *job, uint32_t what, int64_t result)
{
    struct get *g = job;
    uint32_t n = what >= OP__N ? what >> 16 : 0;
    size_t want = (size_t)n * g->e->r.page_bytes;

    g->job.n_out--;
    if (what == OP_HEADER)
        want = record_header_len(g->e->r.n_tokens, g->e->r.n_pages);
    if (what != OP_OPEN)
        reading_ends(g->job.s, result);
    /* The file ended: it is not the one that was written. */
    if (result >= 0 && (size_t)result < want)
        result = -EBADMSG;
    if (result < 0) {
        g->err = g->err == 0 ? (int)result : g->err;
        return;
    }
    if (what == OP_OPEN) {
        g->fd = (int)result;
        folders_block(g->fd);
    } else if (what == OP_HEADER) {
        on_header(g);
    } else {
        for (uint32_t i = 0; i < n; i++)
            g->came[g->n_came++] = (uint16_t)((what & 0xffff) + i);
    }
}

static void queue(struct get *g, struct io_op op, uint32_t what)
{
    g->job.n_out++;
    if (what != OP_OPEN)
        reading_begins(g->job.s);
    ops_queue(&g->job.s->ops, &op, on_done, g, what);
}

/* What the page cache has comes several times faster through it than from the disk; what it has not
 * comes faster past it. Three bytes tell which it is: all of a record was written, and read, at
 * once. RANDOM switches reading ahead off: what is wanted is asked for in large pieces anyway. Two
 * of three bytes decide, since the kernel may have dropped a part. On a file system without
 * RWF_NOWAIT all three look uncached, and the O_DIRECT way is tried. */
static void choose_way(struct get *g)
{
    const struct record *r = &g->e->r;
    uint64_t from = record_header_len(r->n_tokens, r->n_pages);
    uint64_t len = (uint64_t)g->n_pages * r->page_bytes;
    const uint64_t at[] = { from, from + len / 2, from + len - 1 };
    uint32_t n_cached = 0;

    (void)posix_fadvise(g->fd, 0, 0, POSIX_FADV_RANDOM);
    for (uint32_t i = 0; i < 3; i++) {
        char byte;
        struct iovec v = { &byte, 1 };

        n_cached += preadv2(g->fd, &v, 1, (off_t)at[i], RWF_NOWAIT) == 1;
    }
    /* A file system that knows no O_DIRECT refuses it, and has no other way then. */
    g->cached = n_cached >= 2;
    if (!g->cached)
        (void)fcntl(g->fd, F_SETFL, O_RDONLY | O_DIRECT);
}

/* Pages that lie one behind the other come as one transfer. */
static uint32_t run_of(const struct get *g, uint32_t from, uint32_t to)
{
    size_t page = g->e->r.page_bytes;
    uint32_t n = 1;

    while (from + n < to && (n + 1) * page <= STORE_TRANSFER &&
           (char *)page_at(g, from + n) == (char *)page_at(g, from) + n * page)
        n++;
    return n;
}

/* Reads may take all operations, unlike writes (ops_room): somebody waits for them. WINDOW keeps
 * the disk from running far ahead of the hashing, which has its share of a pump. */
static void queue_pages(struct get *g)
{
    const struct record *r = &g->e->r;
    struct store *s = g->job.s;
    uint64_t from = record_header_len(r->n_tokens, r->n_pages);
    uint32_t to = g->n_pages;

    /* verify has few buffers, and fills them anew when all of them were hashed. */
    if (g->verify) {
        if (g->n_queued > g->n_hashed)
            return;
        to = g->n_hashed + VERIFY_PAGES < to ? g->n_hashed + VERIFY_PAGES : to;
    }
    while (g->n_queued < to && g->job.n_out < OUT_MAX && ops_room(&s->ops, 1) &&
           (size_t)(g->n_queued - g->n_hashed) * r->page_bytes < WINDOW) {
        uint32_t n = run_of(g, g->n_queued, to);

        queue(g,
              (struct io_op){ .code = IO_READ,
                              .fd = g->fd,
                              .mem = page_at(g, g->n_queued),
                              .len = (size_t)n * r->page_bytes,
                              .off = from + (uint64_t)g->n_queued * r->page_bytes,
                              .aside = g->cached },
              OP_PAGES(g->n_queued, n));
        g->n_queued += n;
    }
}

/* Goes on after a bad page: the pages are the caller's, and all that matters is that the result is
 * an error. */
static void hash_pages(struct get *g)
{
    const struct record *r = &g->e->r;

    while (g->n_hashed < g->n_came && job_may_hash(g->job.s, r->page_bytes)) {
        uint32_t i = g->came[g->n_hashed++];

        if (!sum_equal(sum_bytes(page_at(g, i), r->page_bytes), r->sums[i]))
            g->err = g->err == 0 ? -EBADMSG : g->err;
    }
}

/* Whose fault it was: bytes that are wrong or gone (the record goes), the disk's (it goes at the
 * second failure, and people are told), or nobody's. A cancelled get has learnt nothing. */
static void end(struct get *g)
{
    struct store *s = g->job.s;
    struct entry *e = g->e;
    bool goes = g->err == -EBADMSG || g->err == -ENOENT;

    if (g->job.cancelled) {
        job_end(&g->job, -ECANCELED);
        return;
    }
    s->counts.gets += !g->verify;
    s->counts.refused += g->err == -EBADMSG;
    if (g->err == -EIO)
        goes = ++e->n_eio >= EIO_MOST; /* once may be a cable, twice is the medium */
    if (g->err == 0)
        e->n_eio = 0;
    if (g->err == 0 || g->err == -EIO)
        s->health.read_err = -g->err;
    if (goes && !e->taken)
        limits_delete(s, e);
    job_end(&g->job, g->err);
}

/* One state follows from what is there: no descriptor, then no header, then pages. It is called
 * after every completion and in every pump, so each part must be harmless when there is nothing
 * new. */
static void get_step(struct job *j)
{
    struct get *g = get_of(j);
    struct store *s = j->s;

    if (g->err == 0 && !j->cancelled && g->fd >= 0 && (g->header_ok || !g->verify)) {
        if (g->n_queued == 0)
            choose_way(g);
        queue_pages(g);
        hash_pages(g);
        queue_pages(g); /* into the room that hashing made */
    }
    /* Not ended while the disk may still write to the pages. */
    if (j->n_out > 0)
        return;
    if (g->err < 0 || j->cancelled || g->n_hashed == g->n_pages) {
        end(g);
    } else if (g->fd < 0 && ops_room(&s->ops, 1)) {
        int err;
        struct folder *d = folders_get(&s->folders, g->e->r.key.owner, false, &err);

        queue(g,
              (struct io_op){ .code = IO_OPEN,
                              .fd = d ? d->fd : -1,
                              .path = g->e->name,
                              .flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC },
              OP_OPEN);
    } else if (g->fd >= 0 && g->verify && !g->header_ok && ops_room(&s->ops, 1)) {
        queue(g,
              (struct io_op){ .code = IO_READ,
                              .fd = g->fd,
                              .mem = g->own,
                              .len = record_header_len(g->e->r.n_tokens, g->e->r.n_pages) },
              OP_HEADER);
    }
}

/* --- calls ------------------------------------------------------------------------------------ */

/* pages NULL: a verify. The job has its own list of pages, since the caller's may be on its stack.
 */
static int start(struct store *s, struct entry *e, uint32_t n_pages, void *const *pages,
                 store_done_fn *done, void *arg)
{
    struct get *g;

    if (s->closing)
        return -ENOENT;
    if (s->health.silent)
        return -EIO;
    if (s->n_jobs >= STORE_JOBS_MAX)
        return -EAGAIN;
    g = malloc(sizeof(*g));
    if (!g)
        return -ENOMEM;
    *g = (struct get){ .e = e, .fd = -1, .n_pages = n_pages, .verify = !pages };
    g->job = (struct job){
        .s = s, .kind = JOB_GET, .step = get_step, .drop = get_drop, .done = done, .arg = arg
    };
    if (pages)
        g->pages = malloc(n_pages * sizeof(void *));
    else
        g->own =
            aligned_alloc(IO_ALIGN, RECORD_HEADER_MAX + (size_t)VERIFY_PAGES * e->r.page_bytes);
    if (!g->pages && !g->own) {
        free(g);
        return -ENOMEM;
    }
    if (pages)
        memcpy(g->pages, pages, n_pages * sizeof(void *));
    e->n_busy++; /* until get_drop */
    job_start(s, &g->job);
    return 0;
}

int store_get(struct store *s, uint64_t id, uint32_t n_pages, void *const *pages,
              store_done_fn *done, void *arg)
{
    struct entry *e = index_by_id(&s->index, id);
    int err;

    if (!e)
        return -ENOENT;
    if (n_pages < 1 || n_pages > e->r.n_pages)
        return -EINVAL;
    err = start(s, e, n_pages, pages, done, arg);
    if (err == 0)
        index_use(&s->index, e, when_s());
    return err;
}

/* A verify is no use of the record: looking after the store should not make all of it young. */
int store_verify(struct store *s, uint64_t id, store_done_fn *done, void *arg)
{
    struct entry *e = index_by_id(&s->index, id);

    return e ? start(s, e, e->r.n_pages, NULL, done, arg) : -ENOENT;
}
