/* eval/prose.h - text that is made here: sentences, names, numbers, all from a seed.
 *
 * A sentence is its seed and its index, so that a longer text begins as a shorter one does. No
 * sentence holds a digit, and none says "special": what a task hides stands nowhere else.
 *
 * Threads    pure functions.
 */
#ifndef EVAL_PROSE_H
#define EVAL_PROSE_H

#include <stddef.h>
#include <stdint.h>

#define PROSE_SENTENCE_CAP 256u
#define PROSE_KEY_CAP      48u
#define PROSE_UUID_CAP     37u

/* Each fills ret and returns it. */
const char *prose_sentence(uint64_t seed, uint64_t index, char ret[PROSE_SENTENCE_CAP]);
/* About one person. */
const char *prose_life(const char *who, uint64_t seed, uint64_t index,
                       char ret[PROSE_SENTENCE_CAP]);
/* A person's first and last name. */
const char *prose_person(uint64_t seed, uint64_t index, char ret[PROSE_KEY_CAP]);
/* "amber-fox": no two of the first 10,000 indices of a seed are alike. */
const char *prose_key(uint64_t seed, uint64_t index, char ret[PROSE_KEY_CAP]);
/* Two words, such as "smoked dumpling". */
const char *prose_food(uint64_t seed, uint64_t index, char ret[PROSE_KEY_CAP]);
/* A number of n digits (1 to 18) that does not begin with 0. */
const char *prose_number(uint64_t seed, uint64_t index, unsigned n, char ret[PROSE_KEY_CAP]);
const char *prose_uuid(uint64_t seed, uint64_t index, char ret[PROSE_UUID_CAP]);

#endif
