/* daemon/rank.h - which segments of a text a prompt points to, by the words that both have.
 *
 * Names, keys and numbers are what compressed context loses first, and what a prompt that asks
 * about them repeats. So a segment's score is the sum, over the prompt's words and the pairs and
 * triples of words in a row that the segment has too, of how rare each is:
 *
 *     score(k) = sum of ln((N + 1) / (df + 1/2))     N segments, df of them have it
 *
 * A word here is a token without its leading space, in lower case: "Otter", " otter" and "otter"
 * are one. Tokens without a letter or a digit, special ones, and in the prompt the word right
 * behind a special one (a role) are passed over. What is found near a segment's end counts for the
 * one behind it too, and near its start for the one before it, since an answer may run over an end.
 *
 * All ids of the text are looked at, twice, when a prompt comes: 2 ms for 100,000, on one core. A
 * list of where each word stands would spare that, and cost each session memory, and forks and
 * rewinds care. Who has others to serve meanwhile does it in slices (rank_begin).
 *
 * Threads    a rank_words never changes; any. A rank_job is its owner's.
 * Ownership  a rank_job borrows words and the text's ids; the prompt it needs no more.
 * Errors     -ENOMEM.
 */
#ifndef DAEMON_RANK_H
#define DAEMON_RANK_H

#include <stdbool.h>
#include <stdint.h>

struct rank_job;
struct rank_words;
struct vocab;

int rank_open(const struct vocab *v, struct rank_words **ret);
void rank_close(struct rank_words *w);

struct rank_text {
    const uint32_t *ids; /* (n_segments, seg_len) */
    uint32_t seg_len, n_segments;
    const uint32_t *prompt; /* (n_prompt) */
    uint32_t n_prompt;
};

/* ret: (n_segments) scores, 0 where the prompt points to nothing. words NULL: ids are words. */
int rank_score(const struct rank_words *words, const struct rank_text *t, float *ret);

/* The same in slices: rank_go, which looks at n ids and up to a segment more, until it is true. Ids
 * that change meanwhile make other scores, and do no harm. */
int rank_begin(const struct rank_words *words, const struct rank_text *t, struct rank_job **ret);
bool rank_go(struct rank_job *j, uint32_t n);
/* Ids that are still to be looked at; each counts twice. */
uint64_t rank_left(const struct rank_job *j);
/* As above, the job's. ret_n: how many. */
const float *rank_scores(const struct rank_job *j, uint32_t *ret_n);
void rank_drop(struct rank_job *j); /* NULL: nothing */

#endif
