/* tests/test_together.c - waiting for several devices (cuda/together.h), over devices, steps and
 * sums of the test's. Would catch: a step, or a trial of sums, that waits for ever, because a
 * device failed or because what it waits for never arrives; a device that is waited for before the
 * sums are aborted; a sum that is queued before all devices have what it adds up; sums that are
 * closed, and not aborted, when a device is lost.
 */
#include "cuda/step_inner.h"
#include "cuda/together.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define N       2u
#define N_LAYER 5u
#define N_EMBD  8u
#define ROWS    4u

const char rt_name[] = "test";

static struct {
    bool fails, hangs; /* the second device, or the sums of both */
    unsigned n_sums, n_aborted, n_closed, n_waited;
    unsigned n_queued[N];
    time_t now;
    float y[N][ROWS * N_EMBD];
} at;

struct rt {
    int none;
};
struct sums {
    float *y[N];
};
static struct rt rts[N];
static struct rt_event *const events[N] = { (struct rt_event *)&rts[0],
                                            (struct rt_event *)&rts[1] };

/* --- what the devices do ---------------------------------------------------------------------- */

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
    (void)clock;
    *ret = (struct timespec){ .tv_sec = ++at.now };
    return 0;
}

/* A device that waits in a sum for one that failed says that it is not there yet, for ever. */
static bool is_stuck(void)
{
    return at.n_sums > 0 && (at.fails || at.hangs) && at.n_aborted == 0;
}

int rt_event_done(struct rt *r, struct rt_event *e)
{
    assert_ptr_equal(e, events[r - rts]);
    if (!is_stuck())
        return 0;
    return at.fails && r == &rts[1] ? -EIO : -EAGAIN;
}

int rt_wait(struct rt *r, enum rt_stream s)
{
    (void)r;
    (void)s;
    assert_false(is_stuck());
    at.n_waited++;
    return 0;
}

int rt_use(const struct rt *r)
{
    (void)r;
    return 0;
}

int rt_record(struct rt *r, enum rt_stream s, struct rt_event *e)
{
    (void)s;
    assert_ptr_equal(e, events[r - rts]);
    return 0;
}

void *rt_stream(struct rt *r, enum rt_stream s)
{
    (void)s;
    return r;
}

int part_join(struct part *p)
{
    (void)p;
    return 0;
}

int part_put(struct part *p, void *to, const void *host, size_t n, uint64_t *ret_ticket)
{
    (void)p;
    assert_null(ret_ticket);
    memcpy(to, host, n);
    return 0;
}

/* As cuda/stage.h has it: it waits. */
int part_get(struct part *p, void *host, const void *from, size_t n, uint64_t *ret_ticket)
{
    (void)p;
    assert_null(ret_ticket);
    assert_false(is_stuck());
    memcpy(host, from, n);
    return 0;
}

/* --- sums and steps --------------------------------------------------------------------------- */

static struct sums the_sums;

size_t sums_need(uint32_t n, size_t most)
{
    return n * most;
}

int sums_open(const int *devices, void *const *streams, uint32_t n, size_t most, struct sums **ret,
              struct why *why)
{
    (void)devices;
    (void)why;
    assert_int_equal(n, N);
    assert_int_equal(most, ROWS * N_EMBD);
    assert_ptr_equal(streams[1], &rts[1]);
    *ret = &the_sums;
    return 0;
}

void sums_close(struct sums *s)
{
    assert_ptr_equal(s, &the_sums);
    assert_false(at.fails && at.n_aborted == 0);
    at.n_closed++;
}

void sums_abort(struct sums *s)
{
    assert_ptr_equal(s, &the_sums);
    at.n_aborted++;
}

int sums_run(struct sums *s, float *const *y, size_t n_values)
{
    (void)s;
    at.n_sums++;
    assert_int_equal(at.n_queued[0], at.n_queued[1]);
    for (size_t i = 0; i < n_values; i++)
        y[0][i] = y[1][i] = y[0][i] + y[1][i];
    return 0;
}

struct step_residual step_residual(const struct step *s)
{
    return (struct step_residual){ .y = at.y[s->rt - rts] };
}

/* Half a layer more on this device. */
static int queue(const struct step *s)
{
    at.n_queued[s->rt - rts]++;
    return 0;
}

int step_start(struct step *s, const struct plan *plan)
{
    s->plan = plan;
    s->n_out = 0;
    return 0;
}

int step_embed(const struct step *s)
{
    (void)s;
    return 0;
}

int step_attention(struct step *s, uint32_t i, uint32_t *ret_left)
{
    (void)i;
    *ret_left = s->plan->n_rows;
    return queue(s);
}

int step_ffn(struct step *s, uint32_t i, uint32_t n_rows)
{
    (void)i;
    assert_int_equal(n_rows, s->plan->n_rows);
    return queue(s);
}

int step_last_norm(const struct step *s)
{
    return at.n_queued[s->rt - rts] == 2 * N_LAYER ? 0 : -EIO;
}

/* --- tests ------------------------------------------------------------------------------------ */

static struct step steps[N];
static struct part parts[N];

static int open_both(struct together **ret, struct why *why)
{
    for (uint32_t i = 0; i < N; i++) {
        steps[i].rt = &rts[i];
        for (unsigned k = 0; k < STEP_AHEAD; k++)
            steps[i].done[k] = events[i];
        parts[i] = (struct part){ .number = i, .rt = &rts[i], .step = &steps[i] };
        parts[i].model.n_embd = N_EMBD;
        parts[i].model.n_layer = N_LAYER;
    }
    return together_open(parts, N, ROWS, ret, why);
}

/* With nothing that fails so far. */
static struct together *opened(void)
{
    struct why why = { "" };
    struct together *ret;

    memset(&at, 0, sizeof(at));
    assert_int_equal(open_both(&ret, &why), 0);
    return ret;
}

static void opened_and_closed(void **state)
{
    struct together *t = opened();

    (void)state;
    assert_int_equal(at.n_sums, 2);
    together_close(t, false);
    assert_int_equal(at.n_closed, 1);
    assert_int_equal(at.n_aborted, 0);
    together_close(NULL, true);
}

static void lost_behind_a_step(void **state)
{
    struct together *t = opened();

    (void)state;
    at.fails = true;
    together_close(t, true);
    assert_int_equal(at.n_closed, 1);
}

static void a_device_that_fails_in_the_trial(void **state)
{
    struct why why = { "" };
    struct together *t;

    (void)state;
    memset(&at, 0, sizeof(at));
    at.fails = true;
    assert_int_equal(open_both(&t, &why), -EIO);
    assert_true(at.n_aborted > 0);
    assert_int_equal(at.n_waited, N);
    assert_int_equal(at.n_closed, 1);
}

static void a_trial_that_does_not_end(void **state)
{
    struct why why = { "" };
    struct together *t;

    (void)state;
    memset(&at, 0, sizeof(at));
    at.hangs = true;
    assert_int_equal(open_both(&t, &why), -ENODEV);
    assert_non_null(strstr(why.text, "test:0"));
    assert_non_null(strstr(why.text, "NCCL_P2P_DISABLE=1"));
    assert_true(at.n_aborted > 0);
    assert_int_equal(at.n_sums, 1);
    assert_int_equal(at.n_closed, 1);
}

static const struct plan the_plan = { .n_rows = 2, .n_out = 1 };

static bool at_once(void *arg)
{
    (void)arg;
    return true;
}

static void a_step(void **state)
{
    struct together *t = opened();

    (void)state;
    at.n_sums = 0;
    assert_int_equal(together_step(t, &the_plan, NULL), 0);
    assert_int_equal(at.n_sums, 2 * N_LAYER);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(steps[i].n_out, 1);
    together_close(t, false);
    assert_int_equal(at.n_aborted, 0);
}

static void a_step_that_is_given_up(void **state)
{
    const struct forward_stop stop = { at_once, NULL };
    struct together *t = opened();

    (void)state;
    assert_int_equal(together_step(t, &the_plan, &stop), -ECANCELED);
    assert_int_equal(at.n_aborted, 0);
    assert_int_equal(steps[0].n_out, 0);
    memset(at.n_queued, 0, sizeof(at.n_queued));
    assert_int_equal(together_step(t, &the_plan, NULL), 0);
    together_close(t, false);
}

static void a_device_that_fails_in_a_step(void **state)
{
    struct together *t = opened();

    (void)state;
    at.fails = true;
    assert_int_equal(together_step(t, &the_plan, NULL), -EIO);
    assert_int_equal(at.n_aborted, 1);
    assert_int_equal(at.n_waited, N);
    assert_int_equal(steps[1].n_out, 0);
    together_close(t, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opened_and_closed),
        cmocka_unit_test(lost_behind_a_step),
        cmocka_unit_test(a_device_that_fails_in_the_trial),
        cmocka_unit_test(a_trial_that_does_not_end),
        cmocka_unit_test(a_step),
        cmocka_unit_test(a_step_that_is_given_up),
        cmocka_unit_test(a_device_that_fails_in_a_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
