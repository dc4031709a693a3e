/* Would catch: what single operations in a row don't show: results that change places, a chain that
 * is mixed with another, a slot that is used again too early, a byte from somewhere else. Chains of
 * chance, many at once, each in a part of the file that is its own while it is out, against a copy
 * of the file in memory. On io_uring, threads and the faulty one.
 */
#include "store/io.h"

#include "tests/support/counted.h"
#include "tests/support/fault.h"
#include "tests/support/io_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PARTS  8u
#define PART   16384u
#define LONG   5u /* operations of a chain, at most */
#define CHAINS 3000u

struct expected {
    int64_t result;
    bool out, reads;
    size_t len;
    char got[PART], should[PART];
};

struct world {
    struct io_rig g;
    int fd;
    char copy[PARTS * PART]; /* of the file */
    char text[PARTS][LONG][PART];
    struct expected ops[PARTS][LONG];
    uint32_t n_out[PARTS];
    uint64_t random;
};

static uint32_t chance(struct world *w, uint32_t n)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return (uint32_t)(w->random >> 20) % n;
}

/* One operation of chain p, whose effect is in the copy if it is going to be done. */
static struct io_op draw(struct world *w, uint32_t p, uint32_t i, bool dead)
{
    struct expected *e = &w->ops[p][i];
    uint32_t at = chance(w, PART), len = chance(w, PART - at + 1), kind = chance(w, 8);
    struct io_op op = {
        .code = IO_SYNC, .fd = w->fd, .len = len, .off = p * PART + at, .cookie = p * LONG + i
    };

    *e = (struct expected){ .out = true, .len = len };
    if (kind == 0)
        return op;
    if (kind == 1) {
        op.fd = 1000;
        e->result = -EBADF;
        return op;
    }
    e->result = len;
    op.aside = kind == 2;
    if (kind % 2) {
        op.code = IO_READ;
        op.mem = e->got;
        e->reads = true;
        memcpy(e->should, w->copy + op.off, len);
    } else {
        op.code = IO_WRITE;
        op.mem = w->text[p][i];
        memset(w->text[p][i], (int)chance(w, 256), len);
        if (!dead)
            memcpy(w->copy + op.off, w->text[p][i], len);
    }
    return op;
}

static void start(struct world *w, uint32_t p)
{
    uint32_t n = 1 + chance(w, LONG);
    bool dead = false;

    w->n_out[p] = n;
    for (uint32_t i = 0; i < n; i++) {
        struct io_op op = draw(w, p, i, dead);

        op.link = i + 1 < n;
        if (dead)
            w->ops[p][i].result = -ECANCELED;
        dead |= w->ops[p][i].result < 0;
        assert_int_equal(io_queue(w->g.io, &op), 0);
    }
}

static void check(struct world *w, const struct io_done *d)
{
    uint32_t p = (uint32_t)(d->cookie / LONG);
    struct expected *e = &w->ops[p][d->cookie % LONG];

    assert_true(d->cookie < PARTS * LONG && e->out);
    e->out = false;
    w->n_out[p]--;
    expect_that(d->result == e->result, "operation %u of chain %u: %lld, not %lld",
                (unsigned)(d->cookie % LONG), p, (long long)d->result, (long long)e->result);
    if (e->reads && d->result > 0)
        assert_memory_equal(e->got, e->should, e->len);
}

static void go_on(struct world *w)
{
    struct io_done d[7];
    uint32_t n = io_reap(w->g.io, d, 1 + chance(w, 7));

    for (uint32_t i = 0; i < n; i++)
        check(w, &d[i]);
    if (n == 0)
        assert_int_equal(io_wait(w->g.io), 0);
}

static void chains_of_chance(enum io_kind kind)
{
    struct world *w = calloc(1, sizeof(*w));
    uint32_t started = 0, left;
    char *all;

    assert_non_null(w);
    w->random = 88172645463325252ull;
    assert_int_equal(io_rig_try(&w->g, kind, PARTS * LONG), 0);
    w->fd = io_rig_file(&w->g, "a", 0);
    assert_int_equal(ftruncate(w->fd, sizeof(w->copy)), 0);
    fault_short(3000); /* what threads move at once */
    do {
        left = 0;
        for (uint32_t p = 0; p < PARTS; p++) {
            if (w->n_out[p] == 0 && started < CHAINS && chance(w, 3)) {
                start(w, p);
                started++;
            }
            left += w->n_out[p];
        }
        assert_int_equal(io_submit(w->g.io), 0);
        go_on(w);
    } while (left || started < CHAINS);
    fault_short(0);
    assert_false(io_rig_readable(&w->g));
    all = malloc(sizeof(w->copy));
    assert_int_equal(pread(w->fd, all, sizeof(w->copy), 0), sizeof(w->copy));
    assert_memory_equal(all, w->copy, sizeof(w->copy));
    free(all);
    assert_int_equal(close(w->fd), 0);
    io_rig_close(&w->g);
    free(w);
}

static const struct io_rig_test contracts[] = {
    { "chains of chance", chains_of_chance },
};

int main(void)
{
    return io_rig_run(contracts, sizeof(contracts) / sizeof(contracts[0]));
}
