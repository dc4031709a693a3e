/* bench/soak_store.c - a store under eviction for as long as one likes, every byte of it checked.
 *
 *     soak_store [--seconds N] [--mib N] [--kill S] [--speed] FOLDER
 *
 *     --seconds N   how long (60)
 *     --mib N       what the store may take (200)
 *     --kill S      the process that works is killed with -9 every S seconds (0: never)
 *     --speed       how fast 10,000 records are found at the start, and a search among them
 *
 * Trees of records with common beginnings are put, found, read, verified, cancelled, pruned; names
 * are replaced; the store is closed and opened. What pages must hold follows from their ids
 * (tests/support/store_rig.h). Every 10 seconds a line; exit 1 at the first wrong byte, record that
 * does not verify, byte over the limit, or sentence that something is degraded.
 */
#include "base/clock.h"
#include "tests/support/store_rig.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEM_MIB   5u /* a text that records begin with for so many MiB: twice their room */
#define BRANCHES   6u
#define DEPTH      6u
#define TOGETHER   8u /* puts under way */
#define SAY_EVERY  (10 * CLOCK_S)
#define SPEED_N    10000u
#define OWNERS     3u
#define NAMES      20u
#define NAME_KIND  1u
#define AGAIN_MOST 400u /* steps from one opening of the store to the next */

struct soak {
    struct store_rig rig;
    uint32_t n_stems;
    uint64_t random, until_ns, said_ns;
    uint64_t n_puts, n_gets, n_tokens, n_opened, n_verified, evicted;
};

static uint32_t any(struct soak *s, uint32_t n)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return (uint32_t)(s->random >> 33) % n;
}

static void stop(const struct soak *s, const char *what, int result)
{
    (void)fprintf(stderr, "soak_store: %s (%d) after %" PRIu64 " puts and %" PRIu64 " gets: %s\n",
                  what, result, s->n_puts, s->n_gets, rig_stats(&s->rig).degraded);
    _exit(1);
}

/* One place in the trees: the same numbers are the same record. */
static struct rig_record at(struct soak *s, uint32_t owner, uint32_t stem, uint32_t branch,
                            uint32_t depth)
{
    struct rig_record r = { .owner = 1000 + owner, .stem = stem + 1, .same = 200, .n = 512 };

    r.before = STORE_ROOT;
    for (uint32_t d = 0; d <= depth; d++) {
        if (d > 0) {
            r.before = rig_hash(&s->rig, &r);
            r.same = d == 1 ? 64 : 0;
        }
        r.seed = 1000 + stem * 1000 + branch * 10 + d;
    }
    r.kind = branch % 5 == 0 && depth > 0 ? STORE_PACKED : STORE_RAW;
    r.cost_ns = UINT64_C(100000000) * (1 + branch);
    return r;
}

static struct rig_record anywhere(struct soak *s)
{
    uint32_t owner = any(s, OWNERS), stem = any(s, s->n_stems) * any(s, s->n_stems) / s->n_stems;

    return at(s, owner, stem, any(s, BRANCHES), any(s, DEPTH));
}

static void put_some(struct soak *s)
{
    uint32_t called = s->rig.n_called, n = 1 + any(s, TOGETHER), begun = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct rig_record r = anywhere(s);
        int err;

        if (any(s, 4) == 0) {
            r.n = 1 + any(s, 511);
            r.tail = true;
        }
        err = rig_put_later(&s->rig, &r);
        if (err < 0 && err != -EEXIST)
            stop(s, "a put was refused", err);
        begun += err == 0;
    }
    rig_wait(&s->rig, called + begun);
    if (begun > 0 && s->rig.result < 0)
        stop(s, "a put failed", s->rig.result);
    s->n_puts += begun;
}

static void get_one(struct soak *s)
{
    struct rig_record r = anywhere(s);
    int got = rig_get(&s->rig, &r);

    if (got < 0)
        stop(s, got == -EINVAL ? "wrong bytes" : "a get failed", got);
    s->n_gets += got > 0;
    s->n_tokens += (uint64_t)got;
}

static void on_result(void *arg, int result)
{
    struct store_rig *r = arg;

    r->n_called++;
    r->result = result;
}

static void verify_one(struct soak *s)
{
    struct store_item it = { .id = any(s, (uint32_t)rig_stats(&s->rig).records + 1) };
    uint32_t called = s->rig.n_called;

    if (!store_next(s->rig.store, 1000 + any(s, OWNERS), &it) ||
        store_verify(s->rig.store, it.id, on_result, &s->rig) < 0)
        return;
    rig_wait(&s->rig, called + 1);
    if (s->rig.result < 0)
        stop(s, "a record does not verify", s->rig.result);
    s->n_verified++;
}

static void name_one(struct soak *s)
{
    uint32_t which = any(s, NAMES), called = s->rig.n_called;
    char name[32], text[64];
    void *bytes = NULL;
    size_t len;
    int err;

    (void)snprintf(name, sizeof(name), "name %u", which);
    err = store_name_get(s->rig.store, 1000, NAME_KIND, name, &bytes, &len);
    if (err == 0 && (len < strlen(name) || memcmp(bytes, name, strlen(name)) != 0))
        stop(s, "a name with another's bytes", 0);
    if (err < 0 && err != -ENOENT)
        stop(s, "a name can't be read", err);
    free(bytes);
    (void)snprintf(text, sizeof(text), "%s, %u", name, any(s, 1u << 20));
    if (store_name_put(s->rig.store, 1000, NAME_KIND, name, text, strlen(text), on_result,
                       &s->rig) == 0)
        rig_wait(&s->rig, called + 1);
}

static void prune_some(struct soak *s)
{
    uint64_t records, bytes;

    if (any(s, 10) == 0)
        store_forget(s->rig.store, 1000 + any(s, OWNERS), &records, &bytes);
    else
        store_prune(s->rig.store, 1000 + any(s, OWNERS), rig_stats(&s->rig).bytes / 2, &records,
                    &bytes);
}

static uint64_t resident_kib(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long total = 0, resident = 0;

    if (f && fscanf(f, "%lu %lu", &total, &resident) != 2)
        resident = 0;
    if (f)
        (void)fclose(f);
    return (uint64_t)resident * 4;
}

static void look(struct soak *s)
{
    struct store_stats st = rig_stats(&s->rig);
    uint64_t now = clock_ns();

    if (st.degraded[0])
        stop(s, "degraded", 0);
    if (st.refused > 0)
        stop(s, "a record was refused", (int)st.refused);
    if (st.bytes > st.limit)
        stop(s, "over the limit", 0);
    if (now < s->said_ns + SAY_EVERY)
        return;
    s->said_ns = now;
    printf("%" PRIu64 " puts, %" PRIu64 " gets of %" PRIu64 " tokens, %" PRIu64
           " verified, opened %" PRIu64 " times; %" PRIu64 " records, %" PRIu64 " MiB, %" PRIu64
           " evicted; resident %" PRIu64 " KiB\n",
           s->n_puts, s->n_gets, s->n_tokens, s->n_verified, s->n_opened, st.records,
           st.bytes >> 20, s->evicted + st.evicted, resident_kib());
    (void)fflush(stdout);
}

static void run(struct soak *s)
{
    while (clock_ns() < s->until_ns) {
        if (store_rig_open(&s->rig) < 0) {
            (void)fprintf(stderr, "soak_store: %s\n", s->rig.why.text);
            _exit(1);
        }
        s->n_opened++;
        for (uint32_t n = any(s, AGAIN_MOST); n > 0 && clock_ns() < s->until_ns; n--) {
            switch (any(s, 8)) {
            case 0:
            case 1:
            case 2:
                put_some(s);
                break;
            case 3:
                verify_one(s);
                break;
            case 4:
                name_one(s);
                break;
            case 5:
                if (any(s, 50) == 0)
                    prune_some(s);
                break;
            default:
                get_one(s);
            }
            look(s);
        }
        s->evicted += rig_stats(&s->rig).evicted;
        store_rig_close(&s->rig);
    }
}

/* --- killed, and begun anew ------------------------------------------------------------------- */

static int run_and_kill(struct soak *s, uint64_t kill_s)
{
    while (clock_ns() < s->until_ns) {
        pid_t child = fork();
        int status;

        s->random += UINT64_C(0x9e3779b97f4a7c15);
        if (child == 0) {
            run(s);
            _exit(0);
        }
        if (child < 0)
            return 1;
        for (uint64_t until = clock_ns() + kill_s * CLOCK_S; clock_ns() < until;)
            (void)usleep(10000);
        (void)kill(child, SIGKILL);
        if (waitpid(child, &status, 0) != child || (WIFEXITED(status) && WEXITSTATUS(status) != 0))
            return 1;
    }
    return 0;
}

/* --- speed ------------------------------------------------------------------------------------ */

static int measure(struct soak *s)
{
    struct rig_record r = { .n = 256, .seed = 1 };
    uint64_t since, found = 0;

    s->rig.limits.bytes = UINT64_MAX / 2;
    if (store_rig_open(&s->rig) < 0)
        return 1;
    for (uint32_t i = 0; i < SPEED_N; i++) {
        r.seed = i + 1;
        while (rig_put_later(&s->rig, &r) == -EAGAIN)
            (void)store_pump(s->rig.store);
    }
    (void)store_flush(s->rig.store, 600 * CLOCK_S);
    for (int round = 0; round < 3; round++) {
        store_rig_close(&s->rig);
        since = clock_ns();
        if (store_rig_open(&s->rig) < 0)
            return 1;
        printf("opened with %" PRIu64 " records in %.1f ms\n", rig_stats(&s->rig).records,
               (double)(clock_ns() - since) / 1e6);
    }
    since = clock_ns();
    for (uint32_t i = 0; i < SPEED_N; i++) {
        r.seed = i + 1;
        found += rig_has(&s->rig, &r);
    }
    printf("%" PRIu64 " found, %.2f us each\n", found,
           (double)(clock_ns() - since) / 1e3 / SPEED_N);
    store_rig_close(&s->rig);
    return found == SPEED_N ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "seconds", required_argument, NULL, 's' },
                                             { "mib", required_argument, NULL, 'm' },
                                             { "kill", required_argument, NULL, 'k' },
                                             { "speed", no_argument, NULL, 'p' },
                                             { 0 } };
    uint64_t seconds = 60, mib = 200, kill_s = 0;
    struct soak s = { .random = UINT64_C(88172645463325252) ^ clock_ns() };
    bool speed = false;

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 's')
            seconds = strtoull(optarg, NULL, 10);
        else if (c == 'm')
            mib = strtoull(optarg, NULL, 10);
        else if (c == 'k')
            kill_s = strtoull(optarg, NULL, 10);
        else if (c == 'p')
            speed = true;
        else
            return 2;
    }
    if (optind + 1 != argc || strlen(argv[optind]) >= SCRATCH_PATH_MAX) {
        (void)fprintf(stderr, "usage: soak_store [--seconds N] [--mib N] [--kill S] [--speed] "
                              "FOLDER\n");
        return 2;
    }
    s.rig.limits.bytes = mib << 20;
    s.n_stems = (uint32_t)(mib / STEM_MIB) + 1;
    (void)strcpy(s.rig.path, argv[optind]);
    s.until_ns = clock_ns() + seconds * CLOCK_S;
    if (speed)
        return measure(&s);
    if (kill_s > 0)
        return run_and_kill(&s, kill_s);
    run(&s);
    return 0;
}
