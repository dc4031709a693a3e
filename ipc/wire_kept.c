#include "ipc/wire_pb.h"

/* protobuf-c's structs have no const; packing only reads. */
static ProtobufCBinaryData bytes(const uint8_t *p, uint32_t n)
{
    return (ProtobufCBinaryData){ .len = n, .data = (uint8_t *)(uintptr_t)p };
}

void wire_build_keep(const struct wire_keep *k, Gistd__Keep *m)
{
    gistd__keep__init(m);
    m->session = k->session;
    m->seconds = k->seconds;
}

void wire_build_attach(const struct wire_attach *a, Gistd__Attach *m)
{
    gistd__attach__init(m);
    m->token = bytes(a->token, a->n);
    m->realm = wire_str(a->realm);
}

void wire_build_resume(const struct wire_resume *r, Gistd__Resume *m)
{
    gistd__resume__init(m);
    m->session = r->session;
    if (r->has_from)
        m->has_from_case = GISTD__RESUME__HAS_FROM_FROM;
    m->from = r->from;
}

/* A place of 0 is the beginning; none at all means "where I stopped". */
struct wire_resume wire_read_resume(const Gistd__Resume *m)
{
    bool has = m->has_from_case == GISTD__RESUME__HAS_FROM_FROM;

    return (struct wire_resume){ m->session, has, has ? m->from : 0 };
}

void wire_build_kept(const struct wire_kept *k, Gistd__Kept *m)
{
    gistd__kept__init(m);
    m->token = bytes(k->token, k->n);
    m->seconds = k->seconds;
    m->bytes = k->bytes;
}

void wire_build_attached(const struct wire_attached *a, Gistd__Attached *m)
{
    gistd__attached__init(m);
    m->session = a->session;
    m->context_max = a->context_max;
    m->n_tokens = a->n_tokens;
    m->answers = a->answers;
    m->first = a->first;
    m->unread = a->unread;
    m->written = a->written;
    m->seconds = a->seconds;
}

void wire_read_attached(const Gistd__Attached *m, struct wire_attached *ret)
{
    *ret = (struct wire_attached){ .session = m->session,
                                   .context_max = m->context_max,
                                   .n_tokens = m->n_tokens,
                                   .answers = m->answers,
                                   .first = m->first,
                                   .unread = m->unread,
                                   .written = m->written,
                                   .seconds = m->seconds };
}
