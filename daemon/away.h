/* daemon/away.h - a session's context that gave its pages to others, and comes back when it is
 * used.
 *
 * What it is are its ids, which stay. Its pages are found by them in the tree of beginnings, in
 * host memory or in the store; what is in none of them is read again. So it goes on as if it had
 * never been away, and nothing of it is anywhere that it was not before.
 *
 *     HERE --away_go--> GONE --away_come--> COMING --away_come--> READING --away_back--> HERE
 *                         ^                   |  (the store)        (the model, by memory_plan)
 *                         +----away_rest------+
 *                         +----away_again---- READING, HERE
 *
 * Only a sequence that is a function of its ids can go. A request that takes a session waits until
 * its memory is HERE: the scheduler has it come (daemon/batch.h). Forks and rewinds do not wait,
 * and leave it where it is: rewound past a compression it comes back as a fresh one of its ids
 * would be.
 *
 * Threads    the scheduler's, between steps.
 * Ownership  a struct away is its memory's.
 */
#ifndef DAEMON_AWAY_H
#define DAEMON_AWAY_H

#include <stdbool.h>
#include <stdint.h>

struct memory;
struct tier_restore;

enum away_state { AWAY_HERE, AWAY_GONE, AWAY_COMING, AWAY_READING };

struct away {
    enum away_state state;
    uint32_t n_pages;             /* that it had, */
    uint32_t more;                /* and that it is to find beside them */
    uint32_t *ids, n;             /* COMING: all of them; else NULL */
    struct tier_restore *restore; /* COMING */
};

/* It has pages, and could go: nobody works on it, which the caller knows. */
bool away_can(const struct memory *m);
/* And all that it holds would be found in host memory or in the store. */
bool away_is_kept(const struct memory *m);
void away_go(struct memory *m);

/* It came back, or not all of it yet, and found n pages too few: what it has it gives back. */
void away_again(struct memory *m, uint32_t n);
/* Pages that it wants to come back, and does not have. */
uint32_t away_wants(const struct memory *m);

/* -EAGAIN: the store has something of it, and rings. 0: that is there, the rest is to be read. */
int away_come(struct memory *m);
/* After that: all of it is there. */
bool away_back(struct memory *m);
/* Nobody waits for it any more: what comes is given up. */
void away_rest(struct memory *m);

#endif
