/* daemon/away.c - ids stay in seq->tokens while their pages are elsewhere. While a restore is under
 * way they are in a copy, because the sequence then holds what was found of them and no more. */

#include "daemon/away.h"

#include "daemon/memory.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool away_can(const struct memory *m)
{
    return m->seq->n_pages > 0 && memory_is_ids(m);
}

bool away_is_kept(const struct memory *m)
{
    return memory_lasts(m) && tier_holds(&m->kept);
}

/* What the last prompt was and has missed is asked for again by who goes on: a rewind to nothing
 * has it forgotten. */
void away_go(struct memory *m)
{
    uint32_t n_pages = m->seq->n_pages, missed = m->hydration.missed;
    uint32_t from = m->turn.from, to = m->turn.to;

    if (m->away.state != AWAY_HERE && m->away.n_pages > n_pages) /* it was not all back */
        n_pages = m->away.n_pages;

    assert(away_can(m));
    memory_rest(m);
    memory_reread(m, m->n_ids);
    memory_turn(m, from, to);
    m->hydration.missed = missed;
    m->away = (struct away){ .state = AWAY_GONE, .n_pages = n_pages };
}

/* `more` is what it lacks beyond the pages that it once had: else it would ask for the same again,
 * have that, and go once more. */
void away_again(struct memory *m, uint32_t n)
{
    struct away *a = &m->away;
    uint32_t all = m->seq->n_pages + n, had;

    assert(a->state != AWAY_COMING);
    if (m->seq->n_pages > 0)
        away_go(m);
    else
        memory_rest(m);
    a->state = AWAY_GONE;
    a->more = 0;
    had = away_wants(m);
    a->more = all > had ? all - had : 0;
}

/* It may have been taken back since it went. */
uint32_t away_wants(const struct memory *m)
{
    uint32_t most = seq_n_pages(seq_raw_keys(m->seq, memory_len(m)));
    uint32_t n = (m->away.n_pages < most ? m->away.n_pages : most) + m->away.more;

    return n > m->seq->n_pages ? n - m->seq->n_pages : 0;
}

/* Of all ids, and the memory has none of them now. The one more that nobody has lets the last of
 * them be found, too: a restore leaves one to be read. False: there is nothing to wait for. */
static bool begin(struct memory *m)
{
    struct away *a = &m->away;
    uint32_t missed = m->hydration.missed;

    a->state = AWAY_READING;
    a->n = m->n_ids;
    /* Without a copy nothing is looked for: all of it is read again, as ever. */
    a->ids = malloc(((size_t)a->n + 1) * sizeof(*a->ids));
    if (!a->ids)
        return false;
    memcpy(a->ids, m->seq->tokens, a->n * sizeof(*a->ids));
    a->ids[a->n] = SEQ_FILLER;
    memory_empty(m);
    m->hydration.missed = missed;
    (void)memory_adopt(m, a->ids, a->n + 1);
    a->restore = tier_restore_begin(&m->kept, a->ids, a->n + 1);
    a->state = AWAY_COMING;
    return true;
}

/* All ids are its own again, in pages or not. */
static void end(struct memory *m, enum away_state state)
{
    struct away *a = &m->away;

    memcpy(m->seq->tokens, a->ids, a->n * sizeof(*a->ids));
    m->n_ids = a->n;
    free(a->ids);
    a->ids = NULL;
    a->restore = NULL;
    a->state = state;
}

int away_come(struct memory *m)
{
    struct away *a = &m->away;
    uint32_t shared;

    if (a->state == AWAY_GONE && !begin(m))
        return 0;
    if (a->state != AWAY_COMING)
        return 0;
    if (a->restore && tier_restore_go(a->restore, &shared) == -EAGAIN)
        return -EAGAIN;
    end(m, AWAY_READING);
    /* What came from the store is in the tree of beginnings again, where others find it. */
    if (memory_teaches(m))
        prefix_learn(&m->shared, m->seq, &m->ladder, &m->policy);
    return 0;
}

bool away_back(struct memory *m)
{
    if (m->away.state == AWAY_READING && !memory_behind(m))
        m->away.state = AWAY_HERE;
    return m->away.state == AWAY_HERE;
}

void away_rest(struct memory *m)
{
    m->away.more = 0;
    if (m->away.state != AWAY_COMING)
        return;
    tier_restore_drop(m->away.restore);
    end(m, AWAY_GONE);
}
