/* ipc/wire_text.c - Text: a piece of an answer, its ids, and what the model thought of them. */
#include "ipc/wire_pb.h"

#include <errno.h>

void wire_build_text(const struct wire_rep *r, Gistd__Text *m)
{
    gistd__text__init(m);
    m->n_tokens = r->u.text.n_tokens;
    m->text = wire_str(r->u.text.text);
    m->ids = (uint32_t *)(uintptr_t)r->u.text.tokens;
    m->n_ids = r->u.text.n_ids;
    m->index = r->u.text.index;
    if (!r->u.text.logprobs)
        return;
    m->logprobs = (float *)(uintptr_t)r->u.text.logprobs;
    m->n_logprobs = r->u.text.n_ids;
    m->n_top = r->u.text.n_top;
    m->top_ids = (uint32_t *)(uintptr_t)r->u.text.top_ids;
    m->top_logprobs = (float *)(uintptr_t)r->u.text.top_logprobs;
    m->n_top_ids = m->n_top_logprobs = (size_t)r->u.text.n_ids * r->u.text.n_top;
}

/* Lists that belong together have their lengths, or the frame is none of ours. */
int wire_read_text(const Gistd__Text *m, struct wire_rep *r)
{
    size_t n_top = m->n_ids * (uint64_t)m->n_top;

    r->u.text.n_tokens = m->n_tokens;
    r->u.text.text = m->text;
    r->u.text.tokens = m->ids;
    r->u.text.n_ids = (uint32_t)m->n_ids;
    r->u.text.index = m->index;
    r->u.text.logprobs = NULL;
    r->u.text.n_top = 0;
    r->u.text.top_ids = NULL;
    r->u.text.top_logprobs = NULL;
    if (m->n_logprobs == 0)
        return m->n_top == 0 && m->n_top_ids == 0 && m->n_top_logprobs == 0 ? 0 : -EBADMSG;
    if (m->n_logprobs != m->n_ids || m->n_top_ids != n_top || m->n_top_logprobs != n_top)
        return -EBADMSG;
    r->u.text.logprobs = m->logprobs;
    r->u.text.n_top = m->n_top;
    r->u.text.top_ids = m->top_ids;
    r->u.text.top_logprobs = m->top_logprobs;
    return 0;
}
