/* client/gist_kept.c - sessions that outlive their connection. */
#include "client/gist_open.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(GIST_TOKEN_BYTES == WIRE_TOKEN_BYTES, "a token is copied");

static int refuse(gist_conn *c)
{
    return gist_set_error(c, GIST_E_UNSUPPORTED, -ENOTSUP,
                          "gistd %s keeps no sessions for clients that come back: it is older than "
                          "this program, or was started with --detach-seconds 0",
                          c->info.version);
}

/* The caller's struct, which says how much of ours he knows. */
static void copy_out(void *ret, const void *from, size_t len)
{
    size_t size;

    if (!ret)
        return;
    memcpy(&size, ret, sizeof(size));
    gist_copy_out(ret, size, from, len);
    memcpy(ret, &size, sizeof(size));
}

/* --- keep ------------------------------------------------------------------------------------- */

static int keep_kept(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)bulk;
    if (rep->kind != WIRE_KEPT || !rep->last || rep->u.kept.n != GIST_TOKEN_BYTES)
        return -EPROTO;
    r->kept = (struct gist_kept){ .size = sizeof(r->kept),
                                  .seconds = rep->u.kept.seconds,
                                  .bytes = rep->u.kept.bytes };
    memcpy(r->kept.token, rep->u.kept.token, GIST_TOKEN_BYTES);
    return 0;
}

/* A dead connection is not asked what it knows: gist_run says that it is dead. */
static int make_keep(gist_session *s, uint32_t seconds, struct gist_request *ret)
{
    if (!s->conn->dead && s->conn->keep_seconds == 0)
        return refuse(s->conn);
    *ret = gist_request_make(s->conn, WIRE_KEEP);
    ret->msg.u.keep.session = s->id;
    ret->msg.u.keep.seconds = seconds;
    ret->on_reply = keep_kept;
    return 0;
}

int gist_keep(gist_session *s, uint32_t seconds, struct gist_kept *ret_kept)
{
    struct gist_request r;
    int err = make_keep(s, seconds, &r);

    if (err == 0)
        err = gist_run(&r, -1);
    if (err == 0)
        copy_out(ret_kept, &r.kept, sizeof(r.kept));
    return err;
}

/* The callback's struct is the request's: it is gone when the callback returns. */
static void tell_kept(struct gist_request *r, int err)
{
    r->end.kept(r->arg, err, err == 0 ? &r->kept : NULL);
}

int gist_keep_start(gist_session *s, uint32_t seconds, gist_kept_fn *on_kept, void *arg,
                    uint64_t *ret_request)
{
    struct gist_request r;
    int err = on_kept ? make_keep(s, seconds, &r) : gist_set_errno(s->conn, -EINVAL);

    if (err < 0)
        return err;
    r.end.kept = on_kept;
    r.tell = tell_kept;
    r.arg = arg;
    return gist_submit(&r, ret_request);
}

/* --- attach ----------------------------------------------------------------------------------- */

static int keep_attached(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    const struct wire_attached *a = &rep->u.attached;

    (void)bulk;
    if (rep->kind != WIRE_ATTACHED || !rep->last)
        return -EPROTO;
    r->session = a->session;
    r->attached = (struct gist_attached){ .size = sizeof(r->attached),
                                          .n_tokens = a->n_tokens,
                                          .answers = a->answers,
                                          .first = a->first,
                                          .unread = a->unread,
                                          .written = a->written,
                                          .seconds = a->seconds };
    return 0;
}

/* A session that this connection has already comes back as the same one. r->opening is then left
 * over, and is freed where the request ends. */
static gist_session *take(struct gist_request *r)
{
    gist_session *s = r->conn->sessions;

    while (s && s->id != r->session)
        s = s->next;
    return s ? s : gist_adopt(r);
}

static int make_attach(gist_conn *c, const unsigned char *token, const char *realm,
                       struct gist_request *ret)
{
    int err = token ? gist_usable(c) : gist_set_errno(c, -EINVAL);

    if (err < 0)
        return err;
    if (c->keep_seconds == 0)
        return refuse(c);
    *ret = gist_request_make(c, WIRE_ATTACH);
    ret->msg.u.attach = (struct wire_attach){ token, GIST_TOKEN_BYTES, realm };
    ret->on_reply = keep_attached;
    return gist_make_room(ret);
}

int gist_attach(gist_conn *c, const unsigned char *token, const char *realm,
                gist_session **ret_session, struct gist_attached *ret_attached)
{
    struct gist_request r;
    int err = make_attach(c, token, realm, &r);

    if (err < 0)
        return err;
    err = gist_run(&r, -1);
    if (err == 0) {
        *ret_session = take(&r);
        copy_out(ret_attached, &r.attached, sizeof(r.attached));
    }
    free(r.opening);
    return err;
}

static void tell_attached(struct gist_request *r, int err)
{
    r->end.attached(r->arg, err, err == 0 ? take(r) : NULL, err == 0 ? &r->attached : NULL);
}

int gist_attach_start(gist_conn *c, const unsigned char *token, const char *realm,
                      gist_attached_fn *on_attached, void *arg, uint64_t *ret_request)
{
    struct gist_request r;
    int err = on_attached ? make_attach(c, token, realm, &r) : gist_set_errno(c, -EINVAL);

    if (err < 0)
        return err;
    r.end.attached = on_attached;
    r.tell = tell_attached;
    r.arg = arg;
    err = gist_submit(&r, ret_request);
    if (err < 0)
        free(r.opening);
    return err;
}

/* --- resume ----------------------------------------------------------------------------------- */

/* First how many answers there are, then what of them was not read yet, as a Generate would bring
 * it. */
static int keep_resumed(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    if (rep->kind != WIRE_RESUMED)
        return gist_keep_answer(r, rep, bulk);
    if (rep->last)
        return -EPROTO;
    r->n_answers = rep->u.resumed.answers;
    if (r->on_resumed && !r->err)
        r->on_resumed(r->arg, rep->u.resumed.first);
    return 0;
}

static int make_resume(gist_session *s, const struct gist_resume *how, struct gist_request *ret)
{
    struct gist_resume p;
    int err = gist_copy_sized(&p, sizeof(p), how);

    if (err == 0 && p.flags & ~GIST_SET_FROM)
        err = -EINVAL;
    if (err < 0)
        return gist_set_errno(s->conn, err);
    if (!s->conn->dead && s->conn->keep_seconds == 0)
        return refuse(s->conn);
    *ret = gist_request_make(s->conn, WIRE_RESUME);
    ret->msg.u.resume =
        (struct wire_resume){ s->id, p.from != 0 || p.flags & GIST_SET_FROM, p.from };
    ret->on_reply = keep_resumed;
    ret->on_resumed = p.on_resumed;
    ret->on_answer = p.on_answer;
    ret->on_logprob = p.on_logprob;
    return 0;
}

int gist_resume(gist_session *s, const struct gist_resume *how, gist_answers_fn *on_text, void *arg,
                struct gist_result *ret_result)
{
    struct gist_request r;
    int err = make_resume(s, how, &r);

    if (err < 0)
        return err;
    r.on_answers = on_text;
    r.arg = arg;
    err = gist_run(&r, -1); /* on_text may have closed s */
    if (err == 0 || r.cut)
        gist_copy_out(ret_result, r.conn->sizes.result, &r.result, sizeof(r.result));
    return err;
}

int gist_resume_start(gist_session *s, const struct gist_resume *how, gist_answers_fn *on_text,
                      gist_done_fn *on_done, void *arg, uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_resume(s, how, &r);

    if (err < 0)
        return err;
    r.on_answers = on_text;
    return gist_start(&r, on_done, arg, ret_request);
}
