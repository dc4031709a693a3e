/* engine/file/feed.c - a ring of pieces, each read from the disk or copied from the page cache.
 *
 * States of a piece of the ring, and what makes the arrows:
 *
 *     NONE, READY --queue_direct--> OUT     --wait_out--> READY
 *     NONE, READY --list_copy-----> TO_COPY --feed_end--> READY
 *
 * Pieces are asked for in order (next), and a place of the ring gets another one when all that it
 * has was passed. READY has a result, which may be an error: it is looked at when the piece is
 * wanted, as a file may be shorter than it was just where nobody comes to look.
 */
#include "engine/file/feed.h"

#include "base/pages.h"
#include "store/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define AHEAD_BYTES ((size_t)32 << 20)
/* Copied ahead: no disk is waited for, and what was copied just now is still in the cache. */
#define AHEAD_CACHED ((size_t)12 << 20)
/* A file so small is there before the rings that would read it are. */
#define SMALL_BYTES ((uint64_t)8 << 20)
#define PROBES      8u

enum piece_state { PIECE_NONE, PIECE_OUT, PIECE_TO_COPY, PIECE_READY };

struct piece {
    enum piece_state state;
    int64_t result; /* READY: its bytes, or -errno */
};

struct feed {
    const struct gguf *g;
    struct backend *backend;
    struct why *why;
    struct io *io; /* NULL: all by way of the page cache */
    int direct;    /* the file once more, with O_DIRECT; -1 */
    bool always_direct;
    int seems_cached; /* where the kernel does not say; -1: not tried yet */
    uint8_t *ring;    /* mapped twice, the second one behind the first; NULL: not yet */
    size_t ring_len;
    struct piece *pieces; /* (ring_len / FEED_PIECE), piece k at k modulo that */
    uint64_t pos, end;    /* in the file */
    uint64_t next;        /* the first piece that nobody was asked for */
    uint64_t *to_copy;    /* (as many) */
    uint32_t n_to_copy;
    uint64_t n_direct, n_cached; /* bytes */
};

/* Pieces are numbered from the file's beginning, so that reads are of whole, aligned blocks. */
static struct piece *piece_of(struct feed *f, uint64_t k)
{
    return &f->pieces[k % (f->ring_len / FEED_PIECE)];
}

static uint8_t *memory_of(const struct feed *f, uint64_t off)
{
    return f->ring + off % f->ring_len;
}

static size_t piece_len(const struct feed *f, uint64_t k)
{
    uint64_t left = f->end - k * FEED_PIECE;

    return left < FEED_PIECE ? (size_t)left : FEED_PIECE;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* The same pages twice, one behind the other, at a multiple of a huge page. In huge pages: a direct
 * read is cut at every page of memory that does not lie beside the last, and on the machine where
 * that was measured small pages have half the bandwidth. Without them all works as well. */
static int map_ring(struct feed *f)
{
    int fd = pages_memfd("gistd-feed", 0, f->ring_len), r = fd < 0 ? fd : 0;

    if (r == 0) {
        f->ring = pages_map(2 * f->ring_len, PAGES_HUGE, PROT_NONE);
        r = f->ring ? 0 : -ENOMEM;
    }
    for (int i = 0; r == 0 && i < 2; i++)
        if (mmap(f->ring + (size_t)i * f->ring_len, f->ring_len, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
            r = -ENOMEM;
    if (fd >= 0)
        (void)close(fd);
    return r;
}

/* By the descriptor and not by the path, where another file may be by now. */
static void open_direct(struct feed *f, const struct io_options *io)
{
    const struct io_options standard = { .kind = IO_AUTO,
                                         .depth = (uint32_t)(f->ring_len / FEED_PIECE) };
    char path[48];

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", gguf_fd(f->g));
    f->direct = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (f->direct < 0)
        return; /* a file system that has no such thing */
    if (io_open(io ? io : &standard, &f->io, NULL) < 0) {
        (void)close(f->direct);
        f->direct = -1;
        return;
    }
    pages_collapse(f->ring, f->ring_len);
    (void)io_register(f->io, f->ring, 2 * f->ring_len); /* refused: each read pins its pages anew */
}

/* Whether a byte comes without the disk. It may start a read-ahead there, so only some are tried,
 * and only where the kernel can't be asked. */
static bool answers_at_once(const struct feed *f, uint64_t off)
{
    char byte;
    struct iovec to = { &byte, 1 };

    return preadv2(gguf_fd(f->g), &to, 1, (off_t)off, RWF_NOWAIT) == 1;
}

/* Some bytes over the whole of it, and all of them: half a file from the disk is worth a direct
 * way. */
static bool seems_cached(struct feed *f)
{
    uint32_t n = 0;

    if (f->seems_cached >= 0)
        return f->seems_cached;
    for (uint32_t i = 0; i < PROBES; i++)
        n += answers_at_once(f, f->pos + (f->end - f->pos) / PROBES * i);
    f->seems_cached = n == PROBES;
    return f->seems_cached;
}

int feed_open(const struct gguf *g, struct backend *b, const struct feed_options *o,
              struct feed **ret, struct why *why)
{
    struct feed *f = calloc(1, sizeof(*f));
    /* What is looked at may touch a piece more at either end; two more are read meanwhile. */
    size_t ahead = o->ahead ? o->ahead : AHEAD_BYTES, least = o->longest + 4 * FEED_PIECE, n;
    int r;

    if (!f)
        return why_set(why, -ENOMEM, "%s: no memory to load it", gguf_label(g));
    *f = (struct feed){ .g = g, .backend = b, .why = why, .direct = -1, .pos = o->from };
    f->end = gguf_len(g);
    f->next = f->pos / FEED_PIECE;
    f->always_direct = o->direct;
    f->seems_cached = -1;
    if (ahead > f->end - f->pos)
        ahead = (size_t)(f->end - f->pos);
    f->ring_len = ((ahead > least ? ahead : least) + PAGES_HUGE - 1) / PAGES_HUGE * PAGES_HUGE;
    n = f->ring_len / FEED_PIECE;
    f->pieces = calloc(n, sizeof(*f->pieces));
    f->to_copy = calloc(n, sizeof(*f->to_copy));
    r = f->pieces && f->to_copy ? map_ring(f) : -ENOMEM;
    if (r < 0) {
        feed_close(f);
        return why_set(why, r, "%s: no memory to read it ahead: %s", gguf_label(g), strerror(-r));
    }
    /* Where it can't be had all works as well, by the page cache. */
    if (o->direct || f->end - f->pos >= SMALL_BYTES)
        open_direct(f, o->io);
    *ret = f;
    return 0;
}

void feed_close(struct feed *f)
{
    if (!f)
        return;
    io_close(f->io); /* waits for what is out: it goes to the ring */
    if (f->ring)
        (void)munmap(f->ring, 2 * f->ring_len);
    if (f->direct >= 0)
        (void)close(f->direct);
    free(f->pieces);
    free(f->to_copy);
    free(f);
}

uint64_t feed_at(const struct feed *f)
{
    return f->pos;
}

void feed_counts(const struct feed *f, uint64_t *ret_direct, uint64_t *ret_cached)
{
    *ret_direct = f->n_direct;
    *ret_cached = f->n_cached;
}

/* --- asking for pieces ------------------------------------------------------------------------ */

#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

struct cache_range {
    uint64_t off, len;
};
struct cache_pages {
    uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

/* Kernels before 6.5 can't be asked, nor those where a filter forbids it: then the file's probes
 * decide for all pieces. */
static bool is_cached(struct feed *f, uint64_t k)
{
    struct cache_range range = { k * FEED_PIECE, piece_len(f, k) };
    struct cache_pages pages = { 0 };
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    if (syscall(SYS_cachestat, gguf_fd(f->g), &range, &pages, 0) < 0)
        return seems_cached(f);
    return pages.cached * page >= range.len;
}

/* To whole blocks, past the file's end in the last piece: the read is short there, and right. */
static int queue_direct(struct feed *f, uint64_t k)
{
    struct io_op op = { .code = IO_READ,
                        .fd = f->direct,
                        .mem = memory_of(f, k * FEED_PIECE),
                        .len = (piece_len(f, k) + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN,
                        .off = k * FEED_PIECE,
                        .cookie = k };
    int r = io_queue(f->io, &op);

    if (r == 0) {
        *piece_of(f, k) = (struct piece){ .state = PIECE_OUT };
        f->n_direct += piece_len(f, k);
    }
    return r;
}

static void list_copy(struct feed *f, uint64_t k)
{
    /* Where there is no direct way the disk is told early. Only a hint. */
    if (!f->io)
        (void)posix_fadvise(gguf_fd(f->g), (off_t)(k * FEED_PIECE), FEED_PIECE,
                            POSIX_FADV_WILLNEED);
    *piece_of(f, k) = (struct piece){ .state = PIECE_TO_COPY };
    f->to_copy[f->n_to_copy++] = k;
    f->n_cached += piece_len(f, k);
}

/* As far as the ring has room behind what is looked at. need: the end of what the caller waits for,
 * which is asked for in any case. */
static void ask(struct feed *f, uint64_t need)
{
    uint64_t room = f->pos / FEED_PIECE * FEED_PIECE + f->ring_len;
    bool queued = false;

    while (f->next * FEED_PIECE < f->end && (f->next + 1) * FEED_PIECE <= room) {
        uint64_t k = f->next;

        if (f->io && (f->always_direct || !is_cached(f, k))) {
            if (queue_direct(f, k) < 0)
                break; /* as many are out as may be */
            queued = true;
            /* Beyond AHEAD_CACHED nothing is copied, and next waits at this piece: direct ones
             * behind it wait, too, until it is near. */
        } else if (k * FEED_PIECE < need || k * FEED_PIECE < f->pos + AHEAD_CACHED || !f->io) {
            list_copy(f, k);
        } else {
            break;
        }
        f->next++;
    }
    if (queued)
        (void)io_submit(f->io); /* what it can't hand over now it does in io_wait */
}

/* --- looking ---------------------------------------------------------------------------------- */

/* By any of the host threads. A short result is an error of who looks, not of who reads ahead. */
static int64_t copy_piece(struct feed *f, uint64_t k)
{
    uint8_t *to = memory_of(f, k * FEED_PIECE);
    size_t len = piece_len(f, k), done = 0;

    while (done < len) {
        ssize_t r = pread(gguf_fd(f->g), to + done, len - done, (off_t)(k * FEED_PIECE + done));

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (r == 0)
            break;
        done += (size_t)r;
    }
    return (int64_t)done;
}

/* Lists what feed_slice copies. Nothing is asked for between this and feed_end, so the list
 * stays. */
uint32_t feed_begin(struct feed *f)
{
    ask(f, f->pos);
    return f->n_to_copy;
}

void feed_slice(struct feed *f, uint32_t i)
{
    piece_of(f, f->to_copy[i])->result = copy_piece(f, f->to_copy[i]);
}

void feed_end(struct feed *f)
{
    for (uint32_t i = 0; i < f->n_to_copy; i++)
        piece_of(f, f->to_copy[i])->state = PIECE_READY;
    f->n_to_copy = 0;
}

static void copy_slice(void *arg, uint32_t slice, uint32_t worker)
{
    (void)worker;
    feed_slice(arg, slice);
}

/* Whatever comes back meanwhile is noted too, in any order. */
static int wait_out(struct feed *f, uint64_t k)
{
    struct io_done done[16];
    int r = 0;

    while (piece_of(f, k)->state == PIECE_OUT && r == 0) {
        uint32_t n = io_reap(f->io, done, 16);

        for (uint32_t i = 0; i < n; i++)
            *piece_of(f, done[i].cookie) =
                (struct piece){ .state = PIECE_READY, .result = done[i].result };
        if (n == 0)
            r = io_wait(f->io);
        if (r == -EINTR)
            r = 0;
    }
    return r;
}

/* Of a short read: where the file ends is asked, since reading ahead may have been past that. */
static int say(const struct feed *f, uint64_t off, int64_t result)
{
    const char *label = gguf_label(f->g);
    struct stat st;

    if (result < 0)
        return why_set(f->why, (int)result, "%s: can't be read at byte %" PRIu64 ": %s", label, off,
                       strerror((int)-result));
    if (fstat(gguf_fd(f->g), &st) < 0 || (uint64_t)st.st_size >= f->end)
        return why_set(f->why, -EINVAL, "%s: ended at byte %" PRIu64 " while it was read", label,
                       off + (uint64_t)result);
    return why_set(f->why, -EINVAL, "%s: now ends at byte %llu; it had %" PRIu64 " bytes", label,
                   (unsigned long long)st.st_size, f->end);
}

int feed_look(struct feed *f, size_t n, const uint8_t **ret)
{
    uint64_t end = f->pos + n;
    bool copies = false;

    ask(f, end);
    for (uint64_t k = f->pos / FEED_PIECE; k * FEED_PIECE < end; k++) {
        int r;

        /* As many were out as may be; those before it are back now. */
        if (k >= f->next)
            ask(f, end);
        r = wait_out(f, k);
        if (r < 0)
            return say(f, k * FEED_PIECE, r);
        copies |= piece_of(f, k)->state == PIECE_TO_COPY;
    }
    if (copies) { /* not done beside anything: at the beginning, or behind the direct ones */
        backend_run(f->backend, copy_slice, f, f->n_to_copy);
        feed_end(f);
    }
    for (uint64_t k = f->pos / FEED_PIECE; k * FEED_PIECE < end; k++) {
        int64_t result = piece_of(f, k)->result;

        if (result < (int64_t)piece_len(f, k))
            return say(f, k * FEED_PIECE, result);
    }
    *ret = memory_of(f, f->pos);
    return 0;
}

/* Frees the ring's places: the next ask() may have them written over. */
void feed_pass(struct feed *f, size_t n)
{
    f->pos += n;
}
