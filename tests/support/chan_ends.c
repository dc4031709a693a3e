#include "tests/support/chan_ends.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct chan_fds ends_dup_fds(const struct chan *c)
{
    struct chan_fds f = chan_fds(c);

    return (struct chan_fds){ fcntl(f.memfd, F_DUPFD_CLOEXEC, 3),
                              fcntl(f.to_server, F_DUPFD_CLOEXEC, 3),
                              fcntl(f.to_client, F_DUPFD_CLOEXEC, 3) };
}

struct ends ends_open(const struct chan_geometry *g)
{
    struct ends e;

    assert_int_equal(chan_create(g, &e.server), 0);
    assert_int_equal(chan_attach(g, ends_dup_fds(e.server), &e.client), 0);
    return e;
}

void ends_close(struct ends *e)
{
    chan_close(e->client);
    chan_close(e->server);
}

int ends_send(struct chan *c, const char *frame, const char *bulk)
{
    uint8_t *f, *b;
    int r = chan_reserve(c, (uint32_t)strlen(frame), (uint32_t)strlen(bulk), &f, &b);

    if (r < 0)
        return r;
    memcpy(f, frame, strlen(frame));
    memcpy(b, bulk, strlen(bulk));
    chan_commit(c);
    return 0;
}

void ends_expect(struct chan *c, const char *frame, const char *bulk)
{
    struct chan_msg m;

    assert_int_equal(chan_recv(c, &m), 0);
    assert_int_equal(m.frame_len, strlen(frame));
    assert_memory_equal(m.frame, frame, m.frame_len);
    assert_int_equal(m.bulk_len, strlen(bulk));
    assert_memory_equal(m.bulk ? m.bulk : (const uint8_t *)"", bulk, m.bulk_len);
    chan_release(c);
}
