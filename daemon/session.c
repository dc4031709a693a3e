#include "daemon/session.h"

#include "daemon/backend.h"
#include "daemon/client.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int session_new(struct backend *b, struct client *c, uint64_t id, uint32_t segment,
                struct session **ret)
{
    struct session *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return -ENOMEM;
    s->client = c;
    s->id = id;
    s->chat_at = CHAT_AT_START;
    s->row = malloc(b->model->n_vocab * sizeof(float));
    r = s->row ? seq_open(&s->seq, &b->pool, &c->account, b->context_max, segment, 0) : -ENOMEM;
    if (r < 0) {
        session_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

void session_free(struct session *s)
{
    if (!s)
        return;
    seq_close(&s->seq);
    encode_text_fini(&s->text);
    free(s->row);
    free(s);
}

uint32_t session_len(const struct session *s)
{
    return s->seq.n_tokens + s->has_pending;
}

void session_truncate(struct session *s, uint32_t n)
{
    assert(n <= session_len(s));
    if (n == session_len(s) && (s->has_pending || s->row_valid))
        return;
    s->row_valid = false;
    s->has_pending = n > 0;
    if (n > 0)
        s->pending = s->seq.tokens[n - 1];
    seq_rewind(&s->seq, n > 0 ? n - 1 : 0);
}
