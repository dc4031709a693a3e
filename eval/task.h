/* eval/task.h - a text that hides something, and what is asked of it.
 *
 * The synthetic tasks of the paper (shared with HELMET and RULER), made here from a seed:
 *
 *   needle      one number in prose
 *   multikey    eight numbers under keys in prose, one asked for
 *   multivalue  four numbers under one key in prose, all asked for
 *   json        one object, UUIDs under UUIDs, one asked for
 *   uuid        nothing but sentences that name a UUID's UUID, one asked for
 *
 * and of its probe "lost if surprise" (section 6.3), in lives of people, the asked-for one's among
 * them: a sentence about that one (relevant) or about Mr. Tree, whom nothing else mentions.
 *
 *   food, food-surprise, number, number-surprise
 *
 * A text is drawn from its spec alone. n_units is its length: sentences, or pairs of json and uuid;
 * task_fit finds the one that makes about so many tokens.
 *
 * Threads    pure functions but for count.
 * Ownership  task_fini releases what task_make and task_fit made; of zeros it does nothing.
 * Errors     -ENOMEM; -EINVAL, no such text (too short for what it hides); count's own.
 */
#ifndef EVAL_TASK_H
#define EVAL_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TASK_ASKS_MAX  8u
#define TASK_WANTS_MAX 4u

enum task_kind {
    TASK_NEEDLE,
    TASK_MULTIKEY,
    TASK_MULTIVALUE,
    TASK_JSON,
    TASK_UUID,
    TASK_FOOD,
    TASK_FOOD_SURPRISE,
    TASK_NUMBER,
    TASK_NUMBER_SURPRISE,
    TASK__N
};

struct task_traits {
    const char *name;
    bool is_probe;     /* of surprise */
    uint32_t asks_max; /* questions that one text can be asked */
    uint32_t answer;   /* tokens that an answer may have */
};
const struct task_traits *task_traits(enum task_kind kind);
/* TASK__N: there is none of that name. */
enum task_kind task_find(const char *name, size_t len);

struct task_spec {
    enum task_kind kind;
    uint64_t seed;
    uint32_t n_units;
    uint32_t n_asks;
    uint32_t depth[TASK_ASKS_MAX]; /* where what the n-th question asks for stands: 0 to 100 */
};

struct task_ask {
    char question[256];
    char want[TASK_WANTS_MAX][64]; /* what a right answer holds */
    uint32_t n_wants;
    size_t at[TASK_WANTS_MAX]; /* where it stands in the text */
};

struct task {
    char *text;
    size_t len;
    uint32_t n_units, n_asks;
    struct task_ask asks[TASK_ASKS_MAX];
};

int task_make(const struct task_spec *spec, struct task *ret);
void task_fini(struct task *t);

/* Tokens of a text: 0, or a negative errno. */
typedef int task_count_fn(void *arg, const char *text, size_t len, size_t *ret_n);

/* The longest text of at most n_tokens; spec's n_units is not looked at. */
int task_fit(const struct task_spec *spec, size_t n_tokens, task_count_fn *count, void *arg,
             struct task *ret);

#endif
