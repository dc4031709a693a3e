/* daemon/portion.h - even parts of steps, for several who want them.
 *
 * Each has an even part of what a step reads (portion_part), and who had fewer rows of earlier
 * steps has up to half of that more, until it has had as many. Who comes, or comes back, begins
 * where those stand who are there: time away is not saved up. One list is of owners
 * (daemon/owner.h), and each of these has one of its units (daemon/unit.h).
 *
 * Threads    the scheduler's.
 * Ownership  a portion is a part of who has it.
 */
#ifndef DAEMON_PORTION_H
#define DAEMON_PORTION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct portion {
    TAILQ_ENTRY(portion) link;
    void *of;           /* an owner, or a unit */
    uint64_t had;       /* rows of steps, as turns count them */
    uint64_t spent_ns;  /* of portion_spent, less than a row's */
    bool wants, waited; /* something of the next step, of the last one */
    uint32_t n_waiting; /* batch.c: of its own who read; an owner's units, a unit's clients */
};

TAILQ_HEAD(portion_list, portion);

/* Before a step, with `wants` set: where those begin who were not there in the last one. */
void portion_turn(struct portion_list *l);
/* Of those who have something to read (n_waiting > 0), who had least; NULL: none has. *ret_n: how
 * many they are, *ret_most: what the one had who had most. */
struct portion *portion_next(const struct portion_list *l, uint32_t *ret_n, uint64_t *ret_most);
/* Its part of so many tokens, of n who wait. */
uint32_t portion_part(const struct portion *x, uint32_t tokens, uint32_t n, uint64_t most);
/* Others waited for it so long outside of steps: it had as many rows as are read in that time. 0 a
 * row: that is not known yet, and is charged when it is. */
void portion_spent(struct portion *x, uint64_t ns, double ns_per_row);
/* An even part of so many tokens for the first of n; none is too small to be worth its step: rather
 * than that, those at the end of the line wait. */
uint32_t portion_even(uint32_t tokens, uint32_t n);

#endif
