/* ipc/handshake.h - the packets of the Unix SEQPACKET socket: who speaks which version, and the
 * descriptors of the channel.
 *
 *     client -> daemon   one struct handshake_hello
 *     daemon -> client   struct handshake_answer with HANDSHAKE_LOADING, while the model is loaded:
 *                        any number of them, and only if the hello asked for them
 *     daemon -> client   one struct handshake_answer, with three descriptors (memfd, to_server,
 *                        to_client) by SCM_RIGHTS when status is 0
 *
 * Nothing else is ever sent on the socket; its end is the peer's death. All numbers little-endian.
 * A version that the daemon does not speak gets status HANDSHAKE_BAD_VERSION, the versions it does
 * speak, and a sentence.
 *
 * Features are the upper half of what was a 32-bit version once: a daemon from before there were
 * any takes them for another version, says so, and is asked again without them.
 *
 * Threads    any; no state.
 * Errors     -EPROTO (not our protocol), -EPROTONOSUPPORT (version), -ECONNREFUSED (refused: see
 *            text), -EPIPE (the peer closed), -ETIMEDOUT, -errno.
 */
#ifndef IPC_HANDSHAKE_H
#define IPC_HANDSHAKE_H

#include "ipc/chan.h"

#include <string.h>
#include <sys/types.h>

#define HANDSHAKE_VERSION 1u
#define HANDSHAKE_MAGIC   "gistd\r\n\x1a"
#define HANDSHAKE_FDS     3

enum handshake_status {
    HANDSHAKE_OK,
    HANDSHAKE_BAD_VERSION,
    HANDSHAKE_BAD_REQUEST,
    HANDSHAKE_FULL,
    HANDSHAKE_STOPPING,
    HANDSHAKE_LOADING /* not the last word: percent says how far it is */
};

#define HANDSHAKE_WANTS_PROGRESS 1u /* a feature: HANDSHAKE_LOADING is understood */

struct handshake_hello {
    char magic[8];
    uint16_t version, features;
    uint32_t slots, arena_c2s, arena_s2c; /* wanted; 0: the daemon's default */
};

struct handshake_answer {
    char magic[8];
    uint32_t version; /* of the daemon */
    uint32_t status;
    uint32_t slots, arena_c2s, arena_s2c; /* granted */
    uint32_t percent;                     /* of a model, HANDSHAKE_LOADING; else 0 */
    char text[224];                       /* a sentence when status is not 0 */
};

static inline bool handshake_magic_valid(const char magic[8])
{
    return memcmp(magic, HANDSHAKE_MAGIC, 8) == 0;
}

struct handshake_wait {
    int timeout_ms; /* for all of it, or with on_loading until its next call; -1: none */
    /* May be NULL. Not 0: the client does not wait any longer, -ECANCELED. */
    int (*on_loading)(void *arg, unsigned percent);
    void *arg;
    bool any_server; /* else the socket's server must be root, the user gistd, or this user */
};

/* Client: connects to path, shakes hands, gives socket and channel. -EPERM: a server whom nobody
 * trusts, to whom nothing was said. text (256 bytes) gets the
 * sentence for the reader on any error. */
int handshake_connect(const char *path, const struct chan_geometry *want,
                      const struct handshake_wait *wait, int *ret_sock, struct chan **ret_chan,
                      char text[256]);

/* The same for who has a loop of his own and must not wait; nobody keeps the time then. Starts one
 * and says hello; the rest is done by handshake_go_on when handshake_fd is readable. -EAGAIN: the
 * daemon has too many connections waiting to be taken. */
struct handshake;
int handshake_start(const char *path, const struct chan_geometry *want,
                    const struct handshake_wait *wait, struct handshake **ret, char text[256]);
int handshake_fd(const struct handshake *h); /* another one after each -EAGAIN, perhaps */
/* -EAGAIN: not yet. 0: socket and channel are the caller's. Else it has failed. */
int handshake_go_on(struct handshake *h, int *ret_sock, struct chan **ret_chan, char text[256]);
void handshake_end(struct handshake *h); /* NULL: nothing */

/* What a client asks for, its sizes bounded. */
struct handshake_wish {
    struct chan_geometry g;
    bool progress;
};

/* Daemon: reads the hello that is there (the socket is non-blocking). -EAGAIN: not yet. On
 * -EPROTONOSUPPORT or -EPROTO an answer was sent; close. */
int handshake_read_hello(int sock, const struct chan_geometry *defaults,
                         struct handshake_wish *ret);
int handshake_accept(int sock, const struct chan_geometry *g, const struct chan *c);
int handshake_refuse(int sock, enum handshake_status status, const char *text);
/* Never waits: a client that does not read misses it. */
void handshake_tell_loading(int sock, unsigned percent);

/* SO_PEERCRED. */
int handshake_peer(int sock, pid_t *ret_pid, uid_t *ret_uid);

/* The socket's path: override if not NULL, else $GISTD_SOCKET, else
 * $XDG_RUNTIME_DIR/gistd/gistd.sock when XDG_RUNTIME_DIR is set and (for a client) the socket
 * exists there, else /run/gistd/gistd.sock. */
int handshake_path(const char *override, bool client, char *ret, size_t cap);

#endif
