/* daemon/lookup.h - where the last few ids of a text stood before, so that what followed there can
 * be guessed to follow here.
 *
 * A table from LOOKUP_GRAM ids to the places behind them. A row has the last LOOKUP_WAYS places of
 * all grams that hash to it, the newest first; older ones are forgotten, and a place says nothing
 * before the ids there are compared. So its size is given and never grows, however long the text.
 *
 *     ids    a b c d e a b c d f ... a b c | ?          row of (a b c):  8  3  .  .
 *                  3         8           end             longest match: the one whose ids before
 *                                                        the gram agree furthest, too
 *
 * What follows a place is read off the ids themselves; where they end before the guess is long
 * enough it goes on with its own beginning, as a text that repeats itself does.
 *
 * Threads    none; a plain struct.
 * Ownership  init/fini; borrows the ids, which are the same array in each call, and stay as they
 *            are up to the length that was added.
 * Memory     charged to the client's account (daemon/held.h); 4 bytes an id up to LOOKUP_IDS_MAX.
 */
#ifndef DAEMON_LOOKUP_H
#define DAEMON_LOOKUP_H

#include "daemon/held.h"

#include <stdbool.h>
#include <stdint.h>

#define LOOKUP_GRAM      3u
#define LOOKUP_WAYS      4u
#define LOOKUP_IDS_MAX   (1u << 18) /* places of a table: 1 MiB */
#define LOOKUP_MATCH_MAX 32u        /* ids of a match that are counted */

struct lookup {
    struct held_account *account;
    void *mem;
    size_t len;      /* of mem; 0: there is no table */
    uint32_t *rows;  /* (n_rows, LOOKUP_WAYS): places, the newest first; 0: none */
    uint32_t n_rows; /* a power of two */
    uint32_t n;      /* ids that were added */
};

/* For a text of some n_ids. -ENOMEM, -EDQUOT. */
int lookup_init(struct lookup *l, struct held_account *a, uint32_t n_ids);
void lookup_fini(struct lookup *l);

/* The text has n ids now: takes in at most `most` of those that are new. Whether all are. */
bool lookup_add(struct lookup *l, const uint32_t *ids, uint32_t n, uint32_t most);

/* What follows n ids, all of which were added, is guessed to be ret[0 .. returned), at most max; 0:
 * nothing is known. *ret_match: how many ids before the end agree with those before the place, up
 * to LOOKUP_MATCH_MAX. An id from n_vocab on is none, and nothing is guessed from or past it. */
uint32_t lookup_find(const struct lookup *l, const uint32_t *ids, uint32_t n, uint32_t n_vocab,
                     uint32_t max, uint32_t *ret, uint32_t *ret_match);

#endif
