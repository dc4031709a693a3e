/* client/gist_named.c - sessions and documents by name. */
#include "client/gist_open.h"

#include <errno.h>

/* --- sessions --------------------------------------------------------------------------------- */

static int expect_saved(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)r;
    (void)bulk;
    return rep->kind == WIRE_SAVED && rep->last ? 0 : -EPROTO;
}

static int make_save(gist_session *s, const char *name, unsigned flags, struct gist_request *ret)
{
    if (!name || flags & ~GIST_REPLACE)
        return gist_set_errno(s->conn, -EINVAL);
    *ret = gist_request_make(s->conn, WIRE_SAVE);
    ret->msg.u.save.session = s->id;
    ret->msg.u.save.name = name;
    ret->msg.u.save.replace = flags & GIST_REPLACE;
    ret->on_reply = expect_saved;
    return 0;
}

int gist_save(gist_session *s, const char *name, unsigned flags)
{
    struct gist_request r;
    int err = make_save(s, name, flags, &r);

    return err < 0 ? err : gist_run(&r, -1);
}

int gist_save_start(gist_session *s, const char *name, unsigned flags, gist_done_fn *on_done,
                    void *arg, uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_save(s, name, flags, &r);

    return err < 0 ? err : gist_start(&r, on_done, arg, ret_request);
}

static int keep_restored(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)bulk;
    if (rep->kind != WIRE_RESTORED || !rep->last)
        return -EPROTO;
    r->session = rep->u.restored.session;
    gist_copy_usage(&r->result.usage, &rep->u.restored.usage);
    return 0;
}

static int make_restore(gist_conn *c, const char *name, const char *label, struct gist_request *ret)
{
    if (!name)
        return gist_set_errno(c, -EINVAL);
    *ret = gist_request_make(c, WIRE_RESTORE);
    ret->msg.u.restore.name = name;
    ret->msg.u.restore.label = label;
    ret->on_reply = keep_restored;
    return 0;
}

int gist_restore(gist_conn *c, const char *name, const char *label, gist_session **ret_session)
{
    struct gist_request r;
    int err = make_restore(c, name, label, &r);

    return err < 0 ? err : gist_run_open(&r, ret_session);
}

int gist_restore_start(gist_conn *c, const char *name, const char *label,
                       gist_session_fn *on_session, void *arg, uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_restore(c, name, label, &r);

    return err < 0 ? err : gist_start_open(&r, on_session, arg, ret_request);
}

/* --- documents -------------------------------------------------------------------------------- */

/* While it is read replies in between say how far it is; the last one has the usage. */
static int keep_added(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)bulk;
    if (rep->kind != WIRE_DOCUMENT_ADDED)
        return -EPROTO;
    if (rep->last)
        gist_copy_usage(&r->result.usage, &rep->u.document_added.usage);
    else if (r->on_progress)
        r->on_progress(r->progress_arg, rep->u.document_added.n_read,
                       rep->u.document_added.n_tokens);
    return 0;
}

/* Flags that this library doesn't know are refused: a program may mean something by them that would
 * be passed over. With a chat template a document is a message, so that what comes behind it is a
 * chat. */
static int make_add(gist_conn *c, const char *name, const char *text, size_t len,
                    const struct gist_document *document, struct gist_request *ret)
{
    const unsigned known = GIST_PIN | GIST_PLAIN | GIST_REPLACE | GIST_PUBLIC | GIST_SET_SEGMENT;
    struct gist_request r = gist_request_make(c, WIRE_ADD_DOCUMENT);
    struct gist_document d;
    int err = gist_copy_sized(&d, sizeof(d), document);

    if (err == 0 && (!name || d.flags & ~known))
        err = -EINVAL;
    if (err == 0)
        err = gist_copy_memory(&r.msg.u.add_document.memory, d.memory);
    if (err < 0)
        return gist_set_errno(c, err);
    r.msg.u.add_document.name = name;
    r.msg.u.add_document.segment = d.segment;
    r.msg.u.add_document.has_segment = d.segment || d.flags & GIST_SET_SEGMENT;
    r.msg.u.add_document.priority =
        d.priority == GIST_BACKGROUND ? WIRE_BACKGROUND : WIRE_INTERACTIVE;
    r.msg.u.add_document.pin = d.flags & GIST_PIN;
    r.msg.u.add_document.replace = d.flags & GIST_REPLACE;
    r.msg.u.add_document.public_prefix = d.flags & GIST_PUBLIC;
    if (c->info.chat && !(d.flags & GIST_PLAIN)) {
        r.msg.u.add_document.kind = WIRE_APPEND_CHAT;
        r.msg.u.add_document.role = d.role ? d.role : "system";
    }
    r.bulk = (const uint8_t *)text;
    r.bulk_len = len;
    r.on_reply = keep_added;
    r.on_progress = d.on_progress;
    r.progress_arg = d.arg;
    *ret = r;
    return 0;
}

int gist_document_add(gist_conn *c, const char *name, const char *text, size_t len,
                      const struct gist_document *document, struct gist_usage *ret_usage)
{
    struct gist_request r;
    int err = make_add(c, name, text, len, document, &r);

    if (err < 0)
        return err;
    err = gist_run(&r, -1);
    if (err == 0)
        gist_copy_out(ret_usage, c->sizes.usage, &r.result.usage, sizeof(r.result.usage));
    return err;
}

/* The document's own arg is for those who wait: here both callbacks get the one of the call. */
int gist_document_add_start(gist_conn *c, const char *name, const char *text, size_t len,
                            const struct gist_document *document, gist_done_fn *on_done, void *arg,
                            uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_add(c, name, text, len, document, &r);

    if (err < 0)
        return err;
    r.progress_arg = arg;
    return gist_start(&r, on_done, arg, ret_request);
}

/* --- both ------------------------------------------------------------------------------------- */

/* A row and its strings lie in the reply, and are gone when the callback returns. */
static int give_rows(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)bulk;
    if (rep->kind != WIRE_LISTED)
        return -EPROTO;
    /* What comes behind a refusal was on its way, and is dropped. */
    for (uint32_t i = 0; i < rep->u.listed.n_rows && r->err == 0; i++) {
        const struct wire_row *w = &rep->u.listed.rows[i];
        const struct gist_row row = { .name = w->name,
                                      .label = w->label,
                                      .model = w->model,
                                      .state = (enum gist_state)w->state,
                                      .n_tokens = w->n_tokens,
                                      .n_read = w->n_read,
                                      .pinned = w->pinned,
                                      .kept = w->kept,
                                      .at_s = w->at_s,
                                      .bytes = w->bytes };

        if (r->on_row(r->arg, &row) == 0)
            continue;
        r->err = gist_set_error(r->conn, GIST_E_CANCELLED, -ECANCELED,
                                "the list was cancelled: its callback returned non-zero");
        if (!rep->last)
            gist_request_cancel(r);
    }
    return 0;
}

static int make_list(gist_conn *c, enum gist_named kind, gist_row_fn *on_row, void *arg,
                     struct gist_request *ret)
{
    if (!on_row || (unsigned)kind > GIST_DOCUMENTS)
        return gist_set_errno(c, -EINVAL);
    *ret = gist_request_make(c, WIRE_LIST);
    ret->msg.u.list.kind = kind == GIST_DOCUMENTS ? WIRE_NAMED_DOCUMENT : WIRE_NAMED_SESSION;
    ret->on_row = on_row;
    ret->on_reply = give_rows;
    ret->arg = arg;
    return 0;
}

int gist_list(gist_conn *c, enum gist_named kind, gist_row_fn *on_row, void *arg)
{
    struct gist_request r;
    int err = make_list(c, kind, on_row, arg, &r);

    return err < 0 ? err : gist_run(&r, -1);
}

int gist_list_start(gist_conn *c, enum gist_named kind, gist_row_fn *on_row, gist_done_fn *on_done,
                    void *arg, uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_list(c, kind, on_row, arg, &r);

    return err < 0 ? err : gist_start(&r, on_done, arg, ret_request);
}

static int expect_deleted(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk)
{
    (void)r;
    (void)bulk;
    return rep->kind == WIRE_DELETED && rep->last ? 0 : -EPROTO;
}

static int make_delete(gist_conn *c, enum gist_named kind, const char *name,
                       struct gist_request *ret)
{
    if (!name || (unsigned)kind > GIST_DOCUMENTS)
        return gist_set_errno(c, -EINVAL);
    *ret = gist_request_make(c, WIRE_DELETE);
    ret->msg.u.delete.kind = kind == GIST_DOCUMENTS ? WIRE_NAMED_DOCUMENT : WIRE_NAMED_SESSION;
    ret->msg.u.delete.name = name;
    ret->on_reply = expect_deleted;
    return 0;
}

int gist_delete(gist_conn *c, enum gist_named kind, const char *name)
{
    struct gist_request r;
    int err = make_delete(c, kind, name, &r);

    return err < 0 ? err : gist_run(&r, -1);
}

int gist_delete_start(gist_conn *c, enum gist_named kind, const char *name, gist_done_fn *on_done,
                      void *arg, uint64_t *ret_request)
{
    struct gist_request r;
    int err = make_delete(c, kind, name, &r);

    return err < 0 ? err : gist_start(&r, on_done, arg, ret_request);
}
