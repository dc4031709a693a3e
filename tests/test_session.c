/* tests/test_session.c - what a session holds beside its pages, who pays for it, and with whom it
 * shares. Would catch: logits or marks that are charged to nobody, that stay when they are used, or
 * that a limit does not hold; users whom the kernel can't tell apart that find out by sharing what
 * the others wrote.
 */
#include "daemon/client.h"
#include "daemon/prefix.h"
#include "daemon/session.h"
#include "tests/support/memory_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODEL "tests/data/tiny_smollm2.gguf"
#define L     64u

struct stage {
    struct memory_rig rig;
    struct client client;
    size_t row; /* bytes */
};

static const struct policy policies[] = {
    { .spec = { COMPRESS_FULL, 1, 0, NULL }, .seg_len = L, .budget = 1000 },
    { .spec = { COMPRESS_SELECT, 8, 4, NULL }, .seg_len = L, .budget = 1000 },
};

static void open_stage(struct stage *s)
{
    const struct rig_opts opts = { .model = MODEL,
                                   .cpu = "auto",
                                   .kv = KV_F16,
                                   .threads = 1,
                                   .max_batch = 64,
                                   .max_tokens = 4000 };

    memset(s, 0, sizeof(*s));
    assert_int_equal(memory_rig_open(&s->rig, &opts, NULL), 0);
    s->rig.served.pool = s->rig.rig.pool; /* borrowed */
    s->client.account.limit = UINT32_MAX;
    s->row = s->rig.rig.model->n_vocab * sizeof(float);
    s->client.held.limit = 3 * s->row + s->row / 2;
}

static struct session *open_session(struct stage *s, size_t policy)
{
    struct session *ret;

    assert_int_equal(
        session_new(&s->rig.served, &s->client, 1, SESSION_OF_USER, &policies[policy], &ret), 0);
    return ret;
}

static void close_stage(struct stage *s)
{
    assert_int_equal(s->client.held.used, 0);
    s->rig.rig.pool = s->rig.served.pool;
    memory_rig_close(&s->rig);
}

/* As an append that reads one token, and an answer that begins behind it. */
static int append(struct stage *s, struct session *t)
{
    int r = session_take_row(t, s->rig.rig.model->n_vocab);

    if (r < 0)
        return r;
    t->row_valid = true;
    t->has_pending = false;
    return 0;
}

static void logits_are_the_clients(void **state)
{
    struct stage s;
    struct session *t[4], *fork;

    (void)state;
    open_stage(&s);
    for (int i = 0; i < 4; i++)
        t[i] = open_session(&s, (size_t)i % 2);
    assert_int_equal(s.client.held.used, 0); /* an idle session holds none */
    for (int i = 0; i < 3; i++)
        assert_int_equal(append(&s, t[i]), 0);
    assert_int_equal(s.client.held.used, 3 * s.row);
    assert_int_equal(append(&s, t[3]), -EDQUOT);
    assert_int_equal(session_fork(t[0], 9, &fork), -EDQUOT);
    assert_int_equal(s.client.held.used, 3 * s.row);
    assert_int_equal(append(&s, t[0]), 0); /* has it */
    session_drop_row(t[0]);                /* the answer begins */
    assert_int_equal(s.client.held.used, 2 * s.row);
    assert_int_equal(append(&s, t[3]), 0);
    session_truncate(t[1], 0);
    assert_int_equal(s.client.held.used, 3 * s.row); /* nothing was dropped */
    session_drop_row(t[1]);
    memset(t[2]->row, 7, s.row);
    assert_int_equal(session_fork(t[2], 9, &fork), 0);
    assert_int_equal(s.client.held.used, 3 * s.row);
    assert_true(fork->row_valid);
    assert_memory_equal(fork->row, t[2]->row, s.row);
    session_free(fork);
    for (int i = 0; i < 4; i++)
        session_free(t[i]);
    close_stage(&s);
}

static void marks_are_the_clients(void **state)
{
    struct stage s;
    struct session *t, *fork;
    size_t n;

    (void)state;
    open_stage(&s);
    t = open_session(&s, 0);
    for (unsigned i = 0; i < 10000; i++)
        session_appended(t, CHAT_AT_NEXT);
    n = t->n_marks;
    assert_true(n > 16 && n < 10000); /* those that found room */
    assert_int_equal(s.client.held.used, t->marks_len);
    assert_true(s.client.held.used <= s.client.held.limit);
    assert_true(n * sizeof(struct session_mark) <= t->marks_len);
    s.client.held.limit *= 3;
    assert_int_equal(session_fork(t, 2, &fork), 0);
    assert_int_equal(fork->n_marks, n);
    assert_int_equal(s.client.held.used, t->marks_len + fork->marks_len);
    session_appended(fork, CHAT_AT_NEXT);
    assert_int_equal(fork->n_marks, n + 1);
    session_free(fork);
    session_free(t);
    close_stage(&s);
}

static struct prefix *shared_by(struct stage *s, uid_t uid, enum session_sharing sharing,
                                uint32_t *ret_owner)
{
    struct prefix *prefix;
    struct session *t, *fork;

    s->client.uid = uid;
    assert_int_equal(session_new(&s->rig.served, &s->client, 1, sharing, &policies[0], &t), 0);
    assert_int_equal(session_fork(t, 2, &fork), 0);
    prefix = t->memory.shared.prefix;
    *ret_owner = t->memory.shared.owner;
    assert_ptr_equal(fork->memory.shared.prefix, prefix);
    assert_int_equal(t->memory.shared.keeps_nothing,
                     sharing == SESSION_PRIVATE || (sharing == SESSION_OF_USER && !prefix));
    assert_int_equal(fork->memory.shared.keeps_nothing, t->memory.shared.keeps_nothing);
    session_free(fork);
    session_free(t);
    return prefix;
}

static void a_stand_in_shares_nothing(void **state)
{
    struct stage s;
    struct prefix *p;
    uint32_t owner;

    (void)state;
    open_stage(&s);
    assert_int_equal(prefix_open(&s.rig.served.pool, &p), 0);
    s.rig.served.prefix = p;
    s.rig.served.stand_in = 65534;
    assert_ptr_equal(shared_by(&s, 1000, SESSION_OF_USER, &owner), p);
    assert_int_equal(owner, 1000);
    assert_ptr_equal(shared_by(&s, 1000, SESSION_PRIVATE, &owner), p);
    assert_int_equal(owner, 1000);
    assert_null(shared_by(&s, 65534, SESSION_OF_USER, &owner));
    assert_null(shared_by(&s, 65534, SESSION_PRIVATE, &owner));
    assert_ptr_equal(shared_by(&s, 65534, SESSION_PUBLIC, &owner), p);
    assert_int_equal(owner, PREFIX_PUBLIC);
    prefix_close(p);
    close_stage(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(logits_are_the_clients),
                                        cmocka_unit_test(marks_are_the_clients),
                                        cmocka_unit_test(a_stand_in_shares_nothing) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
