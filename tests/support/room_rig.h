/* tests/support/room_rig.h - a scheduler whose pool is small, turned by the test (alone.h), and one
 * client of it, whose sessions fill that pool.
 *
 * Ownership  one for the program; room_rig_start and room_rig_stop stand around each test.
 * Errors     fail the test.
 */
#ifndef TESTS_SUPPORT_ROOM_RIG_H
#define TESTS_SUPPORT_ROOM_RIG_H

#include "tests/support/alone.h"

#define ROOM_PAGE  16u /* tokens */
#define ROOM_PAGES 40u /* of the pool */

struct room_rig {
    struct alone a;
    struct chan *chan;
    uint64_t last_id;
    struct wire_rep rep; /* the last one that came */
    struct chan *second; /* of the second client; else NULL */
    uint32_t n_made_up;
};
extern struct room_rig room;

/* Without a tree of beginnings. store: its folder, or "none". */
void room_rig_start(const char *store);
void room_rig_stop(void);

/* In segments of 64 tokens; budget: of keys; 0: the policy's own. */
uint64_t room_rig_open_memory(enum wire_priority priority, struct wire_memory memory);
uint64_t room_rig_open_budget(enum wire_priority priority, uint32_t budget);
uint64_t room_rig_open(enum wire_priority priority);
void room_rig_shut(uint64_t session);
/* Two sessions that have all pages. The second one's last page has room for n more tokens. */
void room_rig_fill(uint64_t ret[2], uint32_t n);

uint64_t room_rig_append_ids(uint64_t session, const uint32_t *ids, uint32_t n);
/* Of n ids that no other session has; an answer of n tokens. They return the request's id. */
uint64_t room_rig_append(uint64_t session, uint32_t n);
uint64_t room_rig_answer(uint64_t session, uint32_t n);
/* The last reply of that request; of an append of n ids. */
enum wire_rep_kind room_rig_wait(uint64_t id);
enum wire_rep_kind room_rig_read(uint64_t session, uint32_t n);
/* Ends of requests [0, n), in any order: all are of this kind, and answers as long as they should.
 */
void room_rig_all_end(const uint64_t *ids, uint32_t n, enum wire_rep_kind kind);

struct session *room_rig_session(uint64_t id);
uint32_t room_rig_pages(uint64_t session);
/* NULL: it has ended; or it is not paused. */
struct request *room_rig_request(uint64_t id);
struct request *room_rig_paused(uint64_t id);

/* Another client hears Stats every so often, so that a scheduler with nothing to do goes on
 * turning. To be closed. */
struct chan *room_rig_turns(void);

/* --- two clients, and work that is made up --- */

/* A second client of the same user; swapped, it is the one that asks. */
void room_rig_start_two(void);
void room_rig_stop_two(void);
void room_rig_swap(void);
/* A session of the second client, of so many pages. */
uint64_t room_rig_other(uint32_t n_pages);

/* A request, of an answer if it has no kind yet, works on the session and gets no further: how far
 * a real one is when another one looks is a matter of time. Until done. */
void room_rig_at_work(uint64_t session, struct request *work);
void room_rig_done(uint64_t session);
/* For a test that wraps epoll_wait: the sleep ends at once. Fails the test when the scheduler
 * sleeps for ever beside open requests, though nothing is made up: nothing here rings. */
bool room_rig_wakes(int timeout);

/* What a request has said to either client. */
#define ROOM_SAID_MAX 512u
struct room_said {
    uint64_t id;
    uint32_t n, ids[ROOM_SAID_MAX], n_ends, generated;
    bool over;
    enum wire_rep_kind kind; /* of the last reply */
    enum wire_error code;
    enum wire_reason reasons[4]; /* of its parts, and of the whole */
};

/* A turn, then all that is there; and until all n requests have ended. */
void room_rig_turn(struct room_said *said, uint32_t n);
void room_rig_over(struct room_said *said, uint32_t n);

/* How the first client's request ends while it waits: a cancel, a deadline that has passed, a
 * client that has gone. */
enum room_end { ROOM_END_CANCEL, ROOM_END_DEADLINE, ROOM_END_GONE, ROOM_END__N };
void room_rig_end(uint64_t id, enum room_end how);

#endif
