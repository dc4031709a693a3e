/* store/budget.h - how much was written in the last 24 hours, so that nobody's SSD is worn.
 *
 * Bytes by the hour: 24 whole hours and the one that has begun, which is never less than what any
 * 24 hours had. It outlives the daemon in a small file of two slots that are written in turn: a
 * write that was cut leaves the other.
 *
 * Threads    one. No I/O.
 */
#ifndef STORE_BUDGET_H
#define STORE_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#define BUDGET_HOURS 25u
#define BUDGET_SLOT  4096u /* bytes from one slot to the next */
#define BUDGET_FILE  (2 * BUDGET_SLOT)

struct budget {
    uint64_t hour;                /* the newest, since 1970 */
    uint64_t bytes[BUDGET_HOURS]; /* of hour h at h % BUDGET_HOURS */
    uint64_t n_saved;             /* which slot is next */
};

/* In the 24 hours before now_s. */
uint64_t budget_sum(struct budget *b, uint64_t now_s);
void budget_add(struct budget *b, uint64_t now_s, uint64_t bytes);
/* So much of what was added was not written after all. */
void budget_take_back(struct budget *b, uint64_t now_s, uint64_t bytes);
/* What is known of an hour from elsewhere: never less than that was written in it. */
void budget_at_least(struct budget *b, const uint64_t bytes[BUDGET_HOURS], uint64_t now_s);

/* Fills the slot that is next, and says where it lies in the file. */
uint64_t budget_save(struct budget *b, uint8_t ret_slot[BUDGET_SLOT]);
/* false: neither slot is as it was written; b is empty then. */
bool budget_load(struct budget *b, const uint8_t file[BUDGET_FILE]);

#endif
