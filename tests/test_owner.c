/* tests/test_owner.c - what a user has, over all clients. Would catch: pages of a user that count
 * twice where sessions share them or stay counted when they are given back; one user who takes what
 * is kept for others, by taking, sharing or copying pages; limits that options don't say; owners
 * that are never forgotten, or while something is charged to them, and units the same; clients of
 * one unit that are two; a time away that is saved up; pages that come free and go to
 * who asks most often.
 */
#include "daemon/client.h"
#include "engine/kv/pool.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>

#include <cmocka.h>

#define PAGES   32u
#define RESERVE 4u

static const struct model tiny = { .n_layer = 1, .n_head = 1, .n_head_kv = 1, .head_dim = 16 };

/* --- pages ------------------------------------------------------------------------------------ */

/* Two users, with two sessions the first, and a tree that keeps pages. */
struct users {
    struct pool pool;
    struct pool_owner a, b;
    struct pool_account a1, a2, b1, tree;
    struct pool_reclaimer reclaimer;
    uint32_t kept[PAGES], n_kept;
};

static void give_kept(void *arg, uint32_t n)
{
    struct users *u = arg;

    while (u->n_kept > 0 && u->pool.n_free < n)
        pool_give(&u->pool, &u->tree, 1, &u->kept[--u->n_kept]);
}

static void open_users(struct users *u)
{
    *u = (struct users){ .a.limit = UINT32_MAX, .b.limit = UINT32_MAX };
    assert_int_equal(
        pool_open(&u->pool, NULL, &tiny, KV_F16, PAGES * pool_page_bytes(&tiny, KV_F16), NULL), 0);
    u->pool.reserve = RESERVE;
    u->a1 = u->a2 = (struct pool_account){ .limit = UINT32_MAX, .owner = &u->a };
    u->b1 = (struct pool_account){ .limit = UINT32_MAX, .owner = &u->b };
    u->tree = (struct pool_account){ .limit = UINT32_MAX };
    u->reclaimer = (struct pool_reclaimer){ .fn = give_kept, .arg = u, .account = &u->tree };
    pool_add_reclaimer(&u->pool, &u->reclaimer);
}

static void keep(struct users *u, uint32_t n, const uint32_t *pages)
{
    assert_int_equal(pool_share(&u->pool, &u->tree, n, pages), 0);
    for (uint32_t i = 0; i < n; i++)
        u->kept[u->n_kept++] = pages[i];
}

static void shared_pages_count_once(void **state)
{
    struct pool_account disk = { .limit = UINT32_MAX };
    struct users u;
    uint32_t pages[8];

    (void)state;
    open_users(&u);
    u.a.limit = 8;
    assert_int_equal(pool_take(&u.pool, &u.a1, 6, pages), 0);
    assert_int_equal(pool_share(&u.pool, &u.a2, 6, pages), 0);
    assert_int_equal(u.a.used, 6);
    assert_int_equal(u.a1.used + u.a2.used, 12);
    pool_give(&u.pool, &u.a1, 6, pages); /* the other session has them still */
    assert_int_equal(u.a.used, 6);
    assert_int_equal(pool_room(&u.pool, &u.a1, 0), 2);
    assert_int_equal(pool_take(&u.pool, &u.a1, 3, pages + 6), -ENOSPC);
    /* Kept by the tree alone they are nobody's, and whoever takes them over has them. */
    keep(&u, 6, pages);
    pool_give(&u.pool, &u.a2, 6, pages);
    assert_int_equal(u.a.used, 0);
    assert_int_equal(u.pool.n_cached, 6);
    assert_int_equal(pool_share(&u.pool, &u.b1, 2, pages), 0);
    assert_int_equal(u.b.used, 2);
    /* Another user's of a public text costs who was first. */
    assert_int_equal(pool_share(&u.pool, &u.a1, 3, pages), 0);
    assert_int_equal(u.a.used, 1);
    pool_give(&u.pool, &u.b1, 2, pages);
    assert_int_equal(u.b.used, 2);
    pool_give(&u.pool, &u.a1, 3, pages);
    assert_int_equal(u.a.used + u.b.used, 0);
    /* What somebody without an owner holds, the disk, will be there to be had. */
    assert_int_equal(pool_share(&u.pool, &disk, 4, pages), 0);
    u.pool.reserve = PAGES;
    u.a.limit = PAGES;
    u.a.used = PAGES / 2;
    assert_int_equal(pool_room(&u.pool, &u.a1, 0), PAGES / 2);
    u.pool.reserve = u.pool.n_free + u.pool.n_cached;
    u.a.used = PAGES - 4;
    assert_int_equal(pool_room(&u.pool, &u.a1, 0), 0);
    assert_int_equal(pool_room(&u.pool, &u.a1, 3), 3);
    u.a.used = 0;
    pool_give(&u.pool, &disk, 4, pages);
    give_kept(&u, PAGES);
    pool_close(&u.pool);
}

/* One takes all that it can get, in every way; the other still has its own. */
static void the_last_are_kept(void **state)
{
    struct users u;
    uint32_t pages[PAGES], copied, b_pages[RESERVE];

    (void)state;
    open_users(&u);
    u.a.limit = u.b.limit = PAGES - RESERVE;
    assert_int_equal(pool_room(&u.pool, &u.a1, 0), PAGES - RESERVE);
    assert_int_equal(pool_take(&u.pool, &u.a1, PAGES - RESERVE + 1, pages), -ENOSPC);
    assert_int_equal(pool_take(&u.pool, &u.a1, PAGES - RESERVE, pages), 0);
    assert_int_equal(pool_take(&u.pool, &u.a2, 1, pages), -ENOSPC);
    /* A fork writes to a page that it shares. */
    assert_int_equal(pool_share(&u.pool, &u.a2, 1, pages), 0);
    copied = pages[0];
    assert_int_equal(pool_own(&u.pool, &u.a2, &copied), -ENOSPC);
    /* But where only the tree has it, too, the page itself can be had for the copy. */
    pool_give(&u.pool, &u.a2, 1, pages);
    keep(&u, 1, pages);
    copied = pages[0];
    assert_int_equal(pool_own(&u.pool, &u.a1, &copied), 0);
    assert_int_equal(u.a.used, PAGES - RESERVE);
    assert_int_equal(u.pool.n_free + u.pool.n_cached, RESERVE);
    give_kept(&u, PAGES);
    pages[0] = copied;
    assert_int_equal(pool_share(&u.pool, &u.a2, 1, pages), 0);
    assert_int_equal(pool_take(&u.pool, &u.b1, RESERVE, b_pages), 0);
    assert_int_equal(u.pool.n_free, 0);
    pool_give(&u.pool, &u.b1, RESERVE, b_pages);
    /* Pages that are kept come to be held again by sharing. */
    pool_give(&u.pool, &u.a2, 1, pages);
    keep(&u, PAGES - RESERVE, pages);
    pool_give(&u.pool, &u.a1, PAGES - RESERVE, pages);
    assert_int_equal(pool_take(&u.pool, &u.a1, RESERVE, b_pages), 0);
    assert_int_equal(u.pool.n_cached, PAGES - RESERVE);
    assert_int_equal(pool_share(&u.pool, &u.a2, PAGES - RESERVE, pages), -ENOSPC);
    assert_int_equal(pool_room_shared(&u.a2), PAGES - 2 * RESERVE);
    assert_int_equal(pool_share(&u.pool, &u.a2, PAGES - 2 * RESERVE, pages), 0);
    assert_int_equal(pool_share(&u.pool, &u.b1, RESERVE, pages + PAGES - 2 * RESERVE), 0);
    pool_give(&u.pool, &u.a1, RESERVE, b_pages);
    pool_give(&u.pool, &u.a2, PAGES - 2 * RESERVE, pages);
    pool_give(&u.pool, &u.b1, RESERVE, pages + PAGES - 2 * RESERVE);
    assert_int_equal(u.a.used + u.b.used, 0);
    give_kept(&u, PAGES);
    assert_int_equal(u.pool.n_free, PAGES);
    pool_close(&u.pool);
}

/* Tables of the two users and the tree, and what each has. */
struct table {
    struct pool_account *account;
    uint32_t pages[PAGES], n;
};

static uint32_t available(const struct users *u)
{
    return u->pool.n_free + u->pool.n_cached;
}

/* Whether `owner` may be charged n_new pages of which n_had could be had by anybody until now. */
static bool may_have(const struct users *u, const struct pool_owner *owner, uint32_t n_new,
                     uint32_t n_had)
{
    if (n_new > owner->limit - owner->used)
        return false;
    return n_had == 0 || owner->used + n_new <= RESERVE || available(u) >= n_had + RESERVE;
}

/* Pages of the tree, one behind the other, as a session takes over a beginning. */
static void take_over(struct users *u, struct table *t, unsigned *seed)
{
    uint32_t n = u->n_kept ? 1 + (uint32_t)rand_r(seed) % u->n_kept : 0, n_new = 0, n_had = 0;
    uint32_t room = PAGES - t->n;
    const struct pool *p = &u->pool;
    struct pool_cost cost = { .n = 0 };
    bool may;

    n = n < room ? n : room;
    for (uint32_t i = 0; i < n; i++) {
        n_new += !p->by[u->kept[i]];
        n_had += p->refs[u->kept[i]] == p->kept[u->kept[i]];
        pool_cost_add(p, &cost, 1, &u->kept[i]);
    }
    may = may_have(u, t->account->owner, n_new, n_had);
    assert_int_equal(pool_may_share(p, t->account, &cost), may);
    if (!may) {
        assert_int_equal(pool_share(&u->pool, t->account, n, u->kept), -ENOSPC);
        return;
    }
    for (uint32_t i = 0; i < n; i++) { /* what was found to fit does, in parts too */
        assert_int_equal(pool_share(&u->pool, t->account, 1, &u->kept[i]), 0);
        t->pages[t->n++] = u->kept[i];
    }
}

static void take_new(struct users *u, struct table *t, unsigned *seed)
{
    uint32_t n = (uint32_t)rand_r(seed) % 10, room = PAGES - t->n;
    bool may;

    n = n < room ? n : room;
    may = may_have(u, t->account->owner, n, n) && n <= available(u);

    assert_int_equal(pool_take(&u->pool, t->account, n, t->pages + t->n), may ? 0 : -ENOSPC);
    t->n += may ? n : 0;
}

static void give_some(struct users *u, struct table *t, unsigned *seed)
{
    uint32_t n = (uint32_t)rand_r(seed) % 6;

    n = n < t->n ? n : t->n;
    t->n -= n;
    pool_give(&u->pool, t->account, n, t->pages + t->n);
}

/* The tree learns a page that it does not have. */
static void learn(struct users *u, const struct table *t, unsigned *seed)
{
    uint32_t page = t->n ? t->pages[(uint32_t)rand_r(seed) % t->n] : PAGES;

    if (page < PAGES && u->pool.kept[page] == 0)
        keep(u, 1, &page);
}

/* In whatever order two users take new pages, take over kept ones and give back: none has more than
 * its limit, and the last pages are had by who has few. */
static void no_step_takes_what_is_kept(void **state)
{
    struct users u;
    struct table tables[] = { { .account = &u.a1 }, { .account = &u.a2 }, { .account = &u.b1 } };
    uint32_t n_left = 0, n_last = 0;
    unsigned seed = 20;

    (void)state;
    open_users(&u);
    u.b.limit = RESERVE + 2;
    for (int i = 0; i < 20000; i++) {
        struct table *t = &tables[(size_t)rand_r(&seed) % 3];
        const struct pool_owner *o = t->account->owner;
        uint32_t had = available(&u);

        switch (rand_r(&seed) % 5) {
        case 0:
        case 1:
            take_over(&u, t, &seed);
            break;
        case 2:
            take_new(&u, t, &seed);
            break;
        case 3:
            give_some(&u, t, &seed);
            break;
        default:
            learn(&u, t, &seed);
        }
        assert_true(o->used <= o->limit);
        if (available(&u) < had) {
            assert_true(o->used <= RESERVE || available(&u) >= RESERVE);
            n_left += o->used > RESERVE && available(&u) == RESERVE;
            n_last += available(&u) < RESERVE;
        }
    }
    if (n_left < 10 || n_last < 10) /* both were reached */
        fail_msg("%u and %u", n_left, n_last);
    for (int i = 0; i < 3; i++)
        pool_give(&u.pool, tables[i].account, tables[i].n, tables[i].pages);
    assert_int_equal(u.a.used + u.b.used, 0);
    give_kept(&u, PAGES);
    assert_int_equal(u.pool.n_free, PAGES);
    pool_close(&u.pool);
}

/* What somebody without an owner made is charged to who takes it over. */
static void made_aside(void **state)
{
    struct pool_account aside = { .limit = UINT32_MAX };
    struct users u;
    uint32_t pages[4];

    (void)state;
    open_users(&u);
    assert_int_equal(pool_take(&u.pool, &aside, 4, pages), 0);
    assert_int_equal(pool_share(&u.pool, &u.a1, 4, pages), 0);
    assert_int_equal(u.a.used, 4);
    pool_give(&u.pool, &aside, 4, pages);
    assert_int_equal(u.a.used, 4);
    pool_give(&u.pool, &u.a1, 4, pages);
    assert_int_equal(u.a.used, 0);
    pool_close(&u.pool);
}

/* --- limits ----------------------------------------------------------------------------------- */

static void limits_of_options(void **state)
{
    struct config c;
    struct owner_limits l;

    (void)state;
    config_defaults(&c);
    l = owner_limits(&c, false, 4096, 1000); /* nobody else can come */
    assert_int_equal(l.clients, c.max_clients);
    assert_int_equal(l.pages, 1000);
    assert_int_equal(l.reserve, 0);
    assert_int_equal(l.held, c.text_bytes);
    l = owner_limits(&c, true, 4096, 1000);
    assert_int_equal(l.pages, 1000 - 1000 / 16);
    assert_int_equal(l.clients, c.max_clients - c.max_clients / 4);
    assert_int_equal(l.reserve, 1000 / 16);
    assert_int_equal(l.held, c.text_bytes - c.text_bytes / 4);
    assert_int_equal(l.held_all, c.text_bytes);
    for (uint32_t n = 2; n < 6; n++) {
        c.max_clients = n;
        assert_true(owner_limits(&c, true, 0, 0).clients < n);
    }
    c.max_clients = 1;
    assert_int_equal(owner_limits(&c, true, 0, 0).clients, 1);
    c.client_kv_bytes = 10 * 4096;
    assert_int_equal(owner_limits(&c, false, 4096, 1000).pages, 10);
    c.owner_kv_bytes = 20 * 4096;
    c.owner_clients = 7;
    c.owner_text_bytes = 99;
    l = owner_limits(&c, true, 4096, 1000);
    assert_int_equal(l.pages, 20);
    assert_int_equal(l.clients, 7);
    assert_int_equal(l.held, 99);
}

/* An owner is there as long as somebody refers to it, or something is charged to it. */
static void come_and_go(void **state)
{
    const struct owner_limits limits = { .pages = 5, .held = 6, .held_all = 7 };
    struct owners all;
    struct owner *o, *other;

    (void)state;
    owners_init(&all, &limits);
    o = owner_ref(&all, 1000);
    assert_non_null(o);
    assert_ptr_equal(owner_ref(&all, 1000), o);
    other = owner_ref(&all, 0);
    assert_ptr_not_equal(other, o);
    assert_int_equal(o->pages.limit, 5);
    assert_int_equal(o->held.limit, 6);
    assert_int_equal(owners_count(&all), 2);
    owner_unref(&all, o);
    assert_int_equal(owners_count(&all), 2);
    o->pages.used = 1; /* that the disk still has */
    owner_unref(&all, o);
    assert_int_equal(owners_count(&all), 2);
    assert_ptr_equal(owner_ref(&all, 1000), o);
    owner_unref(&all, o);
    o->pages.used = 0;
    owner_unref(&all, other);
    assert_int_equal(owners_count(&all), 0);
    owners_fini(&all);
}

/* Kept is an even part at most, for those before one in the line, and not for ever. */
static void first_refused_first_served(void **state)
{
    const struct owner_limits limits = { .pages = 100, .pool = 90 };
    struct owner *a, *b, *c;
    struct owners all;

    (void)state;
    owners_init(&all, &limits);
    a = owner_ref(&all, 1);
    b = owner_ref(&all, 2);
    c = owner_ref(&all, 3);
    assert_int_equal(owners_ahead(&all, a, 1000), 0);
    owner_refused(b, 20, 1000);
    owner_refused(c, 70, 2000);
    assert_int_equal(owners_ahead(&all, a, 3000), 20 + 30);
    assert_int_equal(owners_ahead(&all, b, 3000), 0);
    assert_int_equal(owners_ahead(&all, c, 3000), 20);
    c->pages.used = 25; /* it has most of its part */
    assert_int_equal(owners_ahead(&all, a, 3000), 20 + 5);
    c->pages.used = 40;
    assert_int_equal(owners_ahead(&all, a, 3000), 20);
    c->pages.used = 0;
    owner_refused(a, 1, 4000);
    assert_int_equal(owners_ahead(&all, a, 4000), 20 + 30);
    owner_refused(b, 10, 5000); /* keeps its place */
    assert_int_equal(owners_ahead(&all, c, 5000), 10);
    owner_served(b);
    assert_int_equal(owners_ahead(&all, c, 5000), 0);
    assert_int_equal(owners_ahead(&all, a, 5000), 30);
    owner_refused(b, 10, 6000); /* is the last now */
    assert_int_equal(owners_ahead(&all, b, 6000), 30 + 1);
    assert_int_equal(owners_ahead(&all, b, 2000 + OWNER_LINE_NS), 1);
    assert_int_equal(owners_ahead(&all, b, 4000 + OWNER_LINE_NS), 0);
    owner_unref(&all, a);
    owner_unref(&all, b);
    owner_unref(&all, c);
    owners_fini(&all);
}

/* A unit is there as long as a client is of it; without a name they are of one, too. */
static void units_come_and_go(void **state)
{
    const struct owner_limits limits = { .pages = 5 };
    struct client a = { .dead = false }, b = a, c = a, d = a;
    struct owners all;
    struct owner *o;

    (void)state;
    owners_init(&all, &limits);
    o = owner_ref(&all, 1000);
    assert_int_equal(unit_join(&o->units, "x.service", &a), 0);
    assert_int_equal(unit_join(&o->units, NULL, &b), 0);
    assert_int_equal(unit_join(&o->units, "x.service", &c), 0);
    assert_int_equal(unit_join(&o->units, "", &d), 0);
    assert_ptr_equal(a.unit, c.unit);
    assert_ptr_equal(b.unit, d.unit);
    assert_ptr_not_equal(a.unit, b.unit);
    assert_string_equal(a.unit->name, "x.service");
    assert_string_equal(b.unit->name, "");
    /* Who was served is behind the others. */
    unit_served(&o->units, &a);
    assert_ptr_equal(TAILQ_FIRST(&o->units)->of, b.unit);
    assert_ptr_equal(TAILQ_FIRST(&a.unit->clients), &c);
    unit_leave(&o->units, &a);
    unit_leave(&o->units, &b);
    assert_string_equal(c.unit->name, "x.service");
    unit_leave(&o->units, &c);
    assert_ptr_equal(TAILQ_FIRST(&o->units)->of, d.unit);
    assert_null(TAILQ_NEXT(TAILQ_FIRST(&o->units), link));
    unit_leave(&o->units, &d);
    assert_true(TAILQ_EMPTY(&o->units));
    owner_unref(&all, o);
    owners_fini(&all);
}

/* Even parts, more for who had less, and none for the time that one was away. */
static void parts(void **state)
{
    struct portion a = { .had = 500 }, b = { .had = 100 }, c = { .had = 0 };
    struct portion_list l = TAILQ_HEAD_INITIALIZER(l);
    uint64_t most;
    uint32_t n;

    (void)state;
    TAILQ_INSERT_TAIL(&l, &a, link);
    TAILQ_INSERT_TAIL(&l, &b, link);
    TAILQ_INSERT_TAIL(&l, &c, link);
    assert_null(portion_next(&l, &n, &most));
    a.wants = b.wants = true;
    portion_turn(&l);
    assert_false(a.wants);
    a.wants = b.wants = c.wants = true;
    portion_turn(&l);
    assert_int_equal(c.had, 100);
    a.n_waiting = c.n_waiting = 1;
    assert_ptr_equal(portion_next(&l, &n, &most), &c);
    assert_int_equal(n, 2);
    assert_int_equal(most, 500);
    assert_int_equal(portion_part(&c, 200, n, most), 150);
    assert_int_equal(portion_part(&a, 200, n, most), 100);
    c.had = 490;
    assert_int_equal(portion_part(&c, 200, n, most), 110);
    /* None is too small to be worth its step. */
    assert_int_equal(portion_even(200, 100), 16);
    assert_int_equal(portion_even(9, 3), 9);
    assert_int_equal(portion_part(&c, 0, n, most), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_pages_count_once),
        cmocka_unit_test(the_last_are_kept),
        cmocka_unit_test(no_step_takes_what_is_kept),
        cmocka_unit_test(made_aside),
        cmocka_unit_test(limits_of_options),
        cmocka_unit_test(come_and_go),
        cmocka_unit_test(first_refused_first_served),
        cmocka_unit_test(units_come_and_go),
        cmocka_unit_test(parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
