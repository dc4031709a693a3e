#include "tests/support/raw_client.h"

#include "ipc/handshake.h"

#include <assert.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 60000

static void wait_for(struct raw_client *c, bool for_room)
{
    int r = chan_wait(c->chan, for_room, c->sock, -1, 0, PATIENCE_MS);

    assert(r == 0);
}

void raw_client_open(struct raw_client *c, const char *socket)
{
    raw_client_open_with(c, socket, NULL);
}

void raw_client_open_with(struct raw_client *c, const char *socket,
                          const struct chan_geometry *want)
{
    struct wire_req hello = { .kind = WIRE_HELLO, .u.hello.client = "raw" };
    char text[256];
    int r;

    *c = (struct raw_client){ .sock = -1 };
    r = handshake_connect(socket, want, &(struct handshake_wait){ .timeout_ms = PATIENCE_MS },
                          &c->sock, &c->chan, text);
    assert(r == 0);
    r = wire_scratch_open(&c->out, WIRE_SCRATCH_BYTES);
    assert(r == 0);
    r = wire_scratch_open(&c->in, WIRE_SCRATCH_BYTES);
    assert(r == 0);
    (void)raw_client_ask(c, hello, NULL, 0, NULL);
    assert(c->rep.kind == WIRE_WELCOME);
}

void raw_client_close(struct raw_client *c)
{
    chan_close(c->chan);
    wire_scratch_close(&c->out);
    wire_scratch_close(&c->in);
    if (c->sock >= 0)
        (void)close(c->sock);
    *c = (struct raw_client){ .sock = -1 };
}

int raw_client_put(struct chan *c, struct wire_scratch *scratch, const struct wire_req *req,
                   const void *bulk)
{
    uint8_t *frame, *to;
    size_t len;
    int r = wire_req_pack(scratch, req, NULL, 0, &len);

    assert(r == 0);
    r = chan_reserve(c, (uint32_t)len, (uint32_t)req->bulk_len, &frame, &to);
    if (r < 0)
        return r;
    r = wire_req_pack(scratch, req, frame, len, &len);
    assert(r == 0);
    if (bulk)
        memcpy(to, bulk, req->bulk_len);
    chan_commit(c);
    return 0;
}

uint64_t raw_client_send(struct raw_client *c, struct wire_req req, const void *bulk, uint32_t len)
{
    int r;

    req.id = ++c->last_id;
    req.bulk_len = len;
    while ((r = raw_client_put(c->chan, &c->out, &req, bulk)) == -EAGAIN)
        wait_for(c, true);
    assert(r == 0);
    return req.id;
}

const struct wire_rep *raw_client_wait(struct raw_client *c, uint64_t id, uint64_t *ret_bulk_len)
{
    uint64_t sum = 0;
    struct chan_msg msg;
    int r;

    do {
        while ((r = chan_recv(c->chan, &msg)) == -EAGAIN)
            wait_for(c, false);
        assert(r == 0);
        r = wire_rep_unpack(&c->in, msg.frame, msg.frame_len, &c->rep);
        assert(r == 0);
        chan_release(c->chan);
        if (c->rep.id == id)
            sum += c->rep.bulk_len;
    } while (c->rep.id != id || !c->rep.last);
    if (ret_bulk_len)
        *ret_bulk_len = sum;
    return &c->rep;
}

const struct wire_rep *raw_client_ask(struct raw_client *c, struct wire_req req, const void *bulk,
                                      uint32_t len, uint64_t *ret_bulk_len)
{
    return raw_client_wait(c, raw_client_send(c, req, bulk, len), ret_bulk_len);
}

void raw_client_refused(const struct wire_rep *rep, enum wire_error code, const char *text)
{
    if (rep->kind != WIRE_ERROR || rep->u.error.code != code || !strstr(rep->u.error.text, text))
        fail_msg("found reply %d, %s: %s; expected %s with \"%s\"", (int)rep->kind,
                 rep->kind == WIRE_ERROR ? wire_error_name(rep->u.error.code) : "",
                 rep->kind == WIRE_ERROR ? rep->u.error.text : "", wire_error_name(code), text);
}
