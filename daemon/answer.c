/* Text and ids are two queues that go out at the front and grow at the end. Offsets are into the
 * text that is still here, so each time that something goes out all of them move with it: there are
 * never many. */
#include "daemon/answer.h"

#include "base/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Text that a reader may fall behind before its request is paused. */
#define SLACK 8192u

int answer_init(struct answer *a, size_t token_max, const char *const *stops, uint32_t n_stops)
{
    size_t len = 0, longest = 0;
    char *p;

    *a = (struct answer){ .room = DETOK_OUT_MAX(token_max), .n_stops = n_stops };
    for (uint32_t i = 0; i < n_stops; i++) {
        size_t n = strlen(stops[i]);

        len += n + 1;
        longest = n > longest ? n : longest;
    }
    /* What a stop string may hold back, what a reader may be behind, a token more, and the end. */
    a->cap_text = ANSWER_STOP_MAX + SLACK + 2 * a->room;
    a->cap_ids = (uint32_t)longest + ANSWER_IDS_MAX;
    a->text = malloc(a->cap_text);
    a->ids = malloc(a->cap_ids * sizeof(*a->ids));
    a->starts = malloc(a->cap_ids * sizeof(*a->starts));
    a->ends = malloc(a->cap_ids * sizeof(*a->ends));
    a->stop_mem = malloc(len ? len : 1);
    if (!a->text || !a->ids || !a->starts || !a->ends || !a->stop_mem) {
        answer_fini(a);
        return -ENOMEM;
    }
    p = a->stop_mem;
    for (uint32_t i = 0; i < n_stops; i++) {
        a->stop_len[i] = strlen(stops[i]);
        a->stops[i] = memcpy(p, stops[i], a->stop_len[i] + 1);
        p += a->stop_len[i] + 1;
    }
    return 0;
}

void answer_fini(struct answer *a)
{
    if (!a)
        return;
    free(a->text);
    free(a->ids);
    free(a->starts);
    free(a->ends);
    free(a->stop_mem);
    *a = (struct answer){ .text = NULL };
}

/* Twice: answer_end writes once more. */
bool answer_has_room(const struct answer *a)
{
    return a->n_ids < a->cap_ids && a->n_text + 2 * a->room <= a->cap_text;
}

/* The stop string that is complete first, looking only where the new text can end one. What went
 * out already can't be part of one: held_len keeps all that may be. */
static bool find_stop(const struct answer *a, size_t old_len, uint32_t *ret_stop, size_t *ret_at)
{
    size_t end = SIZE_MAX;

    for (uint32_t i = 0; i < a->n_stops; i++) {
        size_t back = a->stop_len[i] - 1;
        size_t from = old_len > back ? old_len - back : 0;
        const char *p = memmem(a->text + from, a->n_text - from, a->stops[i], a->stop_len[i]);

        if (!p || (size_t)(p - a->text) + a->stop_len[i] >= end)
            continue;
        *ret_stop = i;
        *ret_at = (size_t)(p - a->text);
        end = *ret_at + a->stop_len[i];
    }
    return end != SIZE_MAX;
}

/* Ends the text at `at`. The ids whose text begins there or later go; so does the half character.
 */
static uint32_t cut(struct answer *a, size_t at)
{
    uint32_t n = a->n_ids;

    a->stopped = a->ended = true;
    a->n_text = at;
    a->detok = (struct detok){ .n_held = 0 };
    /* A token without text that stands right at the cut stays: its end is not behind it. */
    while (a->n_ids > 0 && a->starts[a->n_ids - 1] >= (ptrdiff_t)at && a->ends[a->n_ids - 1] > at)
        a->n_ids--;
    for (uint32_t i = 0; i < a->n_ids; i++)
        if (a->ends[i] > at)
            a->ends[i] = at;
    return n - a->n_ids;
}

/* The caller has asked answer_has_room. */
uint32_t answer_push(struct answer *a, uint32_t id, const uint8_t *bytes, size_t n)
{
    size_t old = a->n_text, at;

    a->n_text += detok_push(&a->detok, bytes, n, a->text + a->n_text);
    a->ids[a->n_ids] = id;
    a->starts[a->n_ids] = (ptrdiff_t)old;
    /* Half a character: one byte further than the text, so that the id waits for the rest of it. */
    a->ends[a->n_ids++] = a->n_text + (a->detok.n_held > 0);
    return find_stop(a, old, &a->stop, &at) ? cut(a, at) : 0;
}

void answer_end(struct answer *a)
{
    if (a->ended)
        return;
    a->ended = true;
    a->n_text += detok_end(&a->detok, a->text + a->n_text);
    for (uint32_t i = 0; i < a->n_ids; i++)
        if (a->ends[i] > a->n_text)
            a->ends[i] = a->n_text;
}

/* Bytes at the end of the text that are the beginning of a stop string. The longest such beginning,
 * for each stop string. */
static size_t held_len(const struct answer *a)
{
    size_t most = 0;

    if (a->ended)
        return 0;
    for (uint32_t i = 0; i < a->n_stops; i++) {
        size_t n = a->stop_len[i] - 1 < a->n_text ? a->stop_len[i] - 1 : a->n_text;

        while (n > most && memcmp(a->text + a->n_text - n, a->stops[i], n) != 0)
            n--;
        if (n > most)
            most = n;
    }
    return most;
}

/* With fewer ids than there is text for the text ends where the last of them does; one that ends
 * within a character goes out before the rest of that, or a run of such would never end. */
size_t answer_ready(const struct answer *a, size_t max_text, uint32_t max_ids, uint32_t *ret_n_ids)
{
    size_t n = a->n_text - held_len(a);
    uint32_t ids = 0;

    n = utf8_whole(a->text, n < max_text ? n : max_text, a->n_text);
    while (ids < a->n_ids && ids < max_ids && a->ends[ids] <= n)
        ids++;
    if (ids == max_ids && ids < a->n_ids)
        n = utf8_whole(a->text, a->ends[ids - 1], a->n_text);
    *ret_n_ids = ids;
    return n;
}

void answer_sent(struct answer *a, size_t n_text, uint32_t n_ids)
{
    memmove(a->text, a->text + n_text, a->n_text - n_text);
    a->n_text -= n_text;
    memmove(a->ids, a->ids + n_ids, (a->n_ids - n_ids) * sizeof(a->ids[0]));
    memmove(a->starts, a->starts + n_ids, (a->n_ids - n_ids) * sizeof(a->starts[0]));
    memmove(a->ends, a->ends + n_ids, (a->n_ids - n_ids) * sizeof(a->ends[0]));
    a->n_ids -= n_ids;
    for (uint32_t i = 0; i < a->n_ids; i++) {
        a->starts[i] -= (ptrdiff_t)n_text;
        a->ends[i] -= n_text;
    }
}
