/* base/seat.h - the CPU that the owner of the workers runs on.
 *
 * Workers are pinned, one a CPU, and one CPU is left for the owner, who is worker 0. But nothing
 * keeps the owner there: who wakes it gets it on its own CPU often, and where two that have work
 * share a CPU, while another one is idle or does somebody else's work, the kernel may leave them
 * for seconds. Beside a worker the owner halves the speed of every step; beside a client each
 * message costs a sleep and a wake-up.
 *
 *         seat_home: before a step               seat_leave: a burst of messages from this CPU
 *     FREE ----------------------> HOME    FREE, HOME ----------------------------------> AWAY
 *                                 AWAY ------------------> HOME    by seat_home as well
 *     HOME, AWAY ----------------> FREE    by seat_free, before it sleeps: the kernel wakes it
 *                                          where it likes, which is where it slept if that is idle
 *
 * A move costs a few microseconds and happens at most once in a burst of messages or a burst of
 * steps; all other calls look at one field.
 *
 * Threads    the owner's only, and it moves no other.
 * Errors     none: a thread that may not be moved stays.
 */
#ifndef BASE_SEAT_H
#define BASE_SEAT_H

#include <stdbool.h>
#include <stdint.h>

#define SEAT_CPUS_MAX 8192u

struct seat {
    enum seat_at { SEAT_FREE, SEAT_HOME, SEAT_AWAY } at;
    bool moves;         /* workers are pinned and there is more than one CPU */
    int home;           /* -1: workers leave none */
    uint32_t together;  /* messages of a burst, all from this CPU */
    uint64_t met_ns;    /* the last of them */
    uint64_t moved_ns;  /* when it last went away */
    uint64_t joined_ns; /* when it last went beside somebody */
    unsigned long all[SEAT_CPUS_MAX / 8 / sizeof(unsigned long)]; /* CPUs it may use */
};

/* home: what workers_owner_cpu says, -1 if it is none. pin: whether threads are pinned at all. */
void seat_init(struct seat *s, int home, bool pin);
void seat_home(struct seat *s);

/* Before sleep. beside: the CPU of whoever will probably wake this thread, -1 if it isn't known. It
 * moves there, if it wasn't moved a moment ago, and is free: to be woken on another CPU takes an
 * interrupt from one to the other, which in a virtual machine costs more than all the rest. */
void seat_free(struct seat *s, int beside);

/* A message came; shared: from somebody who runs on this CPU. */
void seat_met(struct seat *s, bool shared);

/* Whether there was a burst, and it is to go. The moment for it is when every message has its
 * answer, so that nobody sleeps for one: the kernel puts who is woken beside who woke it, where
 * their CPUs share no cache, and he would come along. Who finds no such moment is sent by seat_met.
 */
bool seat_leaves(const struct seat *s);
void seat_leave(struct seat *s);

#endif
