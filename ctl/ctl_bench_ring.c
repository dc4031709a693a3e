/* ctl/ctl_bench_ring.c - gistctl bench-ring: an empty request over shared memory, against the
 * same exchange over a Unix socket, and against what the machine takes for the crossing alone.
 *
 * The peer of the socket is a child that sends back the 64 bytes it gets. All are measured in the
 * same run, in turns, so that what else the machine does hits all. Two ways of waiting:
 *
 *     spinning   one exchange follows the other; both ends of the ring look for the answer for a
 *                while before they sleep. The socket has no such thing: its ends block.
 *     sleeping   a pause before each exchange, long enough for everyone to be asleep: what it costs
 *                to wake the other side and be woken.
 *
 * The bare crossing is two processes on two CPUs that spin on a word of shared memory each: no
 * exchange between processes is faster, and machines differ by a factor of ten in it. It has a
 * child of its own, which is kept off the parent's CPU, or it would measure the scheduler; the
 * socket's child stays where the kernel puts it.
 */
#include "base/clock.h"
#include "ctl/ctl.h"
#include "ctl/ctl_json.h"
#include "ctl/ctl_opt.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct ctl_opt_usage usage = {
    "bench-ring [OPTIONS]",
    "Measures the round trip of an empty request to the daemon and of 64 bytes over a Unix\n"
    "SEQPACKET socket, in turns: spinning (one after the other) and sleeping (with a pause\n"
    "before each); and that of a word of memory between two processes that spin on two CPUs,\n"
    "which nothing can beat. Needs a daemon that does nothing else.\n"
};

#define TURN      100u /* exchanges of one kind before the other kind's turn */
#define BYTES     64u
#define SPIN_NS   1000000u /* longer than any answer takes: a spinning client never sleeps */
#define SETTLE_NS 1000000l /* between turns: the daemon must not spin into the socket's */
#define SLEEPERS  10u      /* one sleeping exchange for that many spinning ones */

enum kind { RING_SPINNING, SOCKET_BUSY, BARE, RING_SLEEPING, SOCKET_SLEEPING, KIND__N };

/* A line for each direction, so that a crossing is one line's travel each way. */
struct crossing {
    _Alignas(64) _Atomic uint32_t there;
    _Alignas(64) _Atomic uint32_t back;
};

struct child {
    pid_t pid;
    int sock;
};

struct bench {
    gist_conn *conn;
    struct child echo, cross;
    struct crossing *line; /* shared with the child that crosses */
    uint32_t crossed;
    cpu_set_t cpus; /* that this process may use */
    uint32_t n[KIND__N];
    uint64_t *ns[KIND__N]; /* (n) round trips */
};

struct summary {
    double p50, p99, p999;
};

/* --- the other ends --------------------------------------------------------------------------- */

static void echo(struct bench *b, int sock)
{
    char buf[BYTES];
    ssize_t n;

    (void)b;
    while ((n = recv(sock, buf, sizeof(buf), 0)) > 0)
        if (send(sock, buf, (size_t)n, MSG_NOSIGNAL) < 0)
            break;
}

/* Answers a turn of crossings and the one that begins it, and sleeps until the next turn: it must
 * not spin beside the others. */
static void cross_back(struct bench *b, int sock)
{
    struct crossing *c = b->line;
    char byte;

    while (recv(sock, &byte, 1, 0) > 0) {
        for (uint32_t i = 0; i <= TURN; i++) {
            uint32_t last = atomic_load_explicit(&c->back, memory_order_relaxed), there;

            while ((there = atomic_load_explicit(&c->there, memory_order_acquire)) == last)
                clock_pause();
            atomic_store_explicit(&c->back, there, memory_order_release);
        }
    }
}

/* It ends with its socket, or with its parent. */
static int start_child(struct bench *b, void (*run)(struct bench *b, int sock), struct child *ret)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    ret->pid = fork();
    if (ret->pid < 0) {
        int err = -errno;

        close(pair[0]);
        close(pair[1]);
        return err;
    }
    if (ret->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(pair[0]);
        run(b, pair[1]);
        _exit(0);
    }
    close(pair[1]);
    ret->sock = pair[0];
    return 0;
}

static void end_child(struct child *c)
{
    if (c->sock >= 0)
        close(c->sock);
    if (c->pid > 0)
        (void)waitpid(c->pid, NULL, 0);
}

/* Not the child that crosses where there is one CPU. */
static int start_children(struct bench *b)
{
    void *mem;
    int r = start_child(b, echo, &b->echo);

    if (r < 0 || CPU_COUNT(&b->cpus) < 2)
        return r;
    mem = mmap(NULL, sizeof(*b->line), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED)
        return -errno;
    b->line = mem;
    return start_child(b, cross_back, &b->cross);
}

static int exchange_by_socket(struct bench *b)
{
    char buf[BYTES] = { 0 };

    if (send(b->echo.sock, buf, sizeof(buf), MSG_NOSIGNAL) != (ssize_t)sizeof(buf) ||
        recv(b->echo.sock, buf, sizeof(buf), 0) != (ssize_t)sizeof(buf))
        return ctl_fail(CTL_FAILED, "the echo process is gone.");
    return 0;
}

/* --- the bare crossing ------------------------------------------------------------------------ */

/* This process on the CPU it is on, the child on any other. Where this process is now is as good as
 * any CPU, and it need not be moved. Undone behind each turn: the other kinds are measured where
 * the kernel puts them. */
static int part(struct bench *b)
{
    cpu_set_t here, others = b->cpus;
    int cpu = sched_getcpu();

    CPU_ZERO(&here);
    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return -EINVAL;
    CPU_SET((size_t)cpu, &here);
    CPU_CLR((size_t)cpu, &others);
    if (sched_setaffinity(0, sizeof(here), &here) < 0 ||
        sched_setaffinity(b->cross.pid, sizeof(others), &others) < 0)
        return -errno;
    return 0;
}

/* One crossing there and back. A child that is gone must not hang the bench, but looking at the
 * clock takes longer than a crossing: so that is done every millionth look. */
static int cross(struct bench *b)
{
    struct crossing *c = b->line;
    uint32_t n = ++b->crossed;
    uint64_t end = 0;

    atomic_store_explicit(&c->there, n, memory_order_release);
    for (uint32_t i = 1; atomic_load_explicit(&c->back, memory_order_acquire) != n; i++) {
        clock_pause();
        if (i % 1048576 != 0)
            continue;
        if (end == 0)
            end = clock_ns() + 10 * CLOCK_S;
        else if (clock_ns() > end)
            return ctl_fail(CTL_FAILED, "the crossing process does not answer.");
    }
    return 0;
}

/* TURN crossings from `at` on, or as many as fill the turn without being counted. */
static int take_bare_turn(struct bench *b, uint32_t at)
{
    int r = part(b);

    if (r < 0)
        r = ctl_fail(CTL_FAILED, "can't keep two processes on two CPUs: %s.", strerror(-r));
    else if (send(b->cross.sock, "", 1, MSG_NOSIGNAL) != 1)
        r = ctl_fail(CTL_FAILED, "the crossing process is gone.");
    else
        r = cross(b); /* the child is awake and there */
    for (uint32_t i = at; r == 0 && i < at + TURN; i++) {
        uint64_t t0 = clock_ns();

        r = cross(b);
        if (i < b->n[BARE])
            b->ns[BARE][i] = clock_ns() - t0;
    }
    (void)sched_setaffinity(0, sizeof(b->cpus), &b->cpus);
    return r;
}

/* --- measuring -------------------------------------------------------------------------------- */

static void pause_ns(long ns)
{
    nanosleep(&(struct timespec){ .tv_nsec = ns }, NULL);
}

static int exchange(struct bench *b, enum kind kind)
{
    int r;

    if (kind == SOCKET_BUSY || kind == SOCKET_SLEEPING)
        return exchange_by_socket(b);
    r = gist_ping(b->conn);
    return r < 0 ? ctl_fail_gist(b->conn, r) : 0;
}

/* Exchanges [at, at + TURN) of a kind, as far as there are so many. */
static int take_turn(struct bench *b, enum kind kind, uint32_t at)
{
    bool sleeping = kind == RING_SLEEPING || kind == SOCKET_SLEEPING;

    pause_ns(SETTLE_NS);
    if (kind == BARE)
        return take_bare_turn(b, at);
    gist_set_spin(b->conn, sleeping ? 0 : SPIN_NS);
    if (!sleeping && exchange(b, kind) != 0) /* wakes the other side; not counted */
        return CTL_FAILED;
    for (uint32_t i = at; i < at + TURN && i < b->n[kind]; i++) {
        uint64_t t0;
        int r;

        if (sleeping)
            pause_ns(SETTLE_NS / 2);
        t0 = ctl_now_ns();
        r = exchange(b, kind);
        b->ns[kind][i] = ctl_now_ns() - t0;
        if (r != 0)
            return r;
    }
    return 0;
}

/* Kinds take turns, so that a busy moment of the machine does not fall on one of them alone. */
static int measure(struct bench *b)
{
    for (uint32_t at = 0; at < b->n[RING_SPINNING]; at += TURN) {
        for (enum kind k = 0; k < KIND__N; k++) {
            int r = at < b->n[k] ? take_turn(b, k, at) : 0;

            if (r != 0)
                return r;
        }
    }
    return 0;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* The nearest rank: no value that was not measured. */
static double percentile(const uint64_t *sorted, uint32_t n, double p)
{
    uint32_t i = (uint32_t)(p * n);

    return (double)sorted[i < n ? i : n - 1];
}

static struct summary summarise(uint64_t *ns, uint32_t n)
{
    if (n == 0)
        return (struct summary){ 0, 0, 0 };
    qsort(ns, n, sizeof(*ns), compare);
    return (struct summary){ percentile(ns, n, 0.5), percentile(ns, n, 0.99),
                             percentile(ns, n, 0.999) };
}

/* --- saying ----------------------------------------------------------------------------------- */

static void print_row(const char *name, const struct summary *s)
{
    printf("%-28s %10.2f %10.2f %10.2f\n", name, s->p50 / 1e3, s->p99 / 1e3, s->p999 / 1e3);
}

static void print_ratio(const char *name, const struct summary *ring, const struct summary *sock)
{
    printf("%-28s %9.1fx %9.1fx %9.1fx\n", name, sock->p50 / ring->p50, sock->p99 / ring->p99,
           sock->p999 / ring->p999);
}

static void print_text(const struct summary s[KIND__N])
{
    printf("%-28s %10s %10s %10s\n", "round trip, microseconds", "p50", "p99", "p99.9");
    print_row("ring, spinning", &s[RING_SPINNING]);
    print_row("socket, one after the other", &s[SOCKET_BUSY]);
    if (s[BARE].p50 > 0)
        print_row("bare crossing, two CPUs", &s[BARE]);
    print_row("ring, sleeping", &s[RING_SLEEPING]);
    print_row("socket, after a pause", &s[SOCKET_SLEEPING]);
    if (s[BARE].p50 > 0)
        print_ratio("bare crossings in a ring's", &s[BARE], &s[RING_SPINNING]);
    print_ratio("ring is faster, spinning", &s[RING_SPINNING], &s[SOCKET_BUSY]);
    print_ratio("ring is faster, sleeping", &s[RING_SLEEPING], &s[SOCKET_SLEEPING]);
}

static void put_summary(struct ctl_json *j, const char *key, const struct summary *s)
{
    ctl_json_open(j, key, '{');
    ctl_json_double(j, "p50_ns", s->p50);
    ctl_json_double(j, "p99_ns", s->p99);
    ctl_json_double(j, "p999_ns", s->p999);
    ctl_json_close(j, '}');
}

static void put_ratio(struct ctl_json *j, const char *key, const struct summary *ring,
                      const struct summary *sock)
{
    ctl_json_open(j, key, '{');
    ctl_json_double(j, "p50", sock->p50 / ring->p50);
    ctl_json_double(j, "p99", sock->p99 / ring->p99);
    ctl_json_double(j, "p999", sock->p999 / ring->p999);
    ctl_json_close(j, '}');
}

static void print_json(const struct bench *b, const struct summary s[KIND__N])
{
    struct ctl_json j = { .out = stdout };

    ctl_json_open(&j, NULL, '{');
    ctl_json_u64(&j, "n_spinning", b->n[RING_SPINNING]);
    ctl_json_u64(&j, "n_sleeping", b->n[RING_SLEEPING]);
    put_summary(&j, "ring_spinning", &s[RING_SPINNING]);
    put_summary(&j, "socket", &s[SOCKET_BUSY]);
    if (s[BARE].p50 > 0) {
        put_summary(&j, "bare", &s[BARE]);
        put_ratio(&j, "bare_crossings", &s[BARE], &s[RING_SPINNING]);
    }
    put_summary(&j, "ring_sleeping", &s[RING_SLEEPING]);
    put_summary(&j, "socket_sleeping", &s[SOCKET_SLEEPING]);
    put_ratio(&j, "ratio_spinning", &s[RING_SPINNING], &s[SOCKET_BUSY]);
    put_ratio(&j, "ratio_sleeping", &s[RING_SLEEPING], &s[SOCKET_SLEEPING]);
    ctl_json_close(&j, '}');
    fputc('\n', stdout);
}

/* --- the command ------------------------------------------------------------------------------ */

static int open_bench(struct bench *b, uint32_t n)
{
    int r;

    /* More CPUs than the set has room for are no reason to measure nothing. */
    if (sched_getaffinity(0, sizeof(b->cpus), &b->cpus) < 0)
        CPU_ZERO(&b->cpus);
    for (enum kind k = 0; k < KIND__N; k++) {
        b->n[k] = k == RING_SLEEPING || k == SOCKET_SLEEPING ? (n + SLEEPERS - 1) / SLEEPERS : n;
        if (k == BARE && CPU_COUNT(&b->cpus) < 2)
            b->n[k] = 0;
        if (b->n[k] == 0)
            continue;
        b->ns[k] = calloc(b->n[k], sizeof(*b->ns[k]));
        if (!b->ns[k])
            return ctl_fail(CTL_FAILED, "out of memory.");
    }
    /* The children before the connection, so that they do not hold a copy of it. */
    r = start_children(b);
    if (r < 0)
        return ctl_fail(CTL_FAILED, "can't start the other ends: %s.", strerror(-r));
    return ctl_connect(&b->conn);
}

static void close_bench(struct bench *b)
{
    gist_disconnect(b->conn);
    end_child(&b->cross); /* first: it has a copy of the other's socket */
    end_child(&b->echo);
    if (b->line)
        (void)munmap(b->line, sizeof(*b->line));
    for (enum kind k = 0; k < KIND__N; k++)
        free(b->ns[k]);
}

int ctl_bench_ring(int argc, char **argv)
{
    uint32_t n = 20000;
    bool json = false;
    const struct ctl_opt opts[] = {
        { "count", 'n', CTL_OPT_U32, "N", &n, 1, 10000000,
          "spinning exchanges of each kind; a tenth as many sleeping (20000)" },
        { "json", 'j', CTL_OPT_FLAG, NULL, &json, 0, 0, "one object, in nanoseconds" },
    };
    struct bench b = { .echo.sock = -1, .cross.sock = -1 };
    struct summary s[KIND__N];
    int r, first = ctl_opt_parse(&usage, opts, sizeof(opts) / sizeof(opts[0]), argc, argv, &r);

    if (first < 0)
        return r;
    if (first < argc)
        return ctl_fail(CTL_USAGE, "bench-ring takes no arguments.");
    r = open_bench(&b, n);
    if (r == 0)
        r = measure(&b);
    if (r == 0) {
        for (enum kind k = 0; k < KIND__N; k++)
            s[k] = summarise(b.ns[k], b.n[k]);
        if (json)
            print_json(&b, s);
        else
            print_text(s);
    }
    close_bench(&b);
    return r;
}
