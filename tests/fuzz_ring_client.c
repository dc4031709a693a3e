/* Fuzzes the program's side of the ring: a daemon that writes what it likes into the shared memory
 * and the frames, at any moment (tests/support/ring_foe.h), and libgist with a program that makes
 * the calls which the script names. Whatever it does, each call and each request ends, once, and
 * what callbacks are given is there. With an odd first byte: the answers to a handshake, of which
 * comes a channel that nobody can cut short, or a sentence.
 *
 * One thread: the daemon acts where the library looks for something to do, or between two of its
 * reads. Those places are found by wrapping functions of ours at link time (see the Makefile). Run
 * by tests/run-fuzz.
 */
#include "client/gist.h"
#include "ipc/handshake.h"
#include "ipc/wire.h"
#include "tests/support/fuzz_seeds.h"
#include "tests/support/ring_foe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const struct chan_geometry geometry = { CHAN_SLOTS_MIN, CHAN_ARENA_MIN, CHAN_ARENA_MIN };

static void require(bool yes, const char *what)
{
    if (!yes) {
        fprintf(stderr, "not so: %s\n", what);
        abort();
    }
}

/* --- where the daemon acts ------------------------------------------------------------------ */

int __real_wire_rep_unpack(struct wire_scratch *s, const uint8_t *frame, size_t len,
                           struct wire_rep *ret);
int __wrap_wire_rep_unpack(struct wire_scratch *s, const uint8_t *frame, size_t len,
                           struct wire_rep *ret);
int __wrap_wire_rep_unpack(struct wire_scratch *s, const uint8_t *frame, size_t len,
                           struct wire_rep *ret)
{
    ring_foe_now(FOE_UNPACK);
    return __real_wire_rep_unpack(s, frame, len, ret);
}

/* --- the program ------------------------------------------------------------------------------ */

static struct {
    struct ring_foe foe;
    gist_conn *conn;
    gist_session *session;
    struct chan *server;
    int daemons_end; /* of the socket */
    bool inside;     /* a call of libgist, which is not the program's moment */
    uint64_t seen;   /* of what callbacks got: every byte of it is looked at */
    uint32_t n_open; /* requests that have to end */
} side;

static const char words[] = "the cat sat on the mat and what it thought there nobody knows. ";

int __wrap_handshake_connect(const char *path, const struct chan_geometry *want,
                             const struct handshake_wait *wait, int *ret_sock,
                             struct chan **ret_chan, char text[256]);
int __real_handshake_connect(const char *path, const struct chan_geometry *want,
                             const struct handshake_wait *wait, int *ret_sock,
                             struct chan **ret_chan, char text[256]);
int __wrap_handshake_connect(const char *path, const struct chan_geometry *want,
                             const struct handshake_wait *wait, int *ret_sock,
                             struct chan **ret_chan, char text[256])
{
    int pair[2];

    if (!side.server)
        return __real_handshake_connect(path, want, wait, ret_sock, ret_chan, text);
    require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0, "a socket");
    side.daemons_end = pair[1];
    *ret_sock = pair[0];
    *ret_chan = ring_foe_other_side(side.server, &geometry);
    require(*ret_chan != NULL, "the program's channel");
    return 0;
}

/* A blocking call waits: the daemon does something, or is gone when it has nothing left to do. */
int __real_chan_wait(struct chan *c, bool for_room, int sock, int stop_fd, uint64_t spin_ns,
                     int timeout_ms);
int __wrap_chan_wait(struct chan *c, bool for_room, int sock, int stop_fd, uint64_t spin_ns,
                     int timeout_ms);
int __wrap_chan_wait(struct chan *c, bool for_room, int sock, int stop_fd, uint64_t spin_ns,
                     int timeout_ms)
{
    int e;

    if (!ring_foe_acting)
        return __real_chan_wait(c, for_room, sock, stop_fd, spin_ns, timeout_ms);
    ring_foe_acting->looks = 0;
    ring_foe_now(FOE_LOOK);
    if (ring_foe_done(ring_foe_acting) || ring_foe_acting->gone)
        (void)shutdown(side.daemons_end, SHUT_RDWR);
    e = __real_chan_wait(c, for_room, sock, stop_fd, 0, 0);
    return e == -ETIMEDOUT ? 0 : e;
}

static void see(const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        side.seen += ((const uint8_t *)bytes)[i];
}

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    (void)arg;
    see(text, len);
    see(ids, n_ids * sizeof(*ids));
    if (len % 16 == 14)
        (void)gist_cancel(side.conn, 3); /* which a callback may */
    return len % 16 == 15;               /* not any more */
}

static int on_answers(void *arg, uint32_t answer, const char *text, size_t len, const uint32_t *ids,
                      size_t n_ids)
{
    (void)answer;
    return on_text(arg, text, len, ids, n_ids);
}

static void on_done(void *arg, int err, const struct gist_result *result)
{
    (void)arg;
    require(err < 0 || result != NULL, "a result where it went well"); /* or was cut */
    if (result)
        see(result, sizeof(*result));
    side.n_open--;
}

static void on_logprob(void *arg, const struct gist_logprob *token)
{
    (void)arg;
    see(token->top_ids, token->n_top * sizeof(*token->top_ids));
    see(token->top_logprobs, token->n_top * sizeof(*token->top_logprobs));
}

static void on_choices(void *arg, int err, const struct gist_choices *choices)
{
    (void)arg;
    require((err == 0) == (choices != NULL), "choices where it went well");
    for (size_t i = 0; choices && i < choices->n; i++)
        see(choices->choices[i].logprobs, choices->choices[i].n * sizeof(float));
    side.n_open--;
}

static void on_embeddings(void *arg, int err, const struct gist_embeddings *e)
{
    (void)arg;
    require((err == 0) == (e != NULL), "embeddings where it went well");
    if (e)
        see(e->vectors, e->n * e->n_embd * sizeof(float));
    side.n_open--;
}

static int on_stats(void *arg, const struct gist_stats *s)
{
    (void)arg;
    see(s->version, strlen(s->version));
    for (uint32_t i = 0; i < s->n_clients; i++) {
        see(s->clients[i].name, strlen(s->clients[i].name));
        see(s->clients[i].unit, strlen(s->clients[i].unit));
    }
    for (uint32_t i = 0; i < s->n_sessions; i++) {
        see(s->sessions[i].label, strlen(s->sessions[i].label));
        see(s->sessions[i].unit, strlen(s->sessions[i].unit));
    }
    see(s->owners, s->n_owners * sizeof(*s->owners));
    return 0;
}

static int on_cache(void *arg, const struct gist_cache_row *rows, size_t n,
                    const struct gist_cache_sum *so_far)
{
    (void)arg;
    see(rows, n * sizeof(*rows));
    see(so_far, so_far ? sizeof(*so_far) : 0);
    return 0;
}

static void on_cache_done(void *arg, int err, const struct gist_cache_sum *sum)
{
    (void)arg, (void)err;
    see(sum, sum ? sizeof(*sum) : 0);
    side.n_open--;
}

static int on_row(void *arg, const struct gist_row *row)
{
    (void)arg;
    see(row->name, strlen(row->name));
    see(row->label, strlen(row->label));
    return 0;
}

static int on_rows(void *arg, size_t first, size_t n, uint32_t n_vocab, const float *rows)
{
    (void)arg, (void)first;
    see(rows, n * n_vocab * sizeof(*rows));
    return 0;
}

static void on_trace(void *arg, const struct gist_trace_row *rows, size_t n)
{
    (void)arg;
    for (size_t i = 0; i < n; i++)
        see(rows[i].what, strlen(rows[i].what));
}

/* A text that is long enough for several parts. */
static const char *text_of(size_t n)
{
    static char text[1 << 18];

    if (!text[0])
        for (size_t i = 0; i < sizeof(text); i++)
            text[i] = words[i % (sizeof(words) - 1)];
    require(n <= sizeof(text), "it is that long");
    return text;
}

static void begins(int err)
{
    if (err == 0)
        side.n_open++;
}

static void generate(uint16_t number)
{
    static const char *const stops[] = { "mat", "cat" };
    struct gist_sampling o = { .size = sizeof(o),
                               .max_tokens = number & 63,
                               .stop = stops,
                               .n_stop = number >> 6 & 1,
                               .flags = number & 128 ? GIST_SET_LOGPROBS : 0,
                               .logprobs = number >> 8 & 3,
                               .on_logprob = number & 128 ? on_logprob : NULL };

    if (number & 1024) {
        o.grammar = GIST_GBNF;
        o.grammar_text = "root ::= \"a\"*";
        o.grammar_len = strlen(o.grammar_text);
    }
    if (number & 2048)
        begins(gist_generate_several_start(side.session, &o, number >> 12 & 3, on_answers, NULL,
                                           on_done, NULL, NULL));
    else if (number & 4096)
        (void)gist_generate(side.session, &o, on_text, NULL, NULL);
    else
        begins(gist_generate_start(side.session, &o, on_text, on_done, NULL, NULL));
}

static void append(uint16_t number)
{
    const struct gist_message m[] = { { "user", words }, { "assistant", "" } };
    const uint32_t ids[] = { 1, 2, 3, 4, 5 };

    if (number % 4 == 0)
        begins(gist_append_chat_start(side.session, m, 1 + (number >> 2 & 1), GIST_OPEN_ANSWER,
                                      on_done, NULL, NULL));
    else if (number % 4 == 1)
        begins(gist_append_tokens_start(side.session, ids, 1 + (number >> 2) % 5, on_done, NULL,
                                        NULL));
    else if (number % 4 == 2)
        begins(gist_append_text_start(side.session, text_of(4u * number), 4u * number, 0, on_done,
                                      NULL, NULL));
    else
        (void)gist_append_text(side.session, text_of(number), number, 0, NULL);
}

static void spans(uint16_t number)
{
    const struct gist_span two[] = { { words, 5 + number % 20 }, { words, 7 } };
    struct gist_choices *choices;
    struct gist_embeddings *embeddings;

    switch (number % 4) {
    case 0:
        begins(gist_score_choices_start(side.session, two, 2, 0, on_choices, NULL, NULL));
        break;
    case 1:
        begins(gist_embed_start(side.conn, two, 2, NULL, on_embeddings, NULL, NULL));
        break;
    case 2:
        if (gist_score_choices(side.session, two, 2, 0, &choices) == 0)
            gist_choices_free(choices);
        break;
    default:
        if (gist_embed(side.conn, two, 2, NULL, &embeddings) == 0)
            gist_embeddings_free(embeddings);
    }
}

static void without_session(uint16_t number)
{
    struct gist_score score;
    struct gist_stats stats;
    struct gist_segments segments;
    const uint32_t some[] = { 1, 2, 3 };
    uint32_t *ids;
    char *text;
    size_t n;

    switch (number % 8) {
    case 0:
        if (gist_tokenize(side.conn, words, sizeof(words) - 1, 0, &ids, &n) == 0) {
            see(ids, n * sizeof(*ids));
            free(ids);
        }
        break;
    case 1:
        if (gist_detokenize(side.conn, some, 3, &text, &n) == 0) {
            see(text, n);
            free(text);
        }
        break;
    case 2:
        if (gist_score_text(side.conn, words, 20, NULL, &score) == 0) {
            see(score.ids, score.n * sizeof(*score.ids));
            see(score.logprobs, score.n * sizeof(*score.logprobs));
            free(score.ids);
            free(score.logprobs);
        }
        break;
    case 3:
        (void)gist_score_logits(side.conn, some, 3, NULL, on_rows, NULL);
        break;
    case 4:
        if (gist_stats(side.conn, &stats) == 0)
            (void)on_stats(NULL, &stats);
        break;
    case 5:
        if (gist_segments(side.conn, 1, 0, &segments) == 0)
            see(segments.at, segments.n * sizeof(*segments.at));
        break;
    case 6:
        (void)gist_trace(side.conn, number >> 3, on_trace, NULL);
        break;
    default:
        (void)gist_list(side.conn, number >> 3 & 1, on_row, NULL);
    }
}

static void session_call(uint16_t number)
{
    gist_session *s;

    switch (number % 6) {
    case 0:
        if (gist_fork(side.session, "fork", &s) == 0)
            gist_close(s);
        break;
    case 1:
        (void)gist_rewind(side.session, number >> 3);
        break;
    case 2:
        (void)gist_save(side.session, "name", 0);
        break;
    case 3:
        if (gist_restore(side.conn, "name", NULL, &s) == 0)
            gist_close(s);
        break;
    case 4:
        if (gist_open(side.conn, NULL, &s) == 0)
            gist_close(s);
        break;
    default:
        (void)gist_delete(side.conn, GIST_DOCUMENTS, "name");
    }
}

/* What goes on without anybody waiting. */
static void long_call(uint16_t number)
{
    switch (number % 4) {
    case 0:
        begins(gist_watch_start(side.conn, 0, on_stats, on_done, NULL, NULL));
        break;
    case 1:
        begins(gist_document_add_start(side.conn, "name", words, sizeof(words) - 1, NULL, on_done,
                                       NULL, NULL));
        break;
    case 2:
        begins(gist_cache_start(side.conn, GIST_CACHE_LIST, NULL, on_cache, on_cache_done, NULL,
                                NULL));
        break;
    default:
        (void)gist_cancel(side.conn, number >> 2);
    }
}

static void program_calls(uint8_t what, uint16_t number)
{
    if (side.inside || !side.session)
        return;
    side.inside = true;
    switch (what % 8) {
    case 0:
        append(number);
        break;
    case 1:
        generate(number);
        break;
    case 2:
        spans(number);
        break;
    case 3:
        without_session(number);
        break;
    case 4:
        session_call(number);
        break;
    case 5:
        long_call(number);
        break;
    case 6:
        gist_cancel_async(side.conn);
        (void)gist_ping(side.conn);
        break;
    default:
        (void)gist_fd(side.conn);
    }
    side.inside = false;
}

/* What a daemon says at first: the script's frames come behind it. */
static void say(struct wire_rep rep)
{
    static struct wire_scratch scratch;
    uint8_t buf[1024], *frame = NULL, *bulk;
    size_t len = 0;

    require(scratch.mem || wire_scratch_open(&scratch, WIRE_SCRATCH_BYTES) == 0, "memory");
    rep.last = true;
    require(wire_rep_pack(&scratch, &rep, buf, sizeof(buf), &len) == 0 &&
                chan_reserve(side.server, (uint32_t)len, 0, &frame, &bulk) == 0,
            "it is said");
    memcpy(frame, buf, len);
    chan_commit(side.server);
}

static void begin_as_daemon(const uint8_t *data, size_t len)
{
    struct wire_rep welcome = { .id = 1, .kind = WIRE_WELCOME }, opened = { .id = 2 };

    require(chan_create(&geometry, &side.server) == 0, "a channel");
    welcome.u.welcome.version = "0";
    welcome.u.welcome.model = welcome.u.welcome.model_digest = "model";
    welcome.u.welcome.n_vocab = 64;
    welcome.u.welcome.chat = welcome.u.welcome.outputs = welcome.u.welcome.several = true;
    say(welcome);
    opened.kind = WIRE_SESSION_OPENED;
    opened.u.session_opened.session = 1;
    say(opened);
    ring_foe_open(&side.foe, side.server, &geometry, data, len);
    side.foe.is_daemon = true;
    side.foe.sent = 2;
    side.foe.call = program_calls;
}

static void fuzz(const uint8_t *data, size_t len)
{
    side.daemons_end = -1;
    side.session = NULL;
    side.n_open = 0;
    begin_as_daemon(data, len);
    ring_foe_acting = &side.foe;
    if (gist_connect("", "fuzz", &side.conn) == 0 &&
        gist_open(side.conn, NULL, &side.session) == 0) {
        while (!ring_foe_done(ring_foe_acting)) {
            ring_foe_acting->looks = 0;
            ring_foe_now(FOE_LOOK);
            side.inside = true;
            (void)gist_dispatch(side.conn);
            side.inside = false;
        }
    }
    ring_foe_acting = NULL;
    (void)shutdown(side.daemons_end, SHUT_RDWR);
    if (side.session) {
        for (int i = 0; i < 4 && gist_dispatch(side.conn) >= 0; i++)
            ;
        gist_disconnect(side.conn);
        require(side.n_open == 0, "each request has ended once");
    } else if (side.conn) {
        gist_disconnect(side.conn);
    }
    side.conn = NULL;
    ring_foe_close(&side.foe);
    chan_close(side.server);
    side.server = NULL;
    if (side.daemons_end >= 0)
        close(side.daemons_end);
}

/* --- handshakes ------------------------------------------------------------------------------- */

/* Packets for who connects: [u8 descriptors: how many, and which] [u16 length] [bytes]. */
static struct {
    const uint8_t *at, *end;
    int memfd; /* as long as it was promised, but anybody may cut it */
} packets;

static void send_packet(int sock)
{
    uint8_t how = *packets.at++;
    size_t left = (size_t)(packets.end - packets.at), n;
    int some[] = { packets.memfd, 0, packets.memfd, sock, 0 };
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(some))];
    } ctl = { 0 };
    struct iovec io;
    struct msghdr mh = { .msg_iov = &io, .msg_iovlen = 1 };
    size_t n_fds = how % 6;

    n = left < 2 ? 0 : packets.at[0] | packets.at[1] << 8;
    packets.at += left < 2 ? left : 2;
    left = (size_t)(packets.end - packets.at);
    n = n < left ? n : left;
    io = (struct iovec){ (void *)(uintptr_t)packets.at, n };
    packets.at += n;
    if (n_fds > 0) {
        struct cmsghdr *h;

        mh.msg_control = ctl.buf;
        mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        h = CMSG_FIRSTHDR(&mh);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(h), some, n_fds * sizeof(int));
    }
    (void)!sendmsg(sock, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int __real_connect(int sock, const struct sockaddr *addr, socklen_t len);
int __wrap_connect(int sock, const struct sockaddr *addr, socklen_t len);
int __wrap_connect(int sock, const struct sockaddr *addr, socklen_t len)
{
    int pair[2];

    if (!packets.at)
        return __real_connect(sock, addr, len);
    require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0, "a socket");
    for (int i = 0; i < 3 && packets.at < packets.end; i++)
        send_packet(pair[1]);
    (void)shutdown(pair[1], SHUT_WR);
    require(dup2(pair[0], sock) == sock, "it is connected");
    close(pair[0]);
    close(pair[1]);
    return 0;
}

static int on_loading(void *arg, unsigned percent)
{
    (void)arg;
    require(percent <= 100, "a percentage");
    return percent == 77;
}

static size_t len_of(const struct chan_geometry *g)
{
    return 64 + 2 * RING_BYTES(g->slots) + g->arena_c2s + (size_t)g->arena_s2c;
}

/* A channel that comes of it has to be sealed and as long as promised. */
static void shake(const uint8_t *data, size_t len)
{
    struct handshake_wait wait = { .timeout_ms = 1000, .on_loading = on_loading };
    struct chan *c = NULL;
    char text[256];
    int sock = -1, e;

    packets.at = data + (len > 0);
    packets.end = data + len;
    packets.memfd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    require(packets.memfd >= 0 && ftruncate(packets.memfd, (off_t)len_of(&geometry)) == 0,
            "a file");
    if (len > 0 && data[0] & 1)
        (void)fcntl(packets.memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    e = __real_handshake_connect("somewhere", NULL, &wait, &sock, &c, text);
    require((e == 0) == (c != NULL) && (e == 0) == (sock >= 0), "both or none");
    require(e == 0 || text[0], "a sentence");
    if (c) {
        require(fcntl(chan_fds(c).memfd, F_GET_SEALS) & F_SEAL_SHRINK, "nobody can cut it");
        chan_close(c);
        close(sock);
    }
    close(packets.memfd);
    packets.at = NULL;
}

/* --- seeds ------------------------------------------------------------------------------------ */

static struct foe_script script;
static struct wire_scratch seeds;
static uint64_t seed_id;

static void begin_seed(void)
{
    script.len = 0;
    script.bytes[script.len++] = 0;
}

#define OP(op, m, bytes) foe_script_op(&script, op, m, bytes, sizeof(bytes) - 1)

static void add_rep(struct wire_rep m, bool last, const char *bulk, uint16_t bulk_len)
{
    static uint8_t frame[CHAN_FRAME_MAX];
    size_t len;

    m.id = seed_id;
    m.bulk_len = bulk_len;
    m.last = last;
    require(wire_rep_pack(&seeds, &m, frame, sizeof(frame), &len) == 0, "a seed");
    foe_script_frame(&script, frame, len, bulk, bulk_len);
}

static void end_seed(const char *dir, const char *name)
{
    fuzz_seeds_put(dir, name, script.bytes, script.len);
}

static void put_library_seeds(const char *dir)
{
    struct wire_rep text = { .kind = WIRE_TEXT }, done = { .kind = WIRE_DONE };
    static const uint32_t ids[] = { 5, 6 };

    begin_seed();
    OP(FOE_CALL, FOE_LOOK, "\x00\x01\x00"); /* 3: ids are appended */
    seed_id = 3;
    add_rep((struct wire_rep){ .kind = WIRE_APPENDED, .u.appended.n_tokens = 2 }, true, "", 0);
    OP(FOE_CALL, FOE_LOOK, "\x01\x14\x00"); /* 4: an answer */
    seed_id = 4;
    text.u.text.n_tokens = text.u.text.n_ids = 2;
    text.u.text.text = "hello";
    text.u.text.tokens = ids;
    add_rep(text, false, "", 0);
    add_rep(text, false, "", 0);
    add_rep(done, true, "", 0);
    OP(FOE_CALL, FOE_LOOK, "\x07\x00\x00");
    end_seed(dir, "library");

    begin_seed();
    OP(FOE_CALL, FOE_LOOK, "\x03\x00\x00"); /* 3: tokenize, which waits */
    seed_id = 3;
    add_rep((struct wire_rep){ .kind = WIRE_TOKENS, .u.tokens.n = 2 }, true, "\1\2\3\4", 8);
    OP(FOE_CALL, FOE_LOOK, "\x03\x04\x00"); /* 4: Stats */
    seed_id = 4;
    add_rep((struct wire_rep){ .kind = WIRE_STATS }, true, "", 0);
    OP(FOE_CALL, FOE_LOOK, "\x03\x02\x00"); /* 5: a score */
    seed_id = 5;
    add_rep((struct wire_rep){ .kind = WIRE_SCORE_ROWS, .u.score_rows = { 0, 2, 64 } }, false,
            "\1\2\3\4", 16);
    add_rep(done, true, "", 0);
    OP(FOE_CALL, FOE_LOOK, "\x06\x00\x00"); /* 6: a ping that is cancelled */
    seed_id = 6;
    add_rep((struct wire_rep){ .kind = WIRE_PONG }, true, "", 0);
    OP(FOE_WORD, FOE_PEEKED, "\x05\x04\xff\xff\xff\x7f");
    OP(FOE_GONE, FOE_LOOK, "");
    end_seed(dir, "waits");
}

static void put_handshake_seed(const char *dir)
{
    struct handshake_answer a = { .magic = HANDSHAKE_MAGIC,
                                  .version = HANDSHAKE_VERSION,
                                  .slots = geometry.slots,
                                  .arena_c2s = geometry.arena_c2s,
                                  .arena_s2c = geometry.arena_s2c };
    uint8_t bytes[2 + 2 * (3 + sizeof(a))] = { 1, 1 /* sealed */ }, *p = bytes + 2;

    for (int i = 0; i < 2; i++) {
        a.status = i == 0 ? HANDSHAKE_LOADING : HANDSHAKE_OK;
        *p++ = i == 0 ? 0 : 3;
        *p++ = (uint8_t)sizeof(a);
        *p++ = (uint8_t)(sizeof(a) >> 8);
        memcpy(p, &a, sizeof(a));
        p += sizeof(a);
    }
    fuzz_seeds_put(dir, "answers", bytes, sizeof(bytes));
}

/* ---------------------------------------------------------------------------------------------- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *dir = fuzz_seeds_dir(*argc, *argv);

    if (!dir)
        return 0;
    require(wire_scratch_open(&seeds, WIRE_SCRATCH_BYTES) == 0, "memory");
    put_library_seeds(dir);
    put_handshake_seed(dir);
    wire_scratch_close(&seeds);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len == 0)
        return 0;
    if (data[0] & 1)
        shake(data + 1, len - 1);
    else
        fuzz(data + 1, len - 1);
    return 0;
}
