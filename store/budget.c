/* One slot of the file `written`, which budget_save fills and budget_load reads. Both slots have
 * the same form:
 *
 *     0      8          16      24                         224    240         4096
 *     +------+----------+-------+--------------------------+------+-- zeros --+
 *     | mag. | n_saved  | hour  | bytes[25], by hour % 25  | sum  |           |
 *     +------+----------+-------+--------------------------+------+-----------+
 *
 * The larger n_saved of the slots that verify is the newer one. Saving goes to slot n_saved % 2, so
 * the slot that is being written is never the newest good one. */
#include "store/budget.h"

#include "store/sum.h"

#include <string.h>

#define HOUR 3600u

/* As it is on disk. It has no padding, so every byte under the sum was set by us. */
struct slot {
    char magic[8];
    uint64_t n_saved, hour;
    uint64_t bytes[BUDGET_HOURS];
    struct store_hash sum; /* of all in front of it */
};
_Static_assert(offsetof(struct slot, n_saved) == 8, "layout");
_Static_assert(offsetof(struct slot, hour) == 16, "layout");
_Static_assert(offsetof(struct slot, bytes) == 24, "layout");
_Static_assert(offsetof(struct slot, sum) == 224, "layout");
_Static_assert(sizeof(struct slot) == 240, "layout");

static const char magic[8] = { 'g', 'i', 's', 't', 'd', '-', 'w', 'r' };

/* Called first by all that look at the ring or change it. A clock that was set back a little finds
 * its hours again; until it has caught up, everything counts as the newest hour. What is dated days
 * ahead came from a wrong clock and would never grow old. */
static void go_on(struct budget *b, uint64_t now_s)
{
    uint64_t hour = now_s / HOUR;

    /* The same hour, or a clock that is behind by less than the ring holds. */
    if (hour <= b->hour && b->hour - hour < BUDGET_HOURS)
        return;
    /* Nothing that the ring holds is of the last 24 hours, or its dates are not to be believed. */
    if (hour < b->hour || hour - b->hour >= BUDGET_HOURS) {
        memset(b->bytes, 0, sizeof(b->bytes));
        b->hour = hour;
    }
    /* At most BUDGET_HOURS rounds, by what stands above. Hours in which nothing was written become
     * zero. */
    while (b->hour < hour) {
        b->hour++;
        b->bytes[b->hour % BUDGET_HOURS] = 0;
    }
}

uint64_t budget_sum(struct budget *b, uint64_t now_s)
{
    uint64_t sum = 0;

    go_on(b, now_s);
    for (uint32_t i = 0; i < BUDGET_HOURS; i++)
        sum += b->bytes[i];
    return sum;
}

void budget_add(struct budget *b, uint64_t now_s, uint64_t bytes)
{
    go_on(b, now_s);
    b->bytes[b->hour % BUDGET_HOURS] += bytes;
}

/* It was added a moment ago: from the newest hours, back to front. */
void budget_take_back(struct budget *b, uint64_t now_s, uint64_t bytes)
{
    go_on(b, now_s);
    for (uint32_t i = 0; i < BUDGET_HOURS && bytes > 0; i++) {
        uint64_t *hour = &b->bytes[(b->hour + BUDGET_HOURS - i) % BUDGET_HOURS];
        uint64_t n = bytes < *hour ? bytes : *hour;

        *hour -= n;
        bytes -= n;
    }
}

/* The caller's array is indexed as ours is, by hour % BUDGET_HOURS, and holds hours up to now_s. An
 * hour that our clock has not reached yet may still stand in b->bytes: it is kept, for the larger
 * number is the safe one. */
void budget_at_least(struct budget *b, const uint64_t bytes[BUDGET_HOURS], uint64_t now_s)
{
    go_on(b, now_s);
    for (uint32_t i = 0; i < BUDGET_HOURS; i++) {
        if (b->bytes[i] < bytes[i])
            b->bytes[i] = bytes[i];
    }
}

uint64_t budget_save(struct budget *b, uint8_t ret_slot[BUDGET_SLOT])
{
    struct slot slot = { .n_saved = ++b->n_saved, .hour = b->hour };

    memcpy(slot.magic, magic, sizeof(slot.magic));
    memcpy(slot.bytes, b->bytes, sizeof(slot.bytes));
    slot.sum = sum_bytes(&slot, offsetof(struct slot, sum));
    memset(ret_slot, 0, BUDGET_SLOT);
    memcpy(ret_slot, &slot, sizeof(slot));
    return slot.n_saved % 2 * BUDGET_SLOT;
}

/* A file of zeros, or a shorter one that the caller padded with zeros, has no magic and gives an
 * empty budget. The two slots are compared by their n_saved only when both verify. */
bool budget_load(struct budget *b, const uint8_t file[BUDGET_FILE])
{
    bool any = false;

    *b = (struct budget){ 0 };
    for (uint32_t i = 0; i < 2; i++) {
        struct slot slot;

        memcpy(&slot, file + (size_t)i * BUDGET_SLOT, sizeof(slot));
        if (memcmp(slot.magic, magic, sizeof(magic)) != 0 ||
            !sum_equal(slot.sum, sum_bytes(&slot, offsetof(struct slot, sum))) ||
            (any && slot.n_saved < b->n_saved))
            continue;
        b->hour = slot.hour;
        b->n_saved = slot.n_saved;
        memcpy(b->bytes, slot.bytes, sizeof(b->bytes));
        any = true;
    }
    return any;
}
