/* dbus/manager.c - the interface of dbus/manager.h: properties are read from the last look, methods
 * look anew, and a timer's look tells by signals what has changed since the last signal. */

#include "dbus/manager.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#define SYSTEMD       "org.freedesktop.systemd1"
#define NOT_AT_WORK   "org.gistd.Error.NotAtWork"
#define NOT_RUNNING   "org.gistd.Error.NotRunning"
#define SYSTEMD_WAITS ((uint64_t)1000000) /* microseconds */

/* --- whether a look would start it ------------------------------------------------------------ */

/* What systemd says of a unit; false: there is none, or no systemd on this bus. Blocks for a second
 * at most. Not started by asking: on a bus without systemd the name is to stay unknown. What `said`
 * holds is read before it is freed. */
static bool is_active(struct manager *m, const char *path)
{
    sd_bus_message *ask = NULL, *said = NULL;
    const char *state = "";

    if (sd_bus_message_new_method_call(m->bus, &ask, SYSTEMD, path,
                                       "org.freedesktop.DBus.Properties", "Get") >= 0 &&
        sd_bus_message_set_auto_start(ask, 0) >= 0 &&
        sd_bus_message_append(ask, "ss", SYSTEMD ".Unit", "ActiveState") >= 0 &&
        sd_bus_call(m->bus, ask, SYSTEMD_WAITS, NULL, &said) >= 0)
        (void)sd_bus_message_read(said, "v", "s", &state);
    if (strcmp(state, "active") != 0 && strcmp(state, "activating") != 0)
        state = NULL;
    sd_bus_message_unref(ask);
    sd_bus_message_unref(said);
    return state != NULL;
}

/* A socket of systemd's starts the daemon for whoever connects: to look on is no reason to load a
 * model. One that was started by hand has no such socket. */
static bool may_knock(struct manager *m)
{
    return !is_active(m, "/org/freedesktop/systemd1/unit/gistd_2esocket") ||
           is_active(m, "/org/freedesktop/systemd1/unit/gistd_2eservice");
}

static void look(struct manager *m)
{
    view_look(&m->view, m->view.conn || may_knock(m));
}

/* --- properties ------------------------------------------------------------------------------- */

/* `at` is the field that the table names by its offset. */
static int get_state(sd_bus *bus, const char *path, const char *interface, const char *property,
                     sd_bus_message *reply, void *at, sd_bus_error *error)
{
    const enum view_state *state = at;

    (void)bus;
    (void)path;
    (void)interface;
    (void)property;
    (void)error;
    return sd_bus_message_append(reply, "s", view_state_name(*state));
}

static int get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *at, sd_bus_error *error)
{
    (void)bus;
    (void)path;
    (void)interface;
    (void)property;
    (void)error;
    return sd_bus_message_append(reply, "s", (const char *)at);
}

/* --- methods ---------------------------------------------------------------------------------- */

/* Who asks, by the bus. */
static int read_caller(sd_bus_message *ask, uint32_t *ret_uid, bool *ret_sees_all)
{
    sd_bus_creds *creds = NULL;
    uid_t uid;
    int r = sd_bus_query_sender_creds(ask, SD_BUS_CREDS_EUID, &creds);

    if (r >= 0)
        r = sd_bus_creds_get_euid(creds, &uid);
    sd_bus_creds_unref(creds);
    if (r < 0)
        return r;
    *ret_uid = uid;
    *ret_sees_all = uid == 0 || uid == geteuid();
    return 0;
}

static int add_clients(sd_bus_message *reply, const struct view *v, bool all, uint32_t uid)
{
    const struct gist_stats *st = &v->stats;
    int r = sd_bus_message_open_container(reply, 'a', "(tuusut)");

    for (uint32_t i = 0; r >= 0 && v->conn && i < st->n_clients; i++) {
        const struct gist_stats_client *c = &st->clients[i];

        /* Ourselves we are no user of the model. */
        if ((all || c->uid == uid) && c->pid != (uint32_t)getpid())
            r = sd_bus_message_append(reply, "(tuusut)", c->id, c->pid, c->uid, c->name,
                                      c->sessions, (uint64_t)c->pages * st->page_bytes);
    }
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int add_sessions(sd_bus_message *reply, const struct view *v, bool all, uint32_t uid)
{
    const struct gist_stats *st = &v->stats;
    int r = sd_bus_message_open_container(reply, 'a', "(ttusuts)");

    for (uint32_t i = 0; r >= 0 && v->conn && i < st->n_sessions; i++) {
        const struct gist_stats_session *s = &st->sessions[i];

        if (all || s->uid == uid)
            r = sd_bus_message_append(reply, "(ttusuts)", s->id, s->client, s->uid, s->label,
                                      s->n_tokens, (uint64_t)s->pages * st->page_bytes, s->doing);
    }
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

/* Whose it is first: nothing is looked at for who can't be told. */
static int list(sd_bus_message *ask, struct manager *m,
                int (*add)(sd_bus_message *, const struct view *, bool, uint32_t))
{
    sd_bus_message *reply = NULL;
    uint32_t uid;
    bool all;
    int r = read_caller(ask, &uid, &all);

    if (r < 0)
        return r;
    look(m);
    r = sd_bus_message_new_method_return(ask, &reply);
    if (r >= 0)
        r = add(reply, &m->view, all, uid);
    if (r >= 0)
        r = sd_bus_send(NULL, reply, NULL);
    sd_bus_message_unref(reply);
    return r;
}

static int list_clients(sd_bus_message *ask, void *arg, sd_bus_error *error)
{
    (void)error;
    return list(ask, arg, add_clients);
}

static int list_sessions(sd_bus_message *ask, void *arg, sd_bus_error *error)
{
    (void)error;
    return list(ask, arg, add_sessions);
}

/* A session of another user's is answered as one that is not there: that it exists is not for
 * everybody. */
static int cancel(sd_bus_message *ask, void *arg, sd_bus_error *error)
{
    struct manager *m = arg;
    uint64_t session;
    uint32_t uid;
    bool all;
    int r = sd_bus_message_read(ask, "t", &session);

    if (r >= 0)
        r = read_caller(ask, &uid, &all);
    if (r < 0)
        return r;
    r = view_cancel(&m->view, session, all, uid);
    if (r == -ENOENT)
        return sd_bus_error_setf(error, NOT_AT_WORK,
                                 "no session %llu of this user is at work: ListSessions has them",
                                 (unsigned long long)session);
    if (r == -ENOTCONN)
        return sd_bus_error_set(error, NOT_RUNNING, "gistd does not serve");
    return r < 0 ? r : sd_bus_reply_method_return(ask, NULL);
}

/* --- the interface ---------------------------------------------------------------------------- */

#define PROPERTY(name, type, get, field)                                                           \
    SD_BUS_PROPERTY(name, type, get, offsetof(struct manager, view.field),                         \
                    SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE)

static const sd_bus_vtable vtable[] = {
    SD_BUS_VTABLE_START(0),
    PROPERTY("State", "s", get_state, state),
    PROPERTY("Version", "s", get_text, version),
    PROPERTY("Model", "s", get_text, model),
    PROPERTY("ModelDigest", "s", get_text, digest),
    PROPERTY("WeightsMemory", "t", NULL, weights),
    PROPERTY("ContextMemory", "t", NULL, context),
    PROPERTY("ContextUsed", "t", NULL, used),
    PROPERTY("ContextCached", "t", NULL, cached),
    PROPERTY("ContextReturned", "t", NULL, returned),
    PROPERTY("Clients", "u", NULL, n_clients),
    PROPERTY("Sessions", "u", NULL, n_sessions),
    PROPERTY("Running", "u", NULL, running),
    PROPERTY("Waiting", "u", NULL, waiting),
    SD_BUS_METHOD_WITH_ARGS("ListClients", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(tuusut)", clients),
                            list_clients, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("ListSessions", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(ttusuts)", sessions),
                            list_sessions, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Cancel", SD_BUS_ARGS("t", session), SD_BUS_NO_RESULT, cancel,
                            SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_SIGNAL("SessionsChanged", "", 0),
    SD_BUS_VTABLE_END,
};

/* --- what has changed ------------------------------------------------------------------------- */

/* Properties of which a signal is to tell, the last one NULL. One place each, and one more for the
 * NULL: a table has more entries than properties. */
struct changes {
    char *names[sizeof(vtable) / sizeof(vtable[0])];
    size_t n;
};

static void note(struct changes *c, bool changed, char *property)
{
    if (changed)
        c->names[c->n++] = property;
}

#define NOTE(property, field) note(&c, now->field != was->field, property)

void manager_look(struct manager *m)
{
    const struct view *now = &m->view, *was = &m->said;
    struct changes c = { 0 };

    look(m);
    NOTE("State", state);
    note(&c, strcmp(now->version, was->version) != 0, "Version");
    note(&c, strcmp(now->model, was->model) != 0, "Model");
    note(&c, strcmp(now->digest, was->digest) != 0, "ModelDigest");
    NOTE("WeightsMemory", weights);
    NOTE("ContextMemory", context);
    NOTE("ContextUsed", used);
    NOTE("ContextCached", cached);
    NOTE("ContextReturned", returned);
    NOTE("Clients", n_clients);
    NOTE("Sessions", n_sessions);
    NOTE("Running", running);
    NOTE("Waiting", waiting);
    if (c.n > 0)
        (void)sd_bus_emit_properties_changed_strv(m->bus, MANAGER_PATH, MANAGER_NAME, c.names);
    /* Signals go to everybody on the bus, so this one says that, and not what: who may know asks.
     */
    if (now->who != was->who)
        (void)sd_bus_emit_signal(m->bus, MANAGER_PATH, MANAGER_NAME, "SessionsChanged", NULL);
    m->said = m->view;
}

/* The object before the name: who waits for the name finds it whole. */
int manager_open(struct manager *m)
{
    int r;

    look(m);
    m->said = m->view;
    r = sd_bus_add_object_vtable(m->bus, NULL, MANAGER_PATH, MANAGER_NAME, vtable, m);
    return r < 0 ? r : sd_bus_request_name(m->bus, MANAGER_NAME, 0);
}
