#include "store/budget.h"

#include "store/sum.h"

#include <string.h>

#define HOUR 3600u

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

/* A clock that was set back a little finds its hours again, and until then all counts as the newest
 * one; what is dated days ahead came from a clock that was wrong, and would never grow old. */
static void go_on(struct budget *b, uint64_t now_s)
{
    uint64_t hour = now_s / HOUR;

    if (hour <= b->hour && b->hour - hour < BUDGET_HOURS)
        return;
    if (hour < b->hour || hour - b->hour >= BUDGET_HOURS) {
        memset(b->bytes, 0, sizeof(b->bytes));
        b->hour = hour;
    }
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
