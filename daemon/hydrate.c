#include "daemon/hydrate.h"

#include "daemon/again.h"
#include "daemon/hydrate_inner.h"
#include "daemon/memory.h"
#include "daemon/rank.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Of the best one's score: what points less clearly is not worth its reading. */
#define WORTH 0.25f
/* Tokens of an answer that have room behind what came back. For a longer one it may have to go. */
#define ANSWER_TOKENS 64u
/* Segments that a prompt brings back, so that the overlay has room for those of the turn. */
#define BRING_MAX (OVERLAY_MAX - 8u)
/* Tokens that are computed again for one prompt, which waits for them; one segment in any case. */
#define AGAIN_TOKENS 2048u

/* A segment that a job is to bring back, and how far that is. */
struct wanted {
    uint32_t segment, place; /* place: 0, the prompt points to it most */
    enum hydrate_source from;
    bool tried;      /* to compute it again */
    uint32_t *pages; /* in the account, until they stand in; NULL: they do, or there are none */
};

struct hydrate_job {
    struct memory *memory;
    struct tier_bring *bring; /* NULL: nothing is on its way from the store */
    bool asked;               /* the tree, and the store for the rest */
    bool looked;              /* what could be had is there, the rest is computed again */
    bool may_miss;            /* nobody waits for it: not computed again, nor counted as missed */
    uint32_t n;
    struct wanted wanted[OVERLAY_MAX]; /* ascending */
    uint32_t pages[OVERLAY_MAX][SEQ_SEGMENT_MAX / POOL_PAGE_TOKENS];
};

/* --- choosing --------------------------------------------------------------------------------- */

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Those that are back. */
static uint32_t n_back(const struct memory *m)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->hydration.n; i++)
        n += m->hydration.held[i].pages && m->hydration.held[i].from != HYDRATE_TURN;
    return n;
}

/* Segments for which there are keys and pages, when the prompt and the beginning of an answer are
 * to fit behind them. A hydrated one is counted as if it had no gists, as which it may end. Keys
 * first: what the budget leaves, or what it keeps for this (policy_spare), whichever is more. Then
 * pages, by the account and by the pool: gists stay held beside the raw pages, so a segment takes
 * all of its pages anew. */
static uint32_t room_for(const struct memory *m, uint32_t n_left)
{
    const struct seq *s = m->seq;
    const struct pool_account *a = s->account;
    uint64_t keys, pages, left, coming, spare = ladder_spare(&m->policy, &m->ladder);
    uint32_t most = m->hydrate < BRING_MAX ? m->hydrate : BRING_MAX, had_back = n_back(m);

    memory_peak(m, (uint64_t)n_left + ANSWER_TOKENS, &keys, &pages);
    left = keys < m->policy.budget ? m->policy.budget - keys : 0;
    spare -= min_u64(spare, overlay_keys(&m->overlay, &m->policy, &m->ladder));
    left = (left > spare ? left : spare) / s->seg_len;
    pages = pages > s->n_pages ? pages - s->n_pages : 0;
    coming = m->hydration.early ? tier_bring_pages(m->hydration.early) : 0;
    for (int i = 0; i < 2; i++) {
        uint64_t had = i ? (uint64_t)s->pool->n_free + s->pool->n_cached : pool_room(s->pool, a, 0);

        had += coming; /* they are nobody's by then */
        had -= min_u64(had, seq_n_pages(ladder_segment_keys(&m->policy, 0, 1))); /* in two tables */
        left = min_u64(left, (had > pages ? had - pages : 0) / seq_n_pages(s->seg_len));
    }
    return (uint32_t)min_u64(left, most > had_back ? most - had_back : 0);
}

/* What the prompt points to is worth more than gists of all else: these are thinned, as far as they
 * have to be for one segment to fit. Tried with the counts alone first. 1: one fits now. 0: nothing
 * was thinned, or less than would have helped for want of pages. */
static uint32_t squeeze(struct memory *m, uint32_t n_left)
{
    struct memory counts = *m;
    struct ladder_step step;

    while (room_for(&counts, n_left) == 0) {
        if (!ladder_thinner(&counts.policy, &counts.ladder, &step))
            return 0;
        ladder_take(&counts.ladder, &step);
    }
    while (room_for(m, n_left) == 0)
        if (!memory_thin(m))
            return 0;
    return 1;
}

/* The next best: its score is taken out. */
static uint32_t take_best(float *score, uint32_t n, float *ret_score)
{
    uint32_t best = 0;

    for (uint32_t k = 1; k < n; k++)
        if (score[k] > score[best])
            best = k;
    *ret_score = score[best];
    score[best] = 0;
    return best;
}

/* Segments that the prompt points to, at most `most` of them, the best one first: how many.
 * Selection by walking over all of them each time: `most` is a handful, and segments are thousands
 * at most. */
static uint32_t choose(const struct memory *m, float *score, uint32_t most, uint32_t *ret)
{
    uint32_t n = 0;
    float best = 0, next;

    while (n < most) {
        uint32_t k = take_best(score, m->ladder.n_at[1], &next);

        if (n == 0)
            best = next;
        if (next <= 0 || next < WORTH * best)
            break;
        ret[n++] = k;
    }
    return n;
}

static struct rank_text text_of(const struct memory *m, const uint32_t *prompt, uint32_t n)
{
    return (struct rank_text){ .ids = m->seq->tokens,
                               .seg_len = m->seq->seg_len,
                               .n_segments = m->ladder.n_at[1],
                               .prompt = prompt,
                               .n_prompt = n };
}

/* Behind one function, so that other marks than words' can be added to a segment's score. */
static int rank(const struct memory *m, const uint32_t *prompt, uint32_t n, float *ret_score)
{
    const struct rank_text text = text_of(m, prompt, n);

    return rank_score(m->served->rank, &text, ret_score);
}

/* --- in slices -------------------------------------------------------------------------------- */

struct rank_job *hydrate_rank_begin(const struct memory *m, const uint32_t *prompt,
                                    uint32_t n_prompt)
{
    const struct rank_text text = text_of(m, prompt, n_prompt);
    struct rank_job *j;

    if (m->hydrate == 0 || text.n_segments == 0 || rank_begin(m->served->rank, &text, &j) < 0)
        return NULL;
    return j;
}

bool hydrate_rank_go(struct rank_job *j)
{
    return rank_go(j, HYDRATE_SLICE_IDS);
}

/* NULL: they are not of what is packed now. */
static const float *current_scores(const struct rank_job *j, const struct memory *m)
{
    uint32_t n = 0;
    const float *score = j ? rank_scores(j, &n) : NULL;

    return n == m->ladder.n_at[1] ? score : NULL;
}

bool hydrate_is_ranked(const struct memory *m, const struct rank_job *by)
{
    return current_scores(by, m) != NULL;
}

/* Scores of the packed segments, to be freed; NULL: no memory. */
static float *scores_of(const struct memory *m, const uint32_t *prompt, uint32_t n,
                        const struct rank_job *by)
{
    float *score = malloc(m->ladder.n_at[1] * sizeof(*score));
    const float *ranked = current_scores(by, m);

    if (score && ranked) {
        memcpy(score, ranked, m->ladder.n_at[1] * sizeof(*score));
    } else if (score && rank(m, prompt, n, score) < 0) {
        free(score);
        score = NULL;
    }
    return score;
}

/* --- the job ---------------------------------------------------------------------------------- */

bool hydrate_can(const struct memory *m)
{
    return m->hydrate > 0 && m->ladder.n_at[1] > 0 && memory_exact(m) && m->overlay.n == 0;
}

/* It was read behind nothing but its ids, and what others keep by these is the same. What was read
 * behind hydrated segments is found by marks alone (daemon/own.h). */
static bool is_plain(const struct memory *m, uint32_t segment)
{
    return (segment + 1) * m->seq->seg_len <= m->n_plain;
}

/* Pages that the tree has, which count as nobody's; and where they came from. */
static enum hydrate_source in_tree(struct memory *m, uint32_t segment, uint32_t *ret_pages)
{
    bool from_disk;

    if (own_find(m, segment, ret_pages, &from_disk))
        return from_disk ? HYDRATE_DISK : HYDRATE_MEMORY;
    if (is_plain(m, segment) && prefix_raw(&m->shared, m->seq, &m->policy, segment, ret_pages))
        return HYDRATE_MEMORY;
    return HYDRATE_NOWHERE;
}

/* The same, in the account. Without room there it is as if the tree had nothing. */
static enum hydrate_source from_tree(struct memory *m, uint32_t segment, uint32_t *ret_pages)
{
    struct seq *s = m->seq;
    enum hydrate_source from = in_tree(m, segment, ret_pages);

    if (from != HYDRATE_NOWHERE &&
        pool_share(s->pool, s->account, seq_n_pages(s->seg_len), ret_pages) < 0)
        return HYDRATE_NOWHERE;
    return from;
}

/* The rest is asked of the store, where it may be. */
static void ask(struct hydrate_job *j)
{
    uint32_t segments[OVERLAY_MAX], n = 0;

    for (uint32_t i = 0; i < j->n; i++) {
        struct wanted *w = &j->wanted[i];

        w->from = from_tree(j->memory, w->segment, j->pages[i]);
        if (w->from != HYDRATE_NOWHERE) {
            w->pages = j->pages[i];
        } else if (is_plain(j->memory, w->segment)) {
            segments[n++] = w->segment;
        }
    }
    j->bring = tier_bring_begin(&j->memory->kept, segments, n);
}

/* What the store had goes to the job; what it did not take goes back with the bring. */
static void take_brought(struct hydrate_job *j)
{
    uint32_t n = seq_n_pages(j->memory->seq->seg_len);

    for (uint32_t i = 0; j->bring && i < j->n; i++) {
        struct wanted *w = &j->wanted[i];
        const uint32_t *pages = NULL;
        bool from_disk;

        if (w->from == HYDRATE_NOWHERE)
            pages = tier_bring_take(j->bring, w->segment, &from_disk);
        if (!pages)
            continue;
        w->from = from_disk ? HYDRATE_DISK : HYDRATE_MEMORY;
        w->pages = memcpy(j->pages[i], pages, n * sizeof(*pages));
    }
    tier_bring_drop(j->bring);
    j->bring = NULL;
}

/* Reading takes time, and the prompt waits for it: so no more than AGAIN_TOKENS, of what it points
 * to most. */
static void choose_again(struct hydrate_job *j)
{
    uint32_t left = AGAIN_TOKENS / j->memory->seq->seg_len;

    left += left == 0;
    left = j->may_miss ? 0 : left;
    for (uint32_t place = 0; place < j->n; place++)
        for (uint32_t i = 0; i < j->n && left > 0; i++) {
            struct wanted *w = &j->wanted[i];

            if (w->place != place || w->from != HYDRATE_NOWHERE)
                continue;
            w->from = HYDRATE_AGAIN;
            left--;
        }
}

/* Those whose pages are there. Called again when more are: each stands in once. */
static void stand_all_in(struct hydrate_job *j)
{
    for (uint32_t i = 0; i < j->n; i++) {
        struct wanted *w = &j->wanted[i];

        struct hydrated d = { .segment = w->segment,
                              .rung = ladder_rung(&j->memory->ladder, w->segment),
                              .place = w->place,
                              .from = w->from };

        if (w->pages && !hydrate_stand_in(j->memory, &d, w->pages))
            w->from = HYDRATE_NOWHERE; /* missed, if that counts */
        w->pages = NULL;
    }
}

/* Segments that are packed as soon as they are full were each read behind gists alone, so what is
 * computed again is as it was if nothing raw stands before it. With a tail, or late, all or some of
 * it was raw then: what is back is to be seen. */
static bool sees_raw(const struct memory *m)
{
    return m->policy.late || m->policy.keep_tail > 0;
}

/* False: it is to be read by the next steps. True: none is under way. What was computed is in the
 * job's pages then. */
static bool end_again(struct hydrate_job *j)
{
    struct memory *m = j->memory;
    struct hydration *h = &m->hydration;

    if (!h->again)
        return true;
    if (!again_done(h->again))
        return false;
    for (uint32_t i = 0; i < j->n; i++)
        if (j->wanted[i].segment == h->again_segment)
            again_take(h->again, j->wanted[i].pages = j->pages[i]);
    again_drop(h->again);
    h->again = NULL;
    return true;
}

/* The next one that is to be computed again. False: there is none. In the text's order, so that
 * each is read behind those that are back before it. */
static bool next_again(struct hydrate_job *j)
{
    struct hydration *h = &j->memory->hydration;

    if (sees_raw(j->memory))
        stand_all_in(j);
    for (uint32_t i = 0; i < j->n; i++) {
        struct wanted *w = &j->wanted[i];

        if (w->from != HYDRATE_AGAIN || w->tried)
            continue;
        w->tried = true;
        if (again_begin(j->memory->seq, w->segment, &h->again) == 0) {
            h->again_segment = w->segment;
            return true;
        }
        w->from = HYDRATE_NOWHERE;
    }
    return false;
}

/* From here on ids that are to be read again wait (`coming`): they are to see what comes. */
static struct hydrate_job *new_job(struct memory *m, const uint32_t *segments, uint32_t n)
{
    struct hydrate_job *j = calloc(1, sizeof(*j));

    if (!j)
        return NULL;
    j->memory = m;
    m->hydration.coming = true;
    /* Sorted as they come: there are few. */
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = j->n++;

        for (; k > 0 && j->wanted[k - 1].segment > segments[i]; k--)
            j->wanted[k] = j->wanted[k - 1];
        j->wanted[k] = (struct wanted){ .segment = segments[i], .place = i };
    }
    return j;
}

/* What is being fetched, and is wanted, is waited for, with all that comes with it: it is on its
 * way for longer than what would be asked for now. */
static bool awaits_fetched(const struct hydrate_job *j)
{
    for (uint32_t i = 0; i < j->n; i++)
        if (tier_bring_has(j->memory->hydration.early, j->wanted[i].segment))
            return true;
    return false;
}

/* The sequence's end goes to the store first: what is read from here on is not to be found by its
 * ids. */
static struct hydrate_job *begin(struct memory *m, struct hydrate_job *j)
{
    if (!hydrate_is_on(m)) /* an answer that has its segments goes on with more */
        m->hydration.n_read = m->seq->n_tokens;
    tier_hold(&m->kept, memory_lasts(m));
    if (!awaits_fetched(j))
        hydrate_fetch_drop(m);
    return hydrate_go(j) == 0 ? NULL : j;
}

struct hydrate_job *hydrate_bring(struct memory *m, const uint32_t *segments, uint32_t n)
{
    struct hydrate_job *j = new_job(m, segments, n);

    if (j)
        return begin(m, j);
    for (uint32_t i = 0; i < n; i++)
        hydrate_miss(m, segments[i]);
    return NULL;
}

/* The best one is looked for also where there is no room, to be squeezed in, or to be counted as
 * missed. */
struct hydrate_job *hydrate_begin(struct memory *m, const uint32_t *prompt, uint32_t n_prompt,
                                  uint32_t n_left, const struct rank_job *by)
{
    uint32_t segments[OVERLAY_MAX], n = 0, most;
    float *score;

    if (!hydrate_can(m))
        return NULL;
    most = room_for(m, n_left);
    score = scores_of(m, prompt, n_prompt, by);
    if (score)
        n = choose(m, score, most > 0 ? most : 1, segments);
    free(score);
    if (n > 0)
        tier_hold(&m->kept, memory_lasts(m)); /* what it may learn of it, it learns before */
    if (n > 0 && most == 0)
        most = squeeze(m, n_left);
    if (n > 0 && most > 0)
        return hydrate_bring(m, segments, n);
    if (n > 0) /* there is no room even for the best one */
        hydrate_miss(m, segments[0]);
    return NULL;
}

/* score: of the packed segments, of which those that are back and are wanted less than `least` go
 * until there is room for one more. False: there is none. */
static bool make_room(struct memory *m, const float *score, float least)
{
    struct hydration *h = &m->hydration;

    while (room_for(m, 1) == 0) {
        struct hydrated *out = NULL;

        for (uint32_t i = 0; i < h->n; i++) {
            struct hydrated *d = &h->held[i];

            if (!d->pages || d->from == HYDRATE_TURN)
                continue;
            if (!out || score[d->segment] < score[out->segment] ||
                (score[d->segment] == score[out->segment] && d->place > out->place))
                out = d;
        }
        if (!out || score[out->segment] >= least)
            return false;
        hydrate_go_back(m, out);
        hydrate_settle(m);
    }
    return true;
}

/* The most that anything that is there scores; and what is in the overlay can't come. */
static float best_there(const struct memory *m, const float *score, float *ret_away)
{
    float best = 0;

    memcpy(ret_away, score, m->ladder.n_at[1] * sizeof(*score));
    for (uint32_t i = 0; i < m->overlay.n; i++) {
        uint32_t k = m->overlay.segments[i];

        if (best < score[k])
            best = score[k];
        ret_away[k] = 0;
    }
    return best;
}

/* One at a time, and only if it is pointed to more than all that is there: an answer is not to be
 * stopped for less. */
static struct hydrate_job *more(struct memory *m, const float *score, float *away)
{
    float there = best_there(m, score, away), next;
    struct hydrate_job *j;
    uint32_t k = take_best(away, m->ladder.n_at[1], &next);

    if (next <= there || !make_room(m, score, next))
        return NULL;
    j = new_job(m, &k, 1);
    if (!j)
        return NULL;
    j->may_miss = true;
    return begin(m, j);
}

bool hydrate_can_more(const struct memory *m)
{
    return m->hydrate > 0 && m->ladder.n_at[1] > 0 && memory_exact(m) && !m->seq->gist_every &&
           m->seq->n_tokens == m->n_ids && m->overlay.n < OVERLAY_MAX &&
           m->hydration.n < OVERLAY_MAX;
}

struct hydrate_job *hydrate_more(struct memory *m, uint32_t n, const struct rank_job *by)
{
    uint32_t n_packed = m->ladder.n_at[1], asked;
    struct hydrate_job *j = NULL;
    float *score, *away;

    if (!hydrate_can_more(m))
        return NULL;
    asked = m->turn.to > 0 ? m->turn.from : m->n_ids - n;
    score = scores_of(m, m->seq->tokens + m->n_ids - n, n, by);
    away = malloc(n_packed * sizeof(*away));
    if (score && away) {
        /* The answer's words are in the answer, and the question's in the question. */
        for (uint32_t k = asked / m->seq->seg_len; k < n_packed; k++)
            score[k] = 0;
        j = more(m, score, away);
    }
    free(score);
    free(away);
    return j;
}

/* --- ahead of a prompt ------------------------------------------------------------------------ */

void hydrate_fetch_drop(struct memory *m)
{
    tier_bring_drop(m->hydration.early);
    m->hydration.early = NULL;
}

void hydrate_fetch_cut(struct memory *m)
{
    if (m->hydration.early && tier_bring_last(m->hydration.early) >= m->ladder.n_at[1])
        hydrate_fetch_drop(m);
}

/* From the tier. They are nobody's now, and a prompt that points to them finds them in the tree.
 * hydrate_go waits as long as `early` is there. */
static void fetched(void *arg)
{
    struct memory *m = arg;
    struct seq *s = m->seq;

    for (uint32_t k = 0; k < m->ladder.n_at[1]; k++) {
        bool from_disk;
        const uint32_t *pages = tier_bring_take(m->hydration.early, k, &from_disk);

        if (!pages)
            continue;
        own_fetched(m, k, pages, from_disk);
        pool_give(s->pool, s->account, seq_n_pages(s->seg_len), pages);
    }
    hydrate_fetch_drop(m);
}

/* So many at most that they are no burden if it is a wrong guess: as many as there is room for, or
 * is when what the last prompt has goes, in a quarter of the pages that can be had. */
static uint32_t most_ahead(const struct memory *m)
{
    const struct seq *s = m->seq;
    const struct pool *p = s->pool;
    uint64_t most = ladder_spare(&m->policy, &m->ladder) / s->seg_len + 1;

    if (m->overlay.n == 0)
        most = room_for(m, 0);
    most = min_u64(most, min_u64(m->hydrate, BRING_MAX));
    most = min_u64(most, pool_room(p, s->account, 0) / 4 / seq_n_pages(s->seg_len));
    return (uint32_t)min_u64(most,
                             ((uint64_t)p->n_free + p->n_cached) / 4 / seq_n_pages(s->seg_len));
}

/* Of these those that only the disk has, ascending: how many. */
static uint32_t only_on_disk(struct memory *m, const uint32_t *segments, uint32_t n, uint32_t *ret)
{
    uint32_t pages[SEQ_SEGMENT_MAX / POOL_PAGE_TOKENS], n_ret = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = segments[i], at = n_ret;

        if (!is_plain(m, k) || overlay_has(&m->overlay, k) || own_has(m, k) ||
            prefix_raw(&m->shared, m->seq, &m->policy, k, pages))
            continue;
        for (; at > 0 && ret[at - 1] > k; at--)
            ret[at] = ret[at - 1];
        ret[at] = k;
        n_ret++;
    }
    return n_ret;
}

/* What is on its way already stays if all that is wanted now is among it. */
static void fetch(struct memory *m, const uint32_t *segments, uint32_t n)
{
    struct hydration *h = &m->hydration;

    for (uint32_t i = 0; h->early && i < n; i++)
        if (!tier_bring_has(h->early, segments[i]))
            hydrate_fetch_drop(m); /* what has come since points elsewhere */
    if (h->early || n == 0)
        return;
    h->early = tier_bring_begin(&m->kept, segments, n);
    if (h->early)
        tier_bring_leave(h->early, fetched, m);
}

bool hydrate_may_fetch(const struct memory *m)
{
    return own_may_fetch(m) && m->ladder.n_at[1] > 0;
}

void hydrate_fetch(struct memory *m, const struct rank_job *by)
{
    uint32_t segments[OVERLAY_MAX], on_disk[OVERLAY_MAX], n_found = 0, most;
    float *score;

    if (!hydrate_is_ranked(m, by) || !hydrate_may_fetch(m) || m->hydration.coming)
        return;
    most = most_ahead(m);
    score = most > 0 ? scores_of(m, NULL, 0, by) : NULL;
    if (score)
        n_found = choose(m, score, most, segments);
    free(score);
    fetch(m, on_disk, only_on_disk(m, segments, n_found, on_disk));
}

/* --- the job's way ---------------------------------------------------------------------------- */

/* Called until it is 0. In turn: what is fetched ahead, the tree, the store, the model; each leaves
 * segments to the next. */
int hydrate_go(struct hydrate_job *j)
{
    if (j->memory->hydration.early)
        return -EAGAIN;
    if (!j->asked)
        ask(j);
    j->asked = true;
    if (j->bring && tier_bring_go(j->bring) == -EAGAIN)
        return -EAGAIN;
    take_brought(j);
    if (!j->looked)
        choose_again(j);
    j->looked = true;
    if (!end_again(j) || next_again(j))
        return -EAGAIN;
    stand_all_in(j);
    for (uint32_t i = 0; i < j->n; i++)
        if (j->wanted[i].from == HYDRATE_NOWHERE && !j->may_miss)
            hydrate_miss(j->memory, j->wanted[i].segment);
    hydrate_drop(j);
    return 0;
}

/* At any moment. What stands in stays so; what is in the account and does not stand yet goes
 * back. */
void hydrate_drop(struct hydrate_job *j)
{
    struct seq *s;

    if (!j)
        return;
    s = j->memory->seq;
    j->memory->hydration.coming = false;
    again_drop(j->memory->hydration.again);
    j->memory->hydration.again = NULL;
    for (uint32_t i = 0; i < j->n; i++)
        if (j->wanted[i].pages)
            pool_give(s->pool, s->account, seq_n_pages(s->seg_len), j->wanted[i].pages);
    tier_bring_drop(j->bring);
    free(j);
}
