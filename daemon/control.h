/* daemon/control.h - the control thread: connections, handshakes, deaths of clients, signals, the
 * service manager.
 *
 *               accept                 hello came                 GONE
 *     (nothing) ------> SHAKING ----------------------> OPEN -----------------> (closed)
 *                        | |      channel sent, ADOPT   ^ |  socket ended: DEAD    ^
 *         the model is   | |                            | +------------> DYING ----+ GONE
 *         not there yet  | +--> (closed)          READY |
 *                        +------------> WAITING --------+
 *                                          |
 *                                          +---> (closed)
 *
 *     (closed) from SHAKING: no hello in time, a bad one, too many clients, or no descriptors; from
 *     WAITING: it left, or the daemon stops. The client is told which. While it waits it is told
 *     how far the model is.
 *
 * It never waits for the scheduler, and the scheduler never for it: letters only. The scheduler
 * owns all that a client has but the socket.
 *
 * Threads    control_run is the thread's; it starts no other.
 * Ownership  owns the clients' sockets; borrows listener and mailboxes.
 */
#ifndef DAEMON_CONTROL_H
#define DAEMON_CONTROL_H

#include "daemon/config.h"
#include "daemon/listener.h"
#include "daemon/mailbox.h"
#include "daemon/pressure.h"
#include "daemon/scrape.h"

struct sched;

struct control_slot;

struct control {
    const struct config *config;
    struct listener *listener;
    struct sched *sched; /* its letters' result, heartbeat and name of the model */
    struct mailbox *to_sched, *from_sched;
    struct scrape *scrape;     /* NULL: nobody reads metrics */
    bool asked;                /* the scheduler, for numbers */
    struct pressure *pressure; /* NULL: nobody tells when memory is short */
    bool pressed;              /* the scheduler, and it has not heard of it yet */
    int epoll, signals;
    int reserve; /* a descriptor to do without, so that a client can be told there are none */
    struct control_slot *slots;
    uint32_t n_slots, n_shaking, n_waiting;
    uint32_t n_clients; /* WAITING, OPEN and DYING */
    unsigned told;      /* percent that those who wait have heard of */
    uint64_t tell_ns;   /* when to look again */
    uint64_t last_id;
    bool serving, stopping, stopped;
    bool unseen; /* which unit a client is of could not be read, and the log says so */
    bool paused; /* not accepting: no memory, or no descriptor even for a refusal */
    uint64_t resume_ns;
    uint64_t watchdog_ns, watchdog_next_ns, last_heartbeat;
};

/* Blocks the signals that control_run reads; before any thread is made. */
int control_block_signals(void);

/* The caller sets config, listener, sched and the mailboxes. */
int control_open(struct control *c);
void control_close(struct control *c);

/* Until the scheduler has stopped. */
int control_run(struct control *c);

#endif
