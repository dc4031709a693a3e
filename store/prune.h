/* store/prune.h - deletes what people want deleted, in slices: store_prune and store_forget at once
 * would take as long as there are records.
 *
 *     store_prune_begin --> store_prune_some, again and again --> store_prune_end
 *
 * Threads    the store's.
 * Ownership  begin/end; borrows the store.
 * Errors     store_prune_begin: NULL, no memory.
 */
#ifndef STORE_PRUNE_H
#define STORE_PRUNE_H

#include "store/store.h"

#define STORE_PRUNE_LOOKS 4096u /* records that are looked at in a slice: under a millisecond, */
#define STORE_PRUNE_SLICE 128u  /* and deleted */

struct store_pruning;

/* As store_prune. */
struct store_pruning *store_prune_begin(struct store *s, uint32_t owner, uint64_t bytes);
/* True: that was the last one. *ret_records, *ret_bytes: of this slice. */
bool store_prune_some(struct store_pruning *p, uint64_t *ret_records, uint64_t *ret_bytes);
void store_prune_end(struct store_pruning *p); /* NULL: nothing */

/* As store_forget, but for records that are there, which the caller deletes. */
void store_forget_unwritten(struct store *s, uint32_t owner);

#endif
