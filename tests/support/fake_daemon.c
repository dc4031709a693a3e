#include "tests/support/fake_daemon.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void fake_fail(const char *what, const char *file, int line)
{
    fprintf(stderr, "fake daemon: %s:%d: %s\n", file, line, what);
    _exit(99);
}

/* --- the child -------------------------------------------------------------------------------- */

static bool wait_for_client(struct fake_daemon *d, bool for_room)
{
    int r = chan_wait(d->chan, for_room, d->sock, -1, 0, -1);

    FAKE_CHECK(r == 0 || r == -EPIPE);
    return r == 0;
}

void fake_release(struct fake_daemon *d)
{
    if (d->held)
        chan_release(d->chan);
    d->held = false;
}

bool fake_take(struct fake_daemon *d)
{
    struct chan_msg msg;
    int r;

    fake_release(d);
    while ((r = chan_recv(d->chan, &msg)) == -EAGAIN)
        if (!wait_for_client(d, false))
            return false;
    FAKE_CHECK(r == 0);
    FAKE_CHECK(wire_req_unpack(&d->in, msg.frame, msg.frame_len, &d->req) == 0);
    FAKE_CHECK(d->req.bulk_len == msg.bulk_len);
    d->bulk = msg.bulk;
    d->held = true;
    return true;
}

void fake_expect(struct fake_daemon *d, enum wire_req_kind kind)
{
    FAKE_CHECK(fake_take(d));
    if (d->req.kind != kind)
        fprintf(stderr, "fake daemon: request %d, expected %d\n", (int)d->req.kind, (int)kind);
    FAKE_CHECK(d->req.kind == kind);
}

void fake_reply(struct fake_daemon *d, struct wire_rep rep, const void *bulk, uint32_t bulk_len)
{
    static uint8_t buf[CHAN_FRAME_MAX];
    uint8_t *f, *b;
    size_t len;
    int r;

    if (rep.id == 0)
        rep.id = d->req.id;
    rep.bulk_len = bulk_len;
    FAKE_CHECK(wire_rep_pack(&d->out, &rep, buf, sizeof(buf), &len) == 0);
    while ((r = chan_reserve(d->chan, (uint32_t)len, bulk_len, &f, &b)) == -EAGAIN) {
        /* For room only: requests may lie there unread for as long as the script likes. */
        struct pollfd p[] = { { chan_doorbell(d->chan), POLLIN, 0 }, { d->sock, POLLIN, 0 } };

        (void)chan_arm(d->chan, true);
        (void)poll(p, 2, 1);
        chan_disarm(d->chan);
        if (p[1].revents)
            _exit(0);
    }
    FAKE_CHECK(r == 0);
    memcpy(f, buf, len);
    if (bulk_len > 0)
        memcpy(b, bulk, bulk_len);
    chan_commit(d->chan);
}

void fake_last(struct fake_daemon *d, struct wire_rep rep)
{
    rep.last = true;
    fake_reply(d, rep, NULL, 0);
}

void fake_error(struct fake_daemon *d, enum wire_error code, const char *text)
{
    fake_last(d,
              (struct wire_rep){ .kind = WIRE_ERROR, .u.error = { .code = code, .text = text } });
}

void fake_text(struct fake_daemon *d, uint64_t id, const char *text)
{
    static const uint32_t ids[] = { 1, 2 };

    fake_reply(
        d,
        (struct wire_rep){ .id = id,
                           .kind = WIRE_TEXT,
                           .u.text = { .n_tokens = 2, .text = text, .tokens = ids, .n_ids = 2 } },
        NULL, 0);
}

void fake_done(struct fake_daemon *d, uint64_t id, enum wire_reason reason)
{
    fake_last(d, (struct wire_rep){ .id = id,
                                    .kind = WIRE_DONE,
                                    .u.done = { .reason = reason,
                                                .usage = { .prompt_tokens = 3,
                                                           .hydrated_tokens = 4,
                                                           .hydrated_disk_tokens = 5,
                                                           .recomputed_tokens = 6,
                                                           .missed_tokens = 7 } } });
}

void fake_drain(struct fake_daemon *d)
{
    while (fake_take(d))
        ;
}

static void greet(struct fake_daemon *d, int listener)
{
    const struct chan_geometry defaults = { FAKE_SLOTS, CHAN_ARENA_MIN, CHAN_ARENA_MIN };
    struct pollfd p = { .events = POLLIN };
    struct handshake_wish wish;

    d->sock = p.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    FAKE_CHECK(d->sock >= 0);
    close(listener);
    FAKE_CHECK(poll(&p, 1, FAKE_PATIENCE_MS) == 1);
    FAKE_CHECK(handshake_read_hello(d->sock, &defaults, &wish) == 0);
    d->g = wish.g;
    FAKE_CHECK(chan_create(&d->g, &d->chan) == 0);
    FAKE_CHECK(handshake_accept(d->sock, &d->g, d->chan) == 0);
    FAKE_CHECK(wire_scratch_open(&d->in, WIRE_SCRATCH_BYTES) == 0);
    FAKE_CHECK(wire_scratch_open(&d->out, WIRE_SCRATCH_BYTES) == 0);
    fake_expect(d, WIRE_HELLO);
    fake_last(d, (struct wire_rep){ .kind = WIRE_WELCOME,
                                    .u.welcome = { .version = "0.0-fake",
                                                   .model = "fake model",
                                                   .model_digest = "digest",
                                                   .n_vocab = 1000,
                                                   .context_max = 512,
                                                   .chat = true,
                                                   .tools = d->older ? 0 : 1, /* tagged */
                                                   .segment_default = 64,
                                                   .outputs = !d->older,
                                                   .several = !d->older,
                                                   .realms = !d->older,
                                                   .deadlines = !d->older } });
}

static void run_child(struct fake_daemon *d, int listener, fake_script *script, void *arg)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    greet(d, listener);
    if (script)
        script(d, arg);
    fake_release(d);
    chan_close(d->chan);
    wire_scratch_close(&d->in);
    wire_scratch_close(&d->out);
    close(d->sock);
    _exit(0);
}

/* --- the parent ------------------------------------------------------------------------------- */

static void start(struct fake_daemon *d, bool older, fake_script *script, void *arg)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int listener;

    *d = (struct fake_daemon){ .sock = -1, .older = older, .dir = "/tmp/gistd-fake-XXXXXX" };
    FAKE_CHECK(mkdtemp(d->dir));
    (void)snprintf(d->path, sizeof(d->path), "%s/sock", d->dir);
    memcpy(addr.sun_path, d->path, strlen(d->path));
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    FAKE_CHECK(bind(listener, (struct sockaddr *)&addr, sizeof(addr)) == 0);
    FAKE_CHECK(listen(listener, 1) == 0);
    d->pid = fork();
    FAKE_CHECK(d->pid >= 0);
    if (d->pid == 0)
        run_child(d, listener, script, arg);
    close(listener);
}

void fake_start(struct fake_daemon *d, fake_script *script, void *arg)
{
    start(d, false, script, arg);
}

void fake_start_older(struct fake_daemon *d, fake_script *script, void *arg)
{
    start(d, true, script, arg);
}

int fake_stop(struct fake_daemon *d)
{
    const struct timespec tick = { .tv_nsec = 2000000 };
    int status = 0;

    for (int ms = 0; waitpid(d->pid, &status, WNOHANG) == 0; ms += 2) {
        if (ms == FAKE_PATIENCE_MS)
            kill(d->pid, SIGKILL);
        nanosleep(&tick, NULL);
    }
    (void)unlink(d->path);
    (void)rmdir(d->dir);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
