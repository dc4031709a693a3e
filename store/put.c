/* A put, step by step:
 *
 *     ROOM ----> BEGIN ----> OPEN ----> PAGES ----> PUBLISH ----> (in the index, called back)
 *      ^  room     folder,     its        hashed,     header, sync, rename, folder sync: one chain
 *      |           temp. file  room       written
 *      +--- once more --- CLEAN <--- anything that failed: the temporary file goes
 *
 * Pages go past the page cache, by O_DIRECT: from the pool's huge pages that is up to twice as fast
 * as through it, and costs nothing of the CPUs that compute. What a restarted daemon would like to
 * find in the cache is read back into it when nothing else is to be done (store/warm.c).
 *
 * The bytes of the whole file are counted (s->bytes, the owner's share, today's budget) before the
 * first is written, and taken back where they did not get there. The entry and the caller's pages
 * are the put's until then; the pages are free when the callback comes. */
#include "store/publish.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum put_state { PUT_ROOM, PUT_BEGIN, PUT_OPEN, PUT_PAGES, PUT_PUBLISH, PUT_CLEAN };

/* What a completion was of, beside publish_op's; n pages: n << 16. The two can't meet: a run has
 * one page at least. */
enum { OP_ALLOC = PUBLISH__N };
#define OP_PAGES(n) ((n) << 16)

#define OUT_MAX 16u /* transfers of one put */

struct put {
    struct job job; /* first */
    struct publish file;
    enum put_state state;
    struct entry *e; /* the put's until it is published */
    struct store_hash *sums;
    const void **pages; /* the caller's pages, in a list of our own */
    uint8_t *header;
    uint32_t header_len;
    uint64_t len;                           /* of the file */
    uint32_t n_hashed, n_queued, n_written; /* pages */
    bool aligned, direct, allocated, reserved, forgotten;
};

static struct put *put_of(struct job *j)
{
    return (struct put *)j;
}

/* Gives back what was reserved, once the file is gone. on_done takes `reserved` back when the file
 * could not be removed, and published() when the record has the bytes. */
static void release(struct put *p)
{
    publish_close(&p->file);
    if (p->reserved) {
        p->job.s->bytes -= p->len;
        shares_take(&p->job.s->shares, p->e->r.key.owner, p->len);
    }
    p->reserved = false;
}

/* The last of a put, whatever its end. p->e is NULL when it was published. */
static void put_drop(struct job *j)
{
    struct put *p = put_of(j);

    release(p);
    if (p->e)
        index_free(p->e);
    free(p->header);
    free(p->pages);
    free(p);
}

/* A completion of any operation of the put. Short writes are an I/O error here; a refused O_DIRECT
 * sends it back to BEGIN, for this store knows now. */
static void on_done(void *job, uint32_t what, int64_t result)
{
    struct put *p = job;
    uint32_t n_pages = what >> 16;

    p->n_written += n_pages;
    if (result >= 0 && (size_t)result < (size_t)n_pages * p->e->r.page_bytes)
        result = -EIO;
    if (what == OP_ALLOC) {
        p->allocated = result >= 0;
        /* A file system that can't: the writes find out whether there is room. */
        if (result == -EOPNOTSUPP || result == -EINVAL) {
            p->allocated = true;
            result = 0;
        }
    }
    if (what == PUBLISH_OPEN && result == -EINVAL && p->direct) {
        p->job.s->no_direct = true; /* once more, through the cache */
        p->job.n_out--;
        return;
    }
    publish_done(&p->file, what, result);
    if (p->file.left)
        p->reserved = false; /* the file keeps its bytes */
}

/* --- the states ------------------------------------------------------------------------------- */

static bool has_room(const struct put *p)
{
    const struct store *s = p->job.s;

    return limits_fits(s, p->len) && limits_fits_owner(s, p->e->r.key.owner, p->len);
}

/* True: go on with the next state at once. A file of the same name that is still to be deleted must
 * be gone first: its deletion would take the new one with it. On closing nobody can wait for that.
 */
static bool step_room(struct put *p)
{
    struct store *s = p->job.s;

    if (limits_is_dying(s, p->e->r.key.owner, p->e->name)) {
        p->file.err = s->closing ? -EBUSY : 0;
        return s->closing;
    }
    if (!has_room(p)) {
        bool made = limits_make_room(s, p->e->r.key.owner, p->len);

        if (!has_room(p)) {
            if (!made && !limits_deletes(s)) {
                p->file.err = -EBUSY; /* all that could go is being read */
                return true;
            }
            return false;
        }
    }
    s->bytes += p->len;
    shares_add(&s->shares, p->e->r.key.owner, p->len);
    p->reserved = true;
    p->state = PUT_BEGIN;
    return true;
}

/* O_DIRECT needs every page at a multiple of 4096. The header is ours and is aligned. */
static bool step_begin(struct put *p)
{
    p->direct = p->aligned && !p->job.s->no_direct;
    if (!publish_begin(&p->file, p->e->r.key.owner, false, p->direct ? O_DIRECT : 0))
        return p->file.err < 0;
    p->state = PUT_OPEN;
    return false;
}

/* All of the file's room at once: the writes need not look for it one by one, and a full disk says
 * so before anything is written. No descriptor here means that O_DIRECT was refused (on_done). */
static bool step_open(struct put *p)
{
    struct io_op alloc = { .code = IO_ALLOC, .fd = p->file.fd, .len = p->len };

    if (p->file.fd < 0) {
        p->state = PUT_BEGIN;
        return true;
    }
    if (!p->allocated) {
        if (ops_room_to_write(&p->job.s->ops, 1))
            publish_queue(&p->file, alloc, OP_ALLOC);
        return false;
    }
    p->state = PUT_PAGES;
    return true;
}

/* Pages that lie one behind the other go as one transfer. */
static uint32_t run_of(const struct put *p, uint32_t from)
{
    size_t page = p->e->r.page_bytes;
    uint32_t n = 1;

    while (from + n < p->e->r.n_pages && (n + 1) * page <= STORE_TRANSFER &&
           (const char *)p->pages[from + n] == (const char *)p->pages[from] + n * page)
        n++;
    return n;
}

/* Writes and hashing go side by side: the disk is busy while the CPU sums, and the other way round.
 * Neither reads what the other writes. */
static bool step_pages(struct put *p)
{
    struct store *s = p->job.s;
    const struct record *r = &p->e->r;

    while (p->n_queued < r->n_pages && p->job.n_out < OUT_MAX && ops_room_to_write(&s->ops, 1)) {
        uint32_t n = run_of(p, p->n_queued);
        struct io_op op = { .code = IO_WRITE,
                            .fd = p->file.fd,
                            .len = (size_t)n * r->page_bytes,
                            .off = p->header_len + (uint64_t)p->n_queued * r->page_bytes,
                            .aside = !p->direct };

        /* The io only reads what it writes to a file. */
        memcpy(&op.mem, &p->pages[p->n_queued], sizeof(op.mem));
        publish_queue(&p->file, op, OP_PAGES(n));
        p->n_queued += n;
    }
    while (p->n_hashed < r->n_pages && job_may_hash(s, r->page_bytes)) {
        p->sums[p->n_hashed] = sum_bytes(p->pages[p->n_hashed], r->page_bytes);
        p->n_hashed++;
    }
    if (p->n_written < r->n_pages || p->n_hashed < r->n_pages)
        return false;
    p->state = PUT_PUBLISH;
    return true;
}

/* The header is made now, since only now all sums are known. */
static bool step_publish(struct put *p)
{
    if (!ops_room_to_write(&p->job.s->ops, 4))
        return false;
    p->e->r.made_s = p->e->used_s = when_s();
    p->e->used_dirty = true; /* the file is dated by the disk's clock until then */
    record_encode(&p->e->r, p->header);
    (void)publish_chain(&p->file, p->header, p->header_len, p->e->name);
    return false;
}

/* The record's file has its name and is on the medium. The put may have lost its purpose meanwhile:
 * then the file goes the way of any deleted record, and its bytes stay counted until it is gone. */
static void published(struct put *p)
{
    struct store *s = p->job.s;
    struct entries replaced = TAILQ_HEAD_INITIALIZER(replaced);
    struct entry *e = p->e;

    health_wrote(&s->health);
    s->counts.puts++;
    p->e = NULL;
    p->reserved = false; /* the bytes are the record's now */
    if (p->forgotten || index_add(&s->index, e, &replaced) < 0) {
        /* Forgotten meanwhile; or a longer one came while this tail was written. */
        e->taken = true;
        TAILQ_INSERT_TAIL(&replaced, e, lru);
    } else if (p->direct) {
        warm_later(s, e);
    }
    limits_delete_all(s, &replaced);
    job_end(&p->job, p->job.cancelled ? -ECANCELED : 0);
}

/* What was not even handed to the disk. A write that failed may have been half done: it counts. */
static uint64_t len_not_written(const struct put *p)
{
    uint64_t left = p->e->r.n_pages - p->n_written;

    return left == 0 ? 0 : left * p->e->r.page_bytes + p->header_len;
}

/* After a failure: the file goes, then the room it had, then it is tried once more or given up.
 * Comes here several times: to queue the removal, while that is out, and when it came back
 * (publish_clean is false then). */
static bool step_clean(struct put *p)
{
    struct store *s = p->job.s;

    if (publish_clean(&p->file, p->e->name))
        return false;
    release(p);
    limits_not_written(s, len_not_written(p));
    if (!p->job.cancelled && p->file.err != -ECANCELED && publish_again(&p->file)) {
        limits_wrote(s, p->len);
        p->allocated = false;
        p->n_hashed = p->n_queued = p->n_written = 0;
        p->state = PUT_ROOM;
        return true;
    }
    if (p->job.cancelled)
        p->file.err = -ECANCELED;
    else if (p->file.err != -EBUSY)
        health_failed(&s->health, p->file.err, when_ns());
    job_end(&p->job, p->file.err);
    return false;
}

/* Runs states until one has to wait for operations. A failure or a cancel is looked at only when
 * nothing is out, since the disk may still read the pages; in PAGES a put goes on while its writes
 * are out. */
static void put_step(struct job *j)
{
    static bool (*const steps[])(struct put *) = {
        [PUT_ROOM] = step_room,   [PUT_BEGIN] = step_begin,     [PUT_OPEN] = step_open,
        [PUT_PAGES] = step_pages, [PUT_PUBLISH] = step_publish, [PUT_CLEAN] = step_clean
    };
    struct put *p = put_of(j);

    for (;;) {
        /* In PAGES there may be room for more while some are out. */
        if (j->n_out > 0 && (p->state != PUT_PAGES || p->file.err < 0 || j->cancelled))
            return;
        if ((p->file.err < 0 || j->cancelled) && p->state != PUT_CLEAN) {
            p->file.err = p->file.err < 0 ? p->file.err : -ECANCELED;
            p->state = PUT_CLEAN;
        } else if (p->state == PUT_PUBLISH && p->file.renamed) {
            published(p);
            return;
        }
        if (!steps[p->state](p))
            return;
    }
}

/* --- store_put -------------------------------------------------------------------------------- */

/* -EEXIST: one with this key and ids is under way; -EAGAIN: and its file will be deleted. Found by
 * the file's name, which is a hash of key and ids. */
static int under_way(const struct store *s, const struct store_key *key, const uint32_t *ids,
                     uint32_t n)
{
    struct job *j;
    char name[RECORD_NAME];

    record_name(s->index.secret, key, ids, n, name);
    TAILQ_FOREACH (j, &s->jobs, next) {
        const struct put *p = (const struct put *)j;

        if (j->kind == JOB_PUT && p->e && p->e->r.key.owner == key->owner &&
            strcmp(p->e->name, name) == 0)
            return p->forgotten || j->cancelled ? -EAGAIN : -EEXIST;
    }
    return 0;
}

/* They go on to their end and are deleted then (published): a rename may already be on its way. */
void put_forget(struct store *s, uint32_t owner)
{
    struct job *j;

    TAILQ_FOREACH (j, &s->jobs, next) {
        struct put *p = put_of(j);

        if (j->kind == JOB_PUT && p->e && p->e->r.key.owner == owner)
            p->forgotten = true;
    }
}

/* Whether a put is worth starting. In order of cost, and so that what is there already is made
 * young even when nothing may be written now. */
static int may_put(struct store *s, const struct record *r, const struct store_record *from)
{
    struct entry *like = index_like(&s->index, &r->key, r->ids, r->n_tokens, r->tail);
    int err;

    if (like) {
        index_use(&s->index, like, when_s());
        return -EEXIST;
    }
    err = under_way(s, &r->key, r->ids, r->n_tokens);
    if (err < 0)
        return err;
    if (from->page_bytes > RECORD_PAGE_MAX || record_wrong(r)) /* r has 32 bits of it */
        return -EINVAL;
    if (!job_may_write(s))
        return -EROFS;
    if (s->n_jobs >= STORE_JOBS_MAX)
        return -EAGAIN;
    return record_len(r) > limits_of_owner(s) || !limits_may_write(s, record_len(r), false)
               ? -EDQUOT
               : 0;
}

static bool is_aligned(const void *const *pages, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if ((uintptr_t)pages[i] % IO_ALIGN != 0)
            return false;
    }
    return true;
}

/* n_tokens is looked at before all else: hashes read that many ids. */
int store_put(struct store *s, const struct store_record *from, const void *const *pages,
              store_done_fn *done, void *arg)
{
    struct record r = { .key = from->key,
                        .n_tokens = from->n_tokens,
                        .n_keys = from->n_keys,
                        .n_pages = from->n_pages,
                        .page_bytes = (uint32_t)from->page_bytes,
                        .cost_ns = from->cost_ns,
                        .tail = from->tail,
                        .ids = from->ids };
    struct put *p;
    int err;

    if (from->n_tokens < 1 || from->n_tokens > STORE_TOKENS_MAX)
        return -EINVAL;
    err = may_put(s, &r, from);
    if (err < 0)
        return err;
    r.own = record_hash(s->index.secret, r.key.before, r.ids, r.n_tokens);
    p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->job = (struct job){
        .s = s, .kind = JOB_PUT, .step = put_step, .drop = put_drop, .done = done, .arg = arg
    };
    p->file = publish_of(&p->job, on_done);
    p->len = record_len(&r);
    p->header_len = record_header_len(r.n_tokens, r.n_pages);
    p->header = aligned_alloc(IO_ALIGN, p->header_len);
    p->pages = malloc(r.n_pages * sizeof(void *));
    p->e = index_new(&s->index, &r);
    if (!p->header || !p->pages || !p->e) {
        put_drop(&p->job);
        return -ENOMEM;
    }
    memcpy(p->pages, pages, r.n_pages * sizeof(void *));
    p->aligned = is_aligned(pages, r.n_pages);
    memcpy(&p->sums, &p->e->r.sums, sizeof(p->sums)); /* ours to fill until it is published */
    limits_wrote(s, p->len);
    s->n_puts++;
    job_start(s, &p->job);
    return 0;
}
