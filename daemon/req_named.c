/* daemon/req_named.c - Save, Restore, List, Delete: sessions, and documents, by name.
 *
 * Files are read and the store is asked in work(), between steps: start() may run between two
 * layers of one, and a disk is slow.
 */
#include "base/clock.h"
#include "daemon/append.h"
#include "daemon/named.h"
#include "daemon/opening.h"
#include "daemon/reply.h"
#include "daemon/sched.h"
#include "store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- Save ------------------------------------------------------------------------------------- */

struct save {
    uint32_t owner;
    char name[NAMES_MAX + 1];
    bool replace;
    struct names_put *put; /* NULL: not begun */
};

/* Only what a name can hold: ids and a policy. A private session leaves no trace, and several
 * documents side by side are no function of ids. */
static bool may_save(struct sched *s, struct request *r)
{
    const struct session *session = r->session;

    if (!s->served.store)
        request_fail(s, r, WIRE_E_STORAGE, REQUEST_NO_NUMBERS,
                     "the session cannot be saved: nothing is kept on disk: %.200s",
                     s->served.store_why.text);
    else if (session->memory.shared.keeps_nothing)
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "session %" PRIu64 " is private: nothing of it is kept, so it cannot be saved",
                     session->id);
    else if (!memory_exact(&session->memory))
        request_fail(s, r, WIRE_E_BAD_REQUEST, REQUEST_NO_NUMBERS,
                     "session %" PRIu64 " begins with several documents, each read alone, so it "
                     "cannot be saved: open another one with these documents",
                     session->id);
    else
        return true;
    return false;
}

/* The session is the request's until the disk has it: nothing changes it meanwhile. */
static int save_start(struct sched *s, struct request *r, const struct wire_req *m,
                      const uint8_t *bulk)
{
    struct save *v;
    uint32_t owner;

    (void)bulk;
    if (!named_owner(s, r, &owner) || !named_check(s, r, m->u.save.name) ||
        !request_take_session(s, r, m->u.save.session) || !may_save(s, r))
        return 0;
    v = calloc(1, sizeof(*v));
    r->state = v;
    if (!v)
        return -ENOMEM;
    v->owner = owner;
    v->replace = m->u.save.replace;
    (void)stpcpy(v->name, m->u.save.name);
    return 0;
}

/* Where it stands: the ids that the model has read, or is to read again, and what waits behind. */
static void describe(const struct sched *s, const struct session *session, struct names_file *ret)
{
    names_describe(&s->served, &session->memory.policy, ret);
    memcpy(ret->label, session->label, sizeof(ret->label));
    ret->priority = session->priority;
    ret->is_public = session->memory.shared.owner == PREFIX_PUBLIC;
    ret->has_pending = session->has_pending;
    ret->pending = session->pending;
    ret->chat_at = session->chat_at;
    ret->ids = session->seq.tokens;
    ret->n_ids = session->memory.n_ids;
    ret->marks = session->marks;
    ret->n_marks = (uint32_t)session->n_marks;
}

/* False: others are being written, and this one is tried again. Of one name two writers could end
 * in either order. */
static bool begin_save(struct sched *s, struct request *r, struct save *v)
{
    struct names_file f;
    int e;

    if (names_put_find(&s->puts, v->owner, WIRE_NAMED_SESSION, v->name))
        return false;
    if (!v->replace && named_exists(s, v->owner, WIRE_NAMED_SESSION, v->name)) {
        named_fail_exists(s, r, WIRE_NAMED_SESSION, v->name);
        return true;
    }
    describe(s, r->session, &f);
    e = names_put_begin(&s->puts, s->served.store, v->owner, WIRE_NAMED_SESSION, v->name, &f,
                        &v->put);
    if (e < 0 && e != -EAGAIN)
        named_fail_put(s, r, WIRE_NAMED_SESSION, v->name, e);
    return e != -EAGAIN;
}

/* The reply waits for the disk: what was said to be saved is there after a crash. */
static bool save_work(struct sched *s, struct request *r)
{
    struct save *v = r->state;

    if (!v->put)
        return begin_save(s, r, v);
    if (!names_put_ready(v->put))
        return false;
    if (v->put->result < 0) {
        named_fail_put(s, r, WIRE_NAMED_SESSION, v->name, v->put->result);
        return true;
    }
    r->last = (struct wire_rep){ .kind = WIRE_SAVED };
    r->last.u.saved.n_tokens = session_len(r->session);
    r->last.u.saved.bytes = v->put->len;
    request_finish(s, r);
    return true;
}

static void save_fini(struct request *r)
{
    struct save *v = r->state;

    if (v)
        names_put_end(v->put);
    free(v);
}

/* --- Restore ---------------------------------------------------------------------------------- */

struct restore {
    uint32_t owner;
    char name[NAMES_MAX + 1], label[SESSION_LABEL_MAX + 1];
    bool begun;
    struct names_file file;
    void *bytes; /* of it */
};

static int restore_start(struct sched *s, struct request *r, const struct wire_req *m,
                         const uint8_t *bulk)
{
    struct restore *t;
    uint32_t owner;

    (void)bulk;
    if (!named_owner(s, r, &owner) || !named_check(s, r, m->u.restore.name))
        return 0;
    t = calloc(1, sizeof(*t));
    r->job = t;
    if (!t)
        return -ENOMEM;
    t->owner = owner;
    (void)stpcpy(t->name, m->u.restore.name);
    request_label(t->label, sizeof(t->label), m->u.restore.label);
    return 0;
}

/* All was read. */
static void restored(struct sched *s, struct request *r)
{
    struct restore *t = r->job;
    struct session *x = r->session;
    /* The pending token was not read with the others: it waits once more. */
    bool waits = t->file.has_pending && session_len(x) == t->file.n_ids;
    int e = session_stand(x, waits ? &t->file.pending : NULL, t->file.chat_at, t->file.marks,
                          t->file.n_marks);

    if (e < 0) {
        request_fail_memory(s, r, e);
        return;
    }
    opening_end(r);
    r->usage.prompt_tokens = session_len(x);
    memory_account(&x->memory, &r->usage);
    r->last = (struct wire_rep){ .kind = WIRE_RESTORED };
    r->last.u.restored.session = x->id;
    r->last.u.restored.context_max = x->seq.max_tokens;
    r->last.u.restored.n_tokens = session_len(x);
    r->last.u.restored.usage = r->usage;
    request_finish(s, r);
}

/* The model has to read one token, for the logits that an answer starts from. That the pending one
 * is it saves reading the last of the others again. Where it does not fit it waits as before. */
static int append_all(struct sched *s, struct request *r, struct restore *t)
{
    const struct names_file *f = &t->file;
    const struct memory *m = r->memory;
    uint64_t keys;
    uint32_t *ids;
    int e;

    memory_peak(m, (uint64_t)f->n_ids + 1, &keys, NULL);
    if (!f->has_pending || keys > m->policy.budget || f->n_ids >= m->seq->max_tokens)
        return append_take_ids(s, r, f->ids, f->n_ids, f->chat_at, restored);
    ids = malloc((f->n_ids + 1) * sizeof(*ids));
    if (!ids)
        return -ENOMEM;
    if (f->n_ids)
        memcpy(ids, f->ids, f->n_ids * sizeof(*ids));
    ids[f->n_ids] = f->pending;
    e = append_take_ids(s, r, ids, f->n_ids + 1, f->chat_at, restored);
    free(ids);
    return e;
}

/* The file is a stranger's until named_load has checked it, and so is its pending token. e is 0
 * where it was answered. */
static void begin_restore(struct sched *s, struct request *r, struct restore *t)
{
    struct policy policy;
    int e;

    t->begun = true;
    if (!named_load(s, r, t->owner, WIRE_NAMED_SESSION, t->name, &t->file, &t->bytes, &policy))
        return;
    if (t->file.has_pending && !request_known_ids(s, r, &t->file.pending, 1))
        return;
    if (opening_begin(s, r, &policy, t->file.is_public ? SESSION_PUBLIC : SESSION_OF_USER,
                      t->file.priority, &e)) {
        memcpy(r->session->label, t->label[0] ? t->label : t->file.label,
               sizeof(r->session->label));
        e = append_all(s, r, t);
    }
    if (e < 0)
        request_fail_memory(s, r, e);
}

static bool restore_work(struct sched *s, struct request *r)
{
    struct restore *t = r->job;

    if (t->begun)
        return append_work(s, r);
    begin_restore(s, r, t);
    return true;
}

static void restore_undo(struct sched *s, struct request *r)
{
    append_undo(s, r);
    opening_undo(s, r);
}

static void restore_fini(struct request *r)
{
    struct restore *t = r->job;

    append_fini(r);
    if (t)
        free(t->bytes);
    free(t);
}

/* --- List ------------------------------------------------------------------------------------- */

/* Files that are read in one slice, and sent in one reply. */
#define ROWS_A_SLICE 16u
/* Or fewer: a file has all ids of a session, and everybody waits while it is read. */
#define LIST_NS (2 * CLOCK_MS)

struct row {
    struct wire_row row;
    char name[NAMES_MAX + 1], label[SESSION_LABEL_MAX + 1], model[128];
};

/* Names come from two sides, in order: those on disk, and documents that are in memory. */
struct list {
    uint32_t owner;
    enum wire_named kind;
    struct store_named disk; /* the next one of the disk */
    bool has_disk, asked_disk, ended;
    char memory_after[NAMES_MAX + 1]; /* documents up to here are told */
    struct row rows[ROWS_A_SLICE];
    uint32_t n; /* rows that wait for room */
};

static int list_start(struct sched *s, struct request *r, const struct wire_req *m,
                      const uint8_t *bulk)
{
    struct list *l;
    uint32_t owner;

    (void)bulk;
    if (!named_owner(s, r, &owner))
        return 0;
    l = calloc(1, sizeof(*l));
    r->state = l;
    if (!l)
        return -ENOMEM;
    l->owner = owner;
    l->kind = m->u.list.kind;
    return 0;
}

static void fill_from_file(const struct sched *s, const struct names_file *f, struct row *to)
{
    struct policy policy;
    struct why why = { "" };

    to->row.n_tokens = to->row.n_read = f->n_ids + f->has_pending;
    to->row.pinned = false; /* until a session begins with it: see document.h */
    memcpy(to->label, f->label, sizeof(to->label));
    memcpy(to->model, f->model, sizeof(to->model));
    if (names_policy(f, &s->served, &policy, &why) == -EMEDIUMTYPE)
        to->row.state = WIRE_ROW_OTHER_MODEL;
}

/* Each file is read: the number of tokens, and whose model it is, stand in it alone. */
static void fill_from_disk(struct sched *s, const struct list *l, struct row *to)
{
    struct names_file f;
    struct why why = { "" };
    void *bytes = NULL;
    size_t len;

    memcpy(to->name, l->disk.name, sizeof(to->name));
    to->row.kept = true;
    to->row.at_s = l->disk.at_s;
    to->row.bytes = l->disk.len;
    if (store_name_get(s->served.store, l->owner, l->kind, to->name, &bytes, &len) == 0 &&
        names_decode(bytes, len, &f, &why) == 0)
        fill_from_file(s, &f, to);
    else
        to->row.state = WIRE_ROW_DAMAGED;
    free(bytes);
}

static void fill_from_memory(const struct sched *s, const struct document *d, struct row *to)
{
    struct append_progress p = { .ids = NULL };

    (void)stpcpy(to->name, d->name);
    request_label(to->model, sizeof(to->model), s->served.model->name);
    to->row.n_tokens = to->row.n_read = d->n_ids;
    if (d->at_s) /* else its file knows */
        to->row.at_s = d->at_s;
    to->row.pinned = d->pinned != NULL;
    if (d->state == DOCUMENT_READY)
        return;
    if (d->adder)
        p = append_progress(d->adder);
    to->row.state = WIRE_ROW_READING;
    to->row.n_read = p.n_read;
}

/* The next name of the two sides, in one row where both have it. False: there is none. */
static bool next_row(struct sched *s, struct list *l, struct row *to)
{
    const struct document *d = NULL;
    int order;

    if (!l->asked_disk) {
        l->has_disk =
            s->served.store && store_name_next(s->served.store, l->owner, l->kind, &l->disk);
        l->asked_disk = true;
    }
    if (l->kind == WIRE_NAMED_DOCUMENT)
        d = document_after(&s->documents, l->owner, l->memory_after);
    if (!d && !l->has_disk)
        return false;
    order = !d ? -1 : !l->has_disk ? 1 : strcmp(l->disk.name, d->name);
    *to = (struct row){ .row = { .state = WIRE_ROW_READY } };
    if (order <= 0) {
        fill_from_disk(s, l, to);
        l->asked_disk = false;
    }
    if (order >= 0) { /* what is known of it now says more than its file */
        if (order == 0)
            to->row.state = WIRE_ROW_READY;
        fill_from_memory(s, d, to);
        (void)stpcpy(l->memory_after, d->name);
    }
    return true;
}

/* Strings are put in now: they lie in l->rows, which stays where it is. */
static int send_rows(struct sched *s, struct request *r, struct list *l)
{
    struct wire_row rows[ROWS_A_SLICE];
    struct wire_rep rep = { .id = r->id, .kind = WIRE_LISTED, .last = false };
    int e;

    for (uint32_t i = 0; i < l->n; i++) {
        rows[i] = l->rows[i].row;
        rows[i].name = l->rows[i].name;
        rows[i].label = l->rows[i].label;
        rows[i].model = l->rows[i].model;
    }
    rep.u.listed.rows = rows;
    rep.u.listed.n_rows = l->n;
    e = reply_send(s, r, &rep, NULL);
    if (e == 0)
        l->n = 0;
    return e;
}

/* Rows that are ahead of the last reply. All others are sent by work(): where a flush finds room
 * that work() did not, nobody would know that there is more to do. */
static int list_flush(struct sched *s, struct request *r)
{
    struct list *l = r->state;

    return l && l->n > 0 && r->phase == REQUEST_LAST && r->last.kind != WIRE_ERROR
               ? send_rows(s, r, l)
               : 0;
}

/* Full rows are sent first, so that there is always room for the next one. */
static bool list_work(struct sched *s, struct request *r)
{
    struct list *l = r->state;
    uint64_t end = clock_ns() + LIST_NS;
    bool more = true;

    if (l->n == ROWS_A_SLICE && send_rows(s, r, l) < 0)
        return false; /* the reader is behind */
    while (l->n < ROWS_A_SLICE && (more = next_row(s, l, &l->rows[l->n]))) {
        l->n++;
        if (clock_ns() > end)
            break;
    }
    if (more)
        return true;
    r->last = (struct wire_rep){ .kind = WIRE_LISTED };
    request_finish(s, r);
    return true;
}

static void list_fini(struct request *r)
{
    free(r->state);
}

/* --- Delete ----------------------------------------------------------------------------------- */

struct delete
{
    uint32_t owner;
    enum wire_named kind;
    char name[NAMES_MAX + 1];
};

static int delete_start(struct sched *s, struct request *r, const struct wire_req *m,
                        const uint8_t *bulk)
{
    struct delete *d;
    uint32_t owner;

    (void)bulk;
    if (!named_owner(s, r, &owner) || !named_check(s, r, m->u.delete.name))
        return 0;
    d = calloc(1, sizeof(*d));
    r->state = d;
    if (!d)
        return -ENOMEM;
    d->owner = owner;
    d->kind = m->u.delete.kind;
    (void)stpcpy(d->name, m->u.delete.name);
    return 0;
}

/* In memory: who reads it is told, and its document goes with the request (req_document.c). */
static bool forget_documents(struct sched *s, const struct delete *d)
{
    struct document *doc;
    bool any = false;

    while ((doc = document_find(&s->documents, d->owner, d->name))) {
        any = true;
        if (doc->adder)
            request_fail(s, doc->adder, WIRE_E_CANCELLED, REQUEST_NO_NUMBERS,
                         "the document \"%.64s\" was deleted while it was read", d->name);
        else
            document_free(doc);
    }
    return any;
}

/* Memory first, then the disk: what is in both is one name, and a failure of the disk leaves it on
 * the disk alone. */
static bool delete_work(struct sched *s, struct request *r)
{
    const struct delete *d = r->state;
    bool any = false;
    int e = -ENOENT;

    /* One that is being written would be there again. */
    if (names_put_find(&s->puts, d->owner, d->kind, d->name))
        return false;
    if (d->kind == WIRE_NAMED_DOCUMENT)
        any = forget_documents(s, d);
    if (s->served.store)
        e = store_name_delete(s->served.store, d->owner, d->kind, d->name);
    if (e == 0 || (e == -ENOENT && any)) {
        r->last = (struct wire_rep){ .kind = WIRE_DELETED };
        request_finish(s, r);
    } else if (e == -ENOENT) {
        named_fail_absent(s, r, d->kind, d->name);
    } else {
        request_fail(s, r, WIRE_E_STORAGE, REQUEST_NO_NUMBERS,
                     "the %s \"%.64s\" cannot be deleted: %s", named_word(d->kind), d->name,
                     strerror(-e));
    }
    return true;
}

static void delete_fini(struct request *r)
{
    free(r->state);
}

const struct request_ops request_save = {
    .name = "save", .start = save_start, .work = save_work, .ids_only = true, .fini = save_fini
};
const struct request_ops request_restore = {
    .name = "restore",
    .start = restore_start,
    .work = restore_work,
    .plan = append_plan,
    .rows = append_rows,
    .undo = restore_undo,
    .fini = restore_fini,
};
const struct request_ops request_list = {
    .name = "list", .start = list_start, .work = list_work, .flush = list_flush, .fini = list_fini
};
const struct request_ops request_delete = {
    .name = "delete", .start = delete_start, .work = delete_work, .fini = delete_fini
};
