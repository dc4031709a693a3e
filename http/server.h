/* http/server.h - the HTTP side: connections, their limits, and what runs when.
 *
 * libmicrohttpd, with a thread a connection: a request waits for the daemon and its client in one
 * poll() (http/job.h), which a thread of its own may do as long as it likes, and a connection of
 * libgist is one thread's anyway. Threads are bounded by --max-connections; what they wait for is
 * computing, not each other.
 *
 * libmicrohttpd ends connections that are silent. One that sends a byte now and then is not: for
 * that server_run, on the main thread, looks at how long each has been sending its request.
 *
 * Threads    server_open, server_run and server_close: the main thread, which has SIGINT and
 * SIGTERM blocked. All else is called by threads of connections.
 *
 * Ownership  takes the descriptors of listen.
 *
 * Errors     a negative errno and a sentence.
 */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include "http/guard.h"
#include "http/listen.h"
#include "http/live.h"
#include "http/pool.h"
#include "http/tokens.h"
#include "http/turn.h"

#include <microhttpd.h>

/* A connection: of the thread that serves it, but for waiting_ns, which has the server's lock. */
struct client {
    struct client *next, **prev;
    int fd;
    uint64_t waiting_ns; /* since when it sends a request; 0: it is being answered */
};

struct door {
    struct server *server;
    bool is_unix;
    struct MHD_Daemon *daemon;
};

struct server {
    const struct conf *conf;
    struct guard guard;
    struct pool pool;
    struct lives lives;
    struct turns turns;
    struct tokens tokens;
    struct door doors[LISTEN_MAX];
    size_t n_doors;
    int stop_fd;          /* readable: all end */
    int wake_fd;          /* the first connection came, or a turn that nobody hears */
    pthread_mutex_t lock; /* of what is below */
    pthread_cond_t answered;
    struct client *clients;
    size_t n_busy; /* of them: those that are being answered */
};

int server_open(struct server *s, const struct conf *conf, struct listen *l, struct why *why);
int server_run(struct server *s); /* until a signal comes */
void server_close(struct server *s);

/* Whether the client of a connection is the one that is to send. */
void server_waits(struct server *s, struct client *c, bool waits);

/* --- exchange.c: a request and its answer; callbacks of libmicrohttpd ------------------------- */

enum MHD_Result exchange_on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                    const char *method, const char *version, const char *data,
                                    size_t *size, void **ret_exchange);
void exchange_on_completed(void *cls, struct MHD_Connection *connection, void **exchange,
                           enum MHD_RequestTerminationCode how);

#endif
