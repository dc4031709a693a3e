/* daemon/scrape.h - metrics over a Unix socket (`metrics-socket`), as much HTTP/1.0 as a scraper
 * needs.
 *
 *     GET /metrics          200 and the numbers (daemon/metrics.h); HEAD: without them
 *     another path, method  404, 405;  what is no request: 400
 *
 * A connection asks once, in at most SCRAPE_REQUEST_MAX bytes and SCRAPE_NS; its answer is closed
 * behind. With SCRAPE_MAX of them the one that is longest there gives way.
 *
 * Mode and group are those of the daemon's own socket. One that is left of an earlier daemon is
 * replaced.
 *
 * Threads    the control thread's, but for open and close.
 * Errors     -EADDRINUSE (somebody answers there), -EEXIST (no socket), or the errno; why says
 * which.
 */
#ifndef DAEMON_SCRAPE_H
#define DAEMON_SCRAPE_H

#include "daemon/config.h"
#include "daemon/metrics.h"

#define SCRAPE_MAX         8u
#define SCRAPE_REQUEST_MAX 4096u
#define SCRAPE_NS          UINT64_C(5000000000)

struct listener;

struct scrape_conn {
    int sock; /* -1: free */
    uint64_t deadline_ns;
    uid_t uid;
    bool waits; /* for numbers */
    bool head;  /* no body */
    char in[SCRAPE_REQUEST_MAX];
    size_t n_in;
    char *out; /* NULL: none yet */
    size_t n_out, sent;
};

struct scrape {
    int epoll; /* readable when scrape_run has something to do; -1: there is no such socket */
    int fd, timer;
    bool made;
    uint64_t resume_ns; /* when accept() is tried again; 0: it is not paused */
    char path[CONFIG_SOCKET_MAX + 1];
    struct scrape_conn conns[SCRAPE_MAX];
    struct metrics metrics; /* room for the next answer */
};

/* Does nothing without the option. */
int scrape_open(struct scrape *s, const struct config *c, const struct listener *l,
                struct why *why);
void scrape_close(struct scrape *s);

/* What came. True: somebody waits for numbers. */
bool scrape_run(struct scrape *s);
/* Answers all who wait. NULL: the model is not loaded, or the daemon stops. */
void scrape_answer(struct scrape *s, const struct metrics *m);

#endif
