/* bench/crowd.c - many programs of several users at one daemon, none of them trusted.
 *
 *     crowd [--seconds N] [--clients N] [--owners N] [--document N] [--report]
 *           GISTD MODEL [OPTION]...
 *
 *     --seconds N   how long, all parts together (60)
 *     --clients N   of the crowd (64)
 *     --owners N    users that they belong to (4); root alone can be several
 *     --document N  tokens of what the background reads, about (8000)
 *     --report      timings and shares are told and fail nothing: for busy machines
 *
 * Starts GISTD with MODEL, OPTIONs and a socket for everybody, and then, one after the other:
 *
 *     alone     the greedy answers of each user's prompts, and an interactive first token (p50 and
 *               p99)
 *     beside    the same while two clients read documents in the background and one reads and
 *               cancels
 *     shares    users with 1, 2, 3 .. clients read without an end: rows of each
 *     crowd     all clients ask, are cancelled, leave, and are killed with -9, as chance has it
 *
 * Exit 1: an answer differs from what it was alone; a user's new text was taken over from
 * another's; the daemon ends or grows (memory, descriptors, pages, places); a user's rows are more
 * than a tenth away from even; a first token at p99 beside takes more than twice what it takes
 * alone, at p99, and a chunk (PACE_STEP_NS); a cancel beside the background takes more than 50 ms
 * at p99. Those in the crowd are told apart: there as many programs as there are clients want the
 * processors, and a step that reads for others too is not given up twice in a row.
 */
#include "base/clock.h"
#include "client/gist.h"
#include "daemon/pace.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLIENTS_MAX 256u
#define OWNERS_MAX  16u
#define PROMPTS     6u /* of a user */
#define ANSWER      12u
#define FIRST_UID   20000u
#define BUCKETS     80u /* of a histogram: a quarter of an octave each, from 64 us on */
#define WORD        6u  /* bytes of a made word with its space */
#define CANCEL_NS   (50 * CLOCK_MS)
#define KILL_NS     (500 * CLOCK_MS)

struct histogram {
    _Atomic uint32_t n[BUCKETS];
};

/* Shared by all processes. */
struct board {
    _Atomic uint64_t stop_ns; /* of the part that runs */
    _Atomic uint64_t answers, wrong, foreign, cancelled, refused, killed, broken;
    struct histogram alone, beside, cancels, crowd_cancels;
    uint32_t answer[OWNERS_MAX][PROMPTS][ANSWER];
    char said[256]; /* the first thing that was wrong */
};

struct crowd {
    struct board *board;
    const char *gistd, *model, *const *options;
    uint32_t seconds, n_clients, n_owners, document;
    uint32_t words; /* of a document */
    bool report;
    char dir[64], socket[128];
    pid_t daemon;
    bool failed;
};

/* --- small things ----------------------------------------------------------------------------- */

static uint32_t any(uint64_t *x, uint32_t n)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return (uint32_t)(*x >> 33) % n;
}

static void add(struct histogram *h, uint64_t ns)
{
    uint32_t k = 0;

    for (double at = 64e3 * 1.189207; (double)ns > at && k < BUCKETS - 1; at *= 1.189207)
        k++;
    atomic_fetch_add(&h->n[k], 1);
}

static uint32_t count(const struct histogram *h)
{
    uint32_t n = 0;

    for (uint32_t k = 0; k < BUCKETS; k++)
        n += h->n[k];
    return n;
}

/* Milliseconds that so much of it stays below: the end of a bucket, which is a fifth too much at
 * most. */
static double below(const struct histogram *h, double part)
{
    uint32_t all = count(h), n = 0;
    double at = 64e3;

    for (uint32_t k = 0; k < BUCKETS; k++) {
        at *= 1.189207;
        n += h->n[k];
        if (n > 0 && n >= part * all)
            break;
    }
    return at / 1e6;
}

static void print_histogram(const struct histogram *h)
{
    double at = 64e3;

    for (uint32_t k = 0; k < BUCKETS; k++) {
        at *= 1.189207;
        if (h->n[k])
            printf("    %9.2f ms %8u\n", at / 1e6, h->n[k]);
    }
}

static void fail(struct crowd *w, const char *what, double found, double most)
{
    printf("FAILED: %s: %.4g, at most %.4g\n", what, found, most);
    w->failed = true;
}

/* Of a client: its own process goes on, and the end of the crowd counts. */
static void note(struct board *b, const char *what, const char *more)
{
    if (!b->said[0])
        (void)snprintf(b->said, sizeof(b->said), "%s: %s", what, more);
}

static bool over(const struct board *b)
{
    return clock_ns() > atomic_load(&b->stop_ns);
}

/* Words that nobody else has: of a seed. */
static char *make_text(uint64_t seed, uint32_t n_words)
{
    char *s = malloc((size_t)n_words * WORD + 1), *p = s;
    uint64_t x = seed * 0x9e3779b97f4a7c15u + 88172645463325252u;

    for (uint32_t i = 0; s && i < n_words; i++) {
        for (uint32_t k = 0; k < WORD - 1; k++)
            *p++ = "aeioubdgklmnprst"[any(&x, 16)];
        *p++ = ' ';
    }
    if (p)
        *p = '\0';
    return s;
}

/* Users' prompts begin alike and then differ, and are of mixed lengths. */
static char *make_prompt(uint32_t owner, uint32_t k)
{
    char *same = make_text(7, 40), *own = make_text(1000 + owner * 100 + k, 4 + k * k * 6),
         *s = NULL;

    if (same && own && asprintf(&s, "%s%s", same, own) < 0)
        s = NULL;
    free(same);
    free(own);
    return s;
}

/* --- clients ---------------------------------------------------------------------------------- */

static gist_conn *connect_to(const struct crowd *w, const char *name)
{
    gist_conn *c;

    return gist_connect(w->socket, name, &c) < 0 ? NULL : c;
}

struct answer {
    uint32_t ids[ANSWER], n;
    uint64_t first_ns;
};

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n)
{
    struct answer *a = arg;

    (void)text, (void)len;
    if (a->n == 0 && n > 0)
        a->first_ns = clock_ns();
    for (size_t i = 0; i < n && a->n < ANSWER; i++)
        a->ids[a->n++] = ids[i];
    return 0;
}

static const struct gist_sampling greedy = { .size = sizeof(greedy),
                                             .max_tokens = ANSWER,
                                             .ignore_eog = 1 };

/* -EDQUOT: a limit or no pages, which is what limits are for. */
static int failed(struct board *b, gist_conn *c, int r, const char *what)
{
    enum gist_code code = gist_error_code(c);

    if (r == -EPIPE) {
        atomic_fetch_add(&b->broken, 1);
        note(b, what, "the daemon is gone");
        return r;
    }
    if (code == GIST_E_LIMIT || code == GIST_E_POOL_FULL) {
        atomic_fetch_add(&b->refused, 1);
        return -EDQUOT;
    }
    atomic_fetch_add(&b->broken, 1);
    note(b, what, gist_error(c));
    return r;
}

/* Asks one of the user's prompts. */
static int ask(struct crowd *w, gist_conn *c, uint32_t owner, uint32_t k, struct answer *ret,
               uint32_t *ret_shared)
{
    struct gist_policy p = { .size = sizeof(p), .priority = GIST_INTERACTIVE };
    char *text = make_prompt(owner, k);
    struct gist_usage u;
    gist_session *s = NULL;
    int r = gist_open(c, &p, &s);

    *ret = (struct answer){ .n = 0 };
    if (r == 0)
        r = gist_append_text(s, text, strlen(text), 0, &u);
    if (r == 0)
        *ret_shared = u.shared_tokens;
    if (r == 0)
        r = gist_generate(s, &greedy, on_text, ret, NULL);
    if (r < 0)
        r = failed(w->board, c, r, "asking");
    if (s)
        gist_close(s);
    free(text);
    return r;
}

/* A short question that nobody asked before: from its prompt to its first token. */
static int probe(struct crowd *w, gist_conn *c, uint64_t seed, struct histogram *h)
{
    struct gist_policy p = { .size = sizeof(p),
                             .priority = GIST_INTERACTIVE,
                             .flags = GIST_PRIVATE };
    struct gist_sampling one = greedy;
    struct answer a = { .n = 0 };
    char *text = make_text(seed, 8);
    gist_session *s = NULL;
    uint64_t begin;
    int r = gist_open(c, &p, &s);

    one.max_tokens = 1;
    begin = clock_ns();
    if (r == 0)
        r = gist_append_text(s, text, strlen(text), 0, NULL);
    if (r == 0)
        r = gist_generate(s, &one, on_text, &a, NULL);
    if (r < 0)
        r = failed(w->board, c, r, "a probe");
    else
        add(h, a.first_ns - begin);
    if (s)
        gist_close(s);
    free(text);
    return r;
}

struct reading {
    bool done;
    int err;
    uint64_t end_ns;
};

static void on_done(void *arg, int err, const struct gist_result *result)
{
    struct reading *x = arg;

    (void)result;
    *x = (struct reading){ true, err, clock_ns() };
}

static int wait_for(gist_conn *c, const struct reading *x, uint64_t until_ns)
{
    struct pollfd fd = { .fd = gist_fd(c), .events = POLLIN };
    int r = 0;

    while (!x->done && r >= 0 && clock_ns() < until_ns) {
        (void)poll(&fd, 1, 5);
        r = gist_dispatch(c);
    }
    return r;
}

/* Reads for a while, cancels, and waits for the answer to that. */
static int cancel_one(struct crowd *w, gist_conn *c, uint64_t *x, uint32_t words,
                      struct histogram *h)
{
    struct gist_policy p = { .size = sizeof(p), .flags = GIST_PRIVATE };
    char *text = make_text(*x, words);
    struct reading read = { .done = false };
    gist_session *s = NULL;
    uint64_t id, begin;
    int r = gist_open(c, &p, &s);

    if (r == 0)
        r = gist_append_text_start(s, text, strlen(text), 0, on_done, &read, &id);
    if (r == 0)
        r = wait_for(c, &read, clock_ns() + (1 + any(x, 200)) * CLOCK_MS);
    if (r >= 0 && !read.done) {
        begin = clock_ns();
        r = gist_cancel(c, id);
        if (r >= 0)
            r = wait_for(c, &read, UINT64_MAX);
        if (read.done && read.err == -ECANCELED) {
            add(h, read.end_ns - begin);
            atomic_fetch_add(&w->board->cancelled, 1);
        }
    }
    if (r < 0)
        r = failed(w->board, c, r, "a cancel");
    if (s)
        gist_close(s);
    free(text);
    return r < 0 ? r : 0;
}

/* --- what a process does ---------------------------------------------------------------------- */

enum role { ALONE, BACKGROUND, CANCELS, READS, CROWD };

/* Documents one after the other, two at a time where others read as well: the model is never
 * without work of this client. */
static void read_for_ever(struct crowd *w, gist_conn *c, enum gist_priority priority, uint64_t seed)
{
    struct gist_policy p = { .size = sizeof(p), .priority = priority, .flags = GIST_PRIVATE };
    struct reading read[2] = { { .done = true }, { .done = true } };
    gist_session *s[2] = { NULL, NULL };
    char *text[2] = { NULL, NULL };
    int r = 0;

    for (uint32_t i = 0; r >= 0 && !over(w->board); i ^= 1) {
        if (read[i].done) {
            if (s[i])
                gist_close(s[i]);
            free(text[i]);
            s[i] = NULL;
            text[i] = make_text(seed += 2, w->words);
            read[i].done = false;
            r = gist_open(c, &p, &s[i]);
            if (r == 0)
                r = gist_append_text_start(s[i], text[i], strlen(text[i]), 0, on_done, &read[i],
                                           NULL);
        } else {
            r = wait_for(c, &read[i], clock_ns() + 5 * CLOCK_MS);
        }
        if (r < 0 || (read[i].done && read[i].err < 0 && read[i].err != -ECANCELED))
            r = failed(w->board, c, r < 0 ? r : read[i].err, "reading");
        if (r == -EDQUOT)
            r = 0;
    }
    _exit(0); /* as programs end: what it reads is nobody's then */
}

static void check_answer(struct board *b, uint32_t owner, uint32_t k, const struct answer *a)
{
    char text[96];

    atomic_fetch_add(&b->answers, 1);
    if (a->n == ANSWER && memcmp(a->ids, b->answer[owner][k], sizeof(a->ids)) == 0)
        return;
    atomic_fetch_add(&b->wrong, 1);
    (void)snprintf(text, sizeof(text), "user %u, prompt %u, %u tokens", owner, k, a->n);
    note(b, "another answer than alone", text);
}

static void take_part(struct crowd *w, gist_conn *c, uint32_t owner, uint64_t x)
{
    struct answer a;
    uint32_t k, shared;
    int r = 0;

    while (c && r >= 0 && !over(w->board)) {
        uint32_t what = any(&x, 100);

        if (what < 70) {
            k = any(&x, PROMPTS);
            r = ask(w, c, owner, k, &a, &shared);
            if (r == 0)
                check_answer(w->board, owner, k, &a);
        } else if (what < 90) {
            r = cancel_one(w, c, &x, 40 + any(&x, w->words / 2), &w->board->crowd_cancels);
        } else {
            gist_disconnect(c);
            c = connect_to(w, "crowd");
            if (!c)
                note(w->board, "connecting again", gist_error(NULL));
            r = c ? 0 : -EPIPE;
        }
        if (r == -EDQUOT) {
            (void)usleep(10000);
            r = 0;
        }
    }
    gist_disconnect(c);
}

/* Of a user by itself: nobody has read anything of its texts before, and what others have read of
 * the beginning that all share is not given away. */
static void learn_answers(struct crowd *w, gist_conn *c, uint32_t owner)
{
    struct board *b = w->board;
    struct answer a;
    uint32_t shared;

    for (uint32_t k = 0; k < PROMPTS; k++) {
        if (ask(w, c, owner, k, &a, &shared) < 0)
            _exit(1);
        b->foreign += k == 0 && shared > 0 && getuid() >= FIRST_UID;
        memcpy(b->answer[owner][k], a.ids, sizeof(a.ids));
    }
    for (uint32_t i = 0; owner == 0 && i < 40; i++)
        if (probe(w, c, 5000 + i, &b->alone) < 0)
            _exit(1);
}

/* A process of the user's; -1: none. */
static pid_t start(struct crowd *w, enum role role, uint32_t owner, uint64_t seed)
{
    gist_conn *c;
    pid_t pid;

    (void)fflush(stdout);
    pid = fork();
    if (pid != 0)
        return pid;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getuid() == 0 && (setgid(FIRST_UID + owner) < 0 || setuid(FIRST_UID + owner) < 0))
        _exit(1);
    c = connect_to(w, role == CROWD ? "crowd" : "reader");
    if (!c) {
        note(w->board, "connecting", gist_error(NULL));
        atomic_fetch_add(&w->board->broken, 1);
        _exit(1);
    }
    switch (role) {
    case ALONE:
        learn_answers(w, c, owner);
        break;
    case BACKGROUND:
    case READS:
        read_for_ever(w, c, role == READS ? GIST_INTERACTIVE : GIST_BACKGROUND, seed << 20);
        break;
    case CANCELS:
        while (!over(w->board) && cancel_one(w, c, &seed, w->words, &w->board->cancels) >= 0)
            ;
        break;
    case CROWD:
        take_part(w, c, owner, seed);
    }
    _exit(0);
}

static void begin_part(struct crowd *w, double part)
{
    atomic_store(&w->board->stop_ns, clock_ns() + (uint64_t)(part * w->seconds * 1e9));
}

static void end_all(const pid_t *pids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (pids[i] > 0)
            (void)waitpid(pids[i], NULL, 0);
}

/* --- parts ------------------------------------------------------------------------------------ */

static void alone(struct crowd *w)
{
    for (uint32_t owner = 0; owner < w->n_owners; owner++) {
        pid_t pid = start(w, ALONE, owner, 0);

        end_all(&pid, 1);
    }
}

static void beside(struct crowd *w)
{
    gist_conn *c = connect_to(w, "probe");
    pid_t pids[3];

    begin_part(w, 0.25);
    pids[0] = start(w, BACKGROUND, 1 % w->n_owners, 1);
    pids[1] = start(w, BACKGROUND, 2 % w->n_owners, 2);
    for (uint64_t i = 0; c && !over(w->board); i++) {
        if (probe(w, c, 6000 + i, &w->board->beside) < 0)
            break;
        (void)usleep(20000);
    }
    end_all(pids, 2);
    begin_part(w, 0.05);
    pids[0] = start(w, BACKGROUND, 1 % w->n_owners, 3);
    pids[1] = start(w, CANCELS, 0, 4);
    end_all(pids, 2);
    gist_disconnect(c);
}

static void read_rows(gist_conn *c, uint32_t n_owners, uint64_t *ret)
{
    struct gist_stats st;

    memset(ret, 0, OWNERS_MAX * sizeof(*ret));
    if (gist_stats(c, &st) < 0)
        return;
    for (uint32_t i = 0; i < st.n_owners; i++)
        if (st.owners[i].uid >= FIRST_UID && st.owners[i].uid < FIRST_UID + n_owners)
            ret[st.owners[i].uid - FIRST_UID] = st.owners[i].rows;
}

/* From when all have begun until before the first ends. */
static void shares(struct crowd *w)
{
    uint64_t before[OWNERS_MAX], after[OWNERS_MAX], all = 0;
    gist_conn *c = connect_to(w, "shares");
    pid_t pids[OWNERS_MAX * OWNERS_MAX];
    uint32_t n = 0;

    begin_part(w, 0.25);
    for (uint32_t owner = 0; owner < w->n_owners; owner++)
        for (uint32_t i = 0; i <= owner; i++, n++)
            pids[n] = start(w, READS, owner, 10 + n);
    (void)usleep((useconds_t)(0.04e6 * w->seconds));
    read_rows(c, w->n_owners, before);
    (void)usleep((useconds_t)(0.19e6 * w->seconds));
    read_rows(c, w->n_owners, after);
    for (uint32_t i = 0; i < w->n_owners; i++)
        all += after[i] - before[i];
    for (uint32_t i = 0; getuid() == 0 && i < w->n_owners; i++) {
        double even = (double)all / w->n_owners, had = (double)(after[i] - before[i]);

        printf("shares    user %u with %u clients: %.0f rows, %.3f of even\n", i, i + 1, had,
               all ? had / even : 0);
        if (!w->report && (had < 0.9 * even || had > 1.1 * even))
            fail(w, "a user's share of even", had / even, 1.1);
    }
    end_all(pids, n);
    gist_disconnect(c);
}

/* --- the daemon ------------------------------------------------------------------------------- */

static uint64_t resident(pid_t pid)
{
    char path[64];
    unsigned long long all = 0, pages = 0;
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
    f = fopen(path, "re");
    if (f && fscanf(f, "%llu %llu", &all, &pages) != 2)
        pages = 0;
    if (f)
        (void)fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint32_t descriptors(pid_t pid)
{
    char path[64];
    uint32_t n = 0;
    DIR *d;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    d = opendir(path);
    while (d && readdir(d))
        n++;
    if (d)
        (void)closedir(d);
    return n;
}

/* Everybody has gone: waits until the daemon has nothing of theirs any more. */
static void check_empty(struct crowd *w, gist_conn *c, uint32_t fds, uint64_t bytes)
{
    uint64_t until = clock_ns() + 30 * CLOCK_S, now = 0;
    struct gist_stats st = { .pages = 1 };
    uint32_t open = 0;

    do {
        (void)usleep(20000);
        if (gist_stats(c, &st) < 0)
            break;
        open = descriptors(w->daemon);
    } while ((st.n_clients > 1 || st.pages_free + st.pages_cached < st.pages || open > fds) &&
             clock_ns() < until);
    now = resident(w->daemon);
    printf("after     %u clients, %u of %u pages held, %u descriptors (%u before), %.1f MiB (%.1f "
           "before)\n",
           st.n_clients, st.pages - st.pages_free - st.pages_cached, st.pages, open, fds,
           (double)now / 1048576, (double)bytes / 1048576);
    if (st.n_clients != 1 || st.n_sessions > 0)
        fail(w, "clients and sessions after the crowd", st.n_clients + st.n_sessions, 1);
    if (st.pages_free + st.pages_cached != st.pages)
        fail(w, "pages held after the crowd", st.pages - st.pages_free - st.pages_cached, 0);
    if (open > fds)
        fail(w, "descriptors after the crowd", open, fds);
    /* Sanitizers keep what is freed for a while; a page a session would be more than this. */
    if (now > bytes + bytes / 8 + ((uint64_t)64 << 20))
        fail(w, "bytes of the daemon after the crowd", (double)now,
             (double)bytes + (double)bytes / 8 + (64 << 20));
}

static void crowd(struct crowd *w)
{
    gist_conn *c = connect_to(w, "watcher");
    pid_t pids[CLIENTS_MAX];
    uint64_t x = 99, next_kill = 0, warm_ns, bytes = 0;
    uint32_t fds = descriptors(w->daemon);

    begin_part(w, 0.4);
    warm_ns = clock_ns() + (uint64_t)(0.15e9 * w->seconds);
    for (uint32_t i = 0; i < w->n_clients; i++)
        pids[i] = start(w, CROWD, i % w->n_owners, 100 + i);
    while (!over(w->board)) {
        (void)usleep(20000);
        if (clock_ns() > warm_ns && bytes == 0)
            bytes = resident(w->daemon);
        if (clock_ns() > next_kill) {
            uint32_t i = any(&x, w->n_clients);

            (void)kill(pids[i], SIGKILL);
            (void)waitpid(pids[i], NULL, 0);
            pids[i] = start(w, CROWD, i % w->n_owners, 1000 + w->board->killed++);
            next_kill = clock_ns() + KILL_NS;
        }
        if (waitpid(w->daemon, NULL, WNOHANG) == w->daemon) {
            fail(w, "the daemon ended", 1, 0);
            w->daemon = 0;
            break;
        }
    }
    end_all(pids, w->n_clients);
    if (w->daemon)
        check_empty(w, c, fds, bytes);
    gist_disconnect(c);
}

/* How many words a document has depends on the model's tokens. */
static bool count_words(struct crowd *w, gist_conn *c)
{
    char *text = make_text(3, 100);
    uint32_t *ids = NULL;
    size_t n = 0;

    if (!c || gist_tokenize(c, text, strlen(text), 0, &ids, &n) < 0 || n == 0)
        return false;
    w->words = (uint32_t)(w->document * 100 / n);
    free(ids);
    free(text);
    return true;
}

static bool start_daemon(struct crowd *w)
{
    const char *args[64] = { w->gistd,  "--model",       w->model, "--socket",
                             w->socket, "--store",       "none",   "--socket-mode",
                             "0666",    "--max-clients", "128" };
    gist_conn *c = NULL;
    uint32_t n = 11;
    bool up;

    (void)snprintf(w->dir, sizeof(w->dir), "/tmp/crowd.XXXXXX");
    if (!mkdtemp(w->dir) || chmod(w->dir, 0711) < 0)
        return false;
    (void)snprintf(w->socket, sizeof(w->socket), "%s/s", w->dir);
    for (uint32_t i = 0; w->options[i] && n < 63; i++)
        args[n++] = w->options[i];
    (void)fflush(stdout);
    w->daemon = fork();
    if (w->daemon == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)execv(w->gistd, (char *const *)(uintptr_t)args);
        _exit(127);
    }
    for (uint32_t i = 0; w->daemon > 0 && !c && i < 6000; i++) {
        (void)usleep(10000);
        c = connect_to(w, "first");
        if (waitpid(w->daemon, NULL, WNOHANG) == w->daemon)
            w->daemon = 0;
    }
    up = count_words(w, c);
    gist_disconnect(c);
    return w->daemon > 0 && up;
}

static void stop_daemon(struct crowd *w)
{
    char lock[160];
    int status = 0;

    if (w->daemon > 0) {
        (void)kill(w->daemon, SIGTERM);
        (void)waitpid(w->daemon, &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            fail(w, "the daemon's exit status", status, 0);
    }
    (void)snprintf(lock, sizeof(lock), "%s.lock", w->socket);
    (void)unlink(lock);
    (void)unlink(w->socket);
    (void)rmdir(w->dir);
}

/* --- all of it -------------------------------------------------------------------------------- */

static void print_times(const char *what, const struct histogram *h)
{
    printf("%-9s %u times, p50 %.1f ms, p99 %.1f ms\n", what, count(h), below(h, 0.5),
           below(h, 0.99));
}

static void report(struct crowd *w)
{
    struct board *b = w->board;
    double most = 2 * below(&b->alone, 0.99) + PACE_STEP_NS / 1e6;

    print_times("alone", &b->alone);
    print_times("beside", &b->beside);
    print_histogram(&b->beside);
    if (!w->report && below(&b->beside, 0.99) > most)
        fail(w, "p99 of a first token beside the background, ms", below(&b->beside, 0.99), most);
    print_times("cancels", &b->cancels);
    print_histogram(&b->cancels);
    if (!w->report && below(&b->cancels, 0.99) > CANCEL_NS / 1e6)
        fail(w, "p99 of a cancel, ms", below(&b->cancels, 0.99), CANCEL_NS / 1e6);
    print_times("cancels in the crowd", &b->crowd_cancels);
    print_histogram(&b->crowd_cancels);
    printf("crowd     %" PRIu64 " answers, %" PRIu64 " cancelled, %" PRIu64 " refused, %" PRIu64
           " killed\n",
           b->answers, b->cancelled, b->refused, b->killed);
    if (b->answers == 0)
        fail(w, "answers missing", 1, 0);
    if (b->wrong > 0)
        fail(w, "answers that differ", (double)b->wrong, 0);
    if (b->foreign > 0)
        fail(w, "texts taken over from another user", (double)b->foreign, 0);
    if (b->broken > 0)
        fail(w, "requests that failed", (double)b->broken, 0);
    if (b->said[0])
        printf("the first: %s\n", b->said);
}

static int usage(void)
{
    (void)fprintf(stderr, "usage: crowd [--seconds N] [--clients N] [--owners N] [--document N] "
                          "[--report] GISTD MODEL [OPTION]...\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "seconds", 1, NULL, 's' },  { "clients", 1, NULL, 'c' }, { "owners", 1, NULL, 'o' },
        { "document", 1, NULL, 'd' }, { "report", 0, NULL, 'r' },  { NULL, 0, NULL, 0 }
    };
    struct crowd w = { .seconds = 60, .n_clients = 64, .n_owners = 4, .document = 8000 };
    int o;

    while ((o = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        uint32_t n = optarg ? (uint32_t)strtoul(optarg, NULL, 10) : 0;

        switch (o) {
        case 's':
            w.seconds = n;
            break;
        case 'c':
            w.n_clients = n;
            break;
        case 'o':
            w.n_owners = n;
            break;
        case 'd':
            w.document = n;
            break;
        case 'r':
            w.report = true;
            break;
        default:
            return usage();
        }
    }
    if (argc - optind < 2 || w.seconds == 0 || w.n_clients == 0 || w.n_clients > CLIENTS_MAX ||
        w.n_owners == 0 || w.n_owners > OWNERS_MAX || w.document < 64)
        return usage();
    w.gistd = argv[optind];
    w.model = argv[optind + 1];
    w.options = (const char *const *)argv + optind + 2;
    w.board =
        mmap(NULL, sizeof(*w.board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (w.board == MAP_FAILED || !start_daemon(&w)) {
        (void)fprintf(stderr, "crowd: the daemon does not start\n");
        stop_daemon(&w);
        return 1;
    }
    alone(&w);
    beside(&w);
    shares(&w);
    crowd(&w);
    stop_daemon(&w);
    report(&w);
    return w.failed;
}
