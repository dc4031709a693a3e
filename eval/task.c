/* eval/task.c - texts and questions.
 *
 * A text is written unit by unit into a stream. Whoever is hidden is written before the unit that
 * stands at its depth, and notes where its value is.
 */
#include "eval/task.h"

#include "base/draw.h"
#include "eval/prose.h"
#include "eval/words.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_KEYS      8u  /* of multikey */
#define N_VALUES    4u  /* of multivalue */
#define PARAGRAPH   6u  /* sentences */
#define LIFE        12u /* sentences of one person, of which the first is asked about */
#define FIRST_UNITS 24u /* the first guess of task_fit */
#define TRIES       12

/* Streams of a seed, so that what is hidden does not depend on how long the text is. */
enum stream { STREAM_PROSE, STREAM_KEYS, STREAM_VALUES, STREAM_PLACES, STREAM_PEOPLE };

/* The last number: tokens of an answer. A UUID has some 30 of them, and many a model says its key
 * before it says the value. */
static const struct task_traits traits[TASK__N] = {
    [TASK_NEEDLE] = { "needle", false, 1, 32 },
    [TASK_MULTIKEY] = { "multikey", false, N_KEYS, 32 },
    [TASK_MULTIVALUE] = { "multivalue", false, 1, 80 },
    [TASK_JSON] = { "json", false, TASK_ASKS_MAX, 128 },
    [TASK_UUID] = { "uuid", false, TASK_ASKS_MAX, 128 },
    [TASK_FOOD] = { "food", true, 1, 32 },
    [TASK_FOOD_SURPRISE] = { "food-surprise", true, 1, 32 },
    [TASK_NUMBER] = { "number", true, 1, 32 },
    [TASK_NUMBER_SURPRISE] = { "number-surprise", true, 1, 32 },
};

const struct task_traits *task_traits(enum task_kind kind)
{
    return &traits[kind];
}

enum task_kind task_find(const char *name, size_t len)
{
    enum task_kind k = 0;

    while (k < TASK__N && !words_same(name, len, traits[k].name))
        k++;
    return k;
}

/* --- writing ---------------------------------------------------------------------------------- */

struct writer {
    const struct task_spec *spec;
    struct task *task;
    FILE *out;
};

/* 16: more than there are streams, so no two kinds share one. */
static uint64_t seed_of(const struct writer *w, enum stream s)
{
    return draw_at(w->spec->seed, (uint64_t)w->spec->kind * 16 + s);
}

/* The unit before which the ask's needle stands. */
static uint32_t unit_at(const struct writer *w, uint32_t depth)
{
    return (uint32_t)((uint64_t)depth * w->spec->n_units / 100);
}

/* What was just written ends in `value` and `behind` more bytes. */
static void note(struct writer *w, struct task_ask *a, const char *value, size_t behind)
{
    (void)snprintf(a->want[a->n_wants], sizeof(a->want[0]), "%s", value);
    a->at[a->n_wants++] = (size_t)ftello(w->out) - behind - strlen(value);
}

static void put_joint(struct writer *w, uint32_t unit)
{
    (void)fputs((unit + 1) % PARAGRAPH ? " " : "\n\n", w->out);
}

/* --- numbers in prose ------------------------------------------------------------------------- */

/* One "number for a key is": which of all that the text hides, and its ask or NULL. */
static void put_number(struct writer *w, uint32_t index, uint32_t key_index, struct task_ask *a)
{
    char key[PROSE_KEY_CAP], value[PROSE_KEY_CAP];

    (void)prose_key(seed_of(w, STREAM_KEYS), key_index, key);
    (void)prose_number(seed_of(w, STREAM_VALUES), index, 7, value);
    (void)fprintf(w->out, "One of the special magic numbers for %s is: %s. ", key, value);
    if (a)
        note(w, a, value, 2);
}

/* Units that hide something, drawn for those that no one asks for. */
static uint32_t place(const struct writer *w, uint32_t index)
{
    return (uint32_t)(draw_at(seed_of(w, STREAM_PLACES), index) % (w->spec->n_units + 1));
}

static void put_numbers_at(struct writer *w, uint32_t unit)
{
    const struct task_spec *s = w->spec;
    struct task *t = w->task;

    if (s->kind == TASK_MULTIVALUE) {
        for (uint32_t i = 0; i < N_VALUES; i++)
            if (place(w, i) == unit)
                put_number(w, i, 0, &t->asks[0]);
        return;
    }
    for (uint32_t i = 0; i < s->n_asks; i++)
        if (unit_at(w, s->depth[i]) == unit)
            put_number(w, i, i, &t->asks[i]);
    for (uint32_t i = s->n_asks; s->kind == TASK_MULTIKEY && i < N_KEYS; i++)
        if (place(w, i) == unit)
            put_number(w, i, i, NULL);
}

static void ask_number(struct writer *w, uint32_t i)
{
    struct task_ask *a = &w->task->asks[i];
    char key[PROSE_KEY_CAP];

    (void)prose_key(seed_of(w, STREAM_KEYS), i, key);
    (void)snprintf(a->question, sizeof(a->question),
                   w->spec->kind == TASK_MULTIVALUE
                       ? "What are all the special magic numbers for %s mentioned in the provided "
                         "text?"
                       : "What is the special magic number for %s mentioned in the provided text?",
                   key);
}

static void write_numbers(struct writer *w)
{
    char sentence[PROSE_SENTENCE_CAP];

    (void)fprintf(w->out, "Some special magic numbers are hidden within the following text. "
                          "Memorize them. You will be asked about them afterwards.\n\n");
    for (uint32_t u = 0; u <= w->spec->n_units; u++) {
        put_numbers_at(w, u);
        if (u == w->spec->n_units)
            break;
        (void)fputs(prose_sentence(seed_of(w, STREAM_PROSE), u, sentence), w->out);
        put_joint(w, u);
    }
    for (uint32_t i = 0; i < w->spec->n_asks; i++)
        ask_number(w, i);
}

/* --- pairs ------------------------------------------------------------------------------------ */

/* The pair that the i-th question asks for. */
static uint32_t pair_of(const struct writer *w, uint32_t i)
{
    uint32_t u = unit_at(w, w->spec->depth[i]);

    return u < w->spec->n_units ? u : w->spec->n_units - 1;
}

/* Questions may meet at one pair where a text is short; each notes it for itself. */
static void write_pair(struct writer *w, uint32_t unit)
{
    bool json = w->spec->kind == TASK_JSON;
    char key[PROSE_UUID_CAP], value[PROSE_UUID_CAP];

    (void)prose_uuid(seed_of(w, STREAM_KEYS), unit, key);
    (void)prose_uuid(seed_of(w, STREAM_VALUES), unit, value);
    if (json)
        (void)fprintf(w->out, "%s\"%s\": \"%s", unit ? ",\n " : "{", key, value);
    else
        (void)fprintf(w->out, "One of the special magic uuids for %s is: %s", key, value);
    for (uint32_t i = 0; i < w->spec->n_asks; i++)
        if (pair_of(w, i) == unit && w->task->asks[i].n_wants == 0)
            note(w, &w->task->asks[i], value, 0);
    (void)fputs(json ? "\"" : ".\n", w->out);
}

static void write_pairs(struct writer *w)
{
    bool json = w->spec->kind == TASK_JSON;
    char key[PROSE_UUID_CAP];

    (void)fputs(json ? "JSON data:\n"
                     : "Some special magic uuids are hidden within the following text. Memorize "
                       "them. You will be asked about them afterwards.\n\n",
                w->out);
    for (uint32_t u = 0; u < w->spec->n_units; u++)
        write_pair(w, u);
    if (json)
        (void)fputs("}\n", w->out);
    for (uint32_t i = 0; i < w->spec->n_asks; i++) {
        struct task_ask *a = &w->task->asks[i];

        (void)prose_uuid(seed_of(w, STREAM_KEYS), pair_of(w, i), key);
        (void)snprintf(
            a->question, sizeof(a->question),
            json ? "Extract the value corresponding to the key \"%s\" in the JSON data above."
                 : "What is the special magic uuid for %s mentioned in the provided text?",
            key);
    }
}

/* --- lives ------------------------------------------------------------------------------------ */

/* Drawn from the spec's seed and not by kind (seed_of): a task and its surprise hide the same
 * value. */
static void put_special(struct writer *w, const char *who)
{
    bool food = w->spec->kind == TASK_FOOD || w->spec->kind == TASK_FOOD_SURPRISE;
    struct task_ask *a = &w->task->asks[0];
    char value[PROSE_KEY_CAP];

    if (food)
        (void)prose_food(draw_at(w->spec->seed, STREAM_VALUES), 0, value);
    else
        (void)prose_number(draw_at(w->spec->seed, STREAM_VALUES), 0, 8, value);
    (void)fprintf(w->out, "%s's special %s is %s. ", who, food ? "food" : "number", value);
    note(w, a, value, 2);
    (void)snprintf(a->question, sizeof(a->question), "What's the special %s of %s?",
                   food ? "food" : "number", who);
}

/* The life that holds the needle is the subject's: a document of its own at the depth, others'
 * around it, as a question's retrieved documents are. The pairs of tasks that differ in the subject
 * of one sentence are drawn from one seed. */
static void write_lives(struct writer *w)
{
    bool surprise = w->spec->kind == TASK_FOOD_SURPRISE || w->spec->kind == TASK_NUMBER_SURPRISE;
    uint64_t people = draw_at(w->spec->seed, STREAM_PEOPLE);
    uint32_t n_lives = (w->spec->n_units + LIFE - 1) / LIFE;
    uint32_t gold = (uint32_t)((uint64_t)w->spec->depth[0] * (n_lives - 1) / 100);
    uint32_t hidden = gold * LIFE + 1 + (uint32_t)(draw_at(people, 0) % (LIFE - 2));
    char subject[PROSE_KEY_CAP], who[PROSE_KEY_CAP], sentence[PROSE_SENTENCE_CAP];

    (void)prose_person(people, 1 + gold, subject);
    if (hidden >= w->spec->n_units)
        hidden = w->spec->n_units - 1;
    for (uint32_t u = 0; u < w->spec->n_units; u++) {
        uint32_t life = u / LIFE;

        (void)prose_person(people, 1 + life, who);
        if (u % LIFE == 0)
            (void)fprintf(w->out, "%sDocument: %s\n", u ? "\n\n" : "", who);
        if (u == hidden)
            put_special(w, surprise ? "Mr. Tree" : subject);
        (void)fprintf(w->out, "%s ", prose_life(who, people + 7, u, sentence));
    }
    (void)fputc('\n', w->out);
}

/* --- all -------------------------------------------------------------------------------------- */

void task_fini(struct task *t)
{
    free(t->text);
    t->text = NULL;
}

int task_make(const struct task_spec *spec, struct task *ret)
{
    struct task t = { .n_units = spec->n_units, .n_asks = spec->n_asks };
    struct writer w = { .spec = spec, .task = &t };
    bool failed;

    if (spec->n_units < 2 || spec->n_asks == 0 || spec->n_asks > traits[spec->kind].asks_max)
        return -EINVAL;
    w.out = open_memstream(&t.text, &t.len);
    if (!w.out)
        return -ENOMEM;
    if (spec->kind == TASK_JSON || spec->kind == TASK_UUID)
        write_pairs(&w);
    else if (traits[spec->kind].is_probe)
        write_lives(&w);
    else
        write_numbers(&w);
    failed = ferror(w.out);
    failed |= fclose(w.out) != 0;
    if (failed) {
        free(t.text);
        return -ENOMEM;
    }
    *ret = t;
    return 0;
}

/* What n_units make, kept in ret when it fits. *ret_n is what it counts to, also when that is too
 * much. */
static int try_units(struct task_spec *s, uint32_t n_units, task_count_fn *count, void *arg,
                     size_t *ret_n, size_t n_tokens, struct task *ret)
{
    struct task t;
    int r;

    s->n_units = n_units;
    r = task_make(s, &t);
    if (r < 0)
        return r;
    r = count(arg, t.text, t.len, ret_n);
    if (r == 0 && *ret_n <= n_tokens && n_units > ret->n_units) {
        task_fini(ret);
        *ret = t;
    } else {
        task_fini(&t);
    }
    return r;
}

/* Tokens are nearly in proportion to units, so a guess by proportion is off by few; between the
 * longest that fits and the shortest that does not it goes on until both meet. */
int task_fit(const struct task_spec *spec, size_t n_tokens, task_count_fn *count, void *arg,
             struct task *ret)
{
    struct task_spec s = *spec;
    struct task best = { 0 };
    uint32_t low = 1, high = UINT32_MAX, n = FIRST_UNITS; /* low fits, high does not */
    size_t got;
    int r = 0;

    for (int i = 0; i < TRIES && high - low > 1; i++) {
        uint64_t next;

        r = try_units(&s, n, count, arg, &got, n_tokens, &best);
        if (r < 0)
            break;
        if (got <= n_tokens)
            low = n;
        else
            high = n;
        next = (uint64_t)n * n_tokens / (got ? got : 1);
        n = next <= low ? low + 1 : next >= high ? high - 1 : (uint32_t)next;
    }
    if (r == 0 && !best.text)
        r = -EINVAL;
    if (r < 0) {
        task_fini(&best);
        return r;
    }
    *ret = best;
    return 0;
}
