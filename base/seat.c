/* base/seat.c - where the owner of the workers sits. Moving is sched_setaffinity of this thread: to
 * one CPU to go there, and to all of them to be free again. A call is a system call, so each
 * function first looks at what it did last. */

#include "base/seat.h"

#include "base/clock.h"
#include "base/thread.h"

#include <sched.h>
#include <string.h>

/* Messages from one CPU before it is left, and the time between two of them that makes them a
 * burst: what comes alone is answered sooner than a thread moves, and its sender sleeps anyway. */
#define TOGETHER_MAX 4u
#define TOGETHER_NS  (CLOCK_MS / 10)

/* Before it is left in the middle of a message, because no moment comes that nothing is there. */
#define PATIENCE_MAX (4 * TOGETHER_MAX)

/* Between two moves away, and between two to whoever it waits for: of two clients on two CPUs each
 * message would call it to another one. A move takes some 20 us, so this is 4 % of the time at
 * most. */
#define AWAY_NS CLOCK_MS
#define JOIN_NS CLOCK_MS

static cpu_set_t *set_of(unsigned long *mask)
{
    return (cpu_set_t *)(void *)mask;
}

/* With one CPU there is nowhere to go, and without its own affinity nothing to go back to. */
void seat_init(struct seat *s, int home, bool pin)
{
    *s = (struct seat){ .home = pin ? home : -1 };
    s->moves = pin && thread_cpus(set_of(s->all), sizeof(s->all)) > 1;
}

/* The kernel moves the thread before the call returns. */
static void stay_on(int cpu)
{
    unsigned long mask[SEAT_CPUS_MAX / 8 / sizeof(unsigned long)];

    CPU_ZERO_S(sizeof(mask), set_of(mask));
    CPU_SET_S((size_t)cpu, sizeof(mask), set_of(mask));
    (void)sched_setaffinity(0, sizeof(mask), set_of(mask));
}

void seat_home(struct seat *s)
{
    if (s->at == SEAT_HOME || s->home < 0 || !s->moves)
        return;
    stay_on(s->home);
    s->at = SEAT_HOME;
    s->together = 0;
}

/* May it go to sleep there? Not back and forth between clients on two CPUs. */
static bool may_join(struct seat *s, int beside)
{
    uint64_t now;

    if (!s->moves || beside < 0 || (uint32_t)beside >= SEAT_CPUS_MAX || beside == sched_getcpu() ||
        !CPU_ISSET_S((size_t)beside, sizeof(s->all), set_of(s->all)))
        return false;
    now = clock_ns();
    if (now < s->joined_ns + JOIN_NS)
        return false;
    s->joined_ns = now;
    return true;
}

void seat_free(struct seat *s, int beside)
{
    bool join = may_join(s, beside);

    /* There first, then free: the kernel wakes it where it fell asleep, if that CPU is idle. */
    if (join)
        stay_on(beside);
    if (join || s->at != SEAT_FREE)
        (void)sched_setaffinity(0, sizeof(s->all), set_of(s->all));
    s->at = SEAT_FREE;
}

/* Home, when that is another CPU: no worker runs there. */
static void go_away(struct seat *s, int from)
{
    unsigned long mask[SEAT_CPUS_MAX / 8 / sizeof(unsigned long)];

    if (s->home >= 0 && s->home != from) {
        stay_on(s->home);
    } else {
        memcpy(mask, s->all, sizeof(mask));
        CPU_CLR_S((size_t)from, sizeof(mask), set_of(mask));
        (void)sched_setaffinity(0, sizeof(mask), set_of(mask));
    }
    s->at = SEAT_AWAY;
}

/* A message from elsewhere ends a burst, a pause does so when the next message comes. */
void seat_met(struct seat *s, bool shared)
{
    uint64_t now;

    if (!shared || !s->moves) {
        s->together = 0;
        return;
    }
    now = clock_ns();
    s->together = now < s->met_ns + TOGETHER_NS ? s->together + 1 : 1;
    s->met_ns = now;
    if (s->together >= PATIENCE_MAX && seat_leaves(s))
        seat_leave(s);
}

bool seat_leaves(const struct seat *s)
{
    return s->together >= TOGETHER_MAX && clock_ns() >= s->moved_ns + AWAY_NS;
}

/* A new burst has to come before it goes once more, and AWAY_NS to pass. */
void seat_leave(struct seat *s)
{
    int cpu = sched_getcpu();

    s->together = 0;
    if (cpu < 0)
        return;
    s->moved_ns = clock_ns();
    go_away(s, cpu);
}
