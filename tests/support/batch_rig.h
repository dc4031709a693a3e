/* tests/support/batch_rig.h - a scheduler made by hand, of which steps are run one by one
 * (daemon/batch.h), with clients to whom nothing is sent and requests that only count.
 *
 * Ownership  one for the program; batch_rig_open and batch_rig_close stand around each test.
 * Clients and actors are closed by who opened them, actors in any state. Errors     fail the test.
 */
#ifndef TESTS_SUPPORT_BATCH_RIG_H
#define TESTS_SUPPORT_BATCH_RIG_H

#include "daemon/batch.h"
#include "daemon/sched.h"
#include "tests/support/memory_rig.h"

#define BATCH_RIG_SEGMENT 64u
#define BATCH_RIG_PAGES   40u
#define BATCH_RIG_IDS     640u

extern const struct policy batch_rig_selects, batch_rig_keeps;

extern struct memory_rig rig;
extern struct config config; /* 32 tokens a step */
extern struct sched sched;
extern struct client client; /* dead: nothing is sent to it; of user 0, and of no unit */

int batch_rig_open(void **state);
int batch_rig_close(void **state);

/* Another client, of that user; and of that unit. */
void batch_rig_client(struct client *c, uid_t uid);
void batch_rig_client_of(struct client *c, uid_t uid, const char *unit);
void batch_rig_client_close(struct client *c);

/* A sequence, its memory and a request that reads into it. */
struct actor {
    struct seq seq;
    struct memory memory;
    struct request request;
    uint32_t done; /* tokens that it has read, or written */
};

/* Reads until its memory is full; reads, and forgets what it has read; the same, and says that
 * there is little of it; writes, and takes it back. */
extern const struct request_ops actor_reader, actor_endless, actor_question, actor_answer;

/* With n tokens read. */
void actor_open(struct actor *a, const struct policy *p, uint32_t n);
void actor_fork(const struct actor *a, struct actor *ret);
/* n of them behind one page that they share. */
void actor_open_answers(struct actor *a, uint32_t n);
void actor_close(struct actor *a);

/* It has a request from here on, of `client` or another one. */
void actor_act(struct actor *a, const struct request_ops *ops, enum wire_priority priority);
void actor_act_of(struct client *c, struct actor *a, const struct request_ops *ops,
                  enum wire_priority priority);

#endif
