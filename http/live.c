/* http/live.c - the list of live sessions. It is short (--live-sessions), so it is a list, and all
 * of it is looked through under one lock. What takes long is done outside: closing a connection,
 * asking the daemon. A session is found by its id and its key together: another key's is not there.
 */

#include "http/live.h"

#include "base/clock.h"
#include "http/field.h"
#include "http/places.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

/* Clients ask again a second after a 429 (Retry-After), or a little later. */
#define WAIT_S 5

void lives_init(struct lives *l, struct pool *pool, unsigned max, size_t n_keys, unsigned idle_s)
{
    *l = (struct lives){ .pool = pool,
                         .max = max,
                         .n_keys = n_keys,
                         .idle_ns = idle_s * CLOCK_S,
                         .wait_ns = WAIT_S * CLOCK_S };
    (void)pthread_mutex_init(&l->lock, NULL);
}

/* It is on no list any more. */
static void free_live(struct live *s)
{
    gist_disconnect(s->conn); /* with its session */
    if (s->stop_fd >= 0)
        (void)close(s->stop_fd);
    free(s);
}

void lives_fini(struct lives *l)
{
    while (l->list) {
        struct live *s = l->list;

        l->list = s->next;
        free_live(s);
    }
    (void)pthread_mutex_destroy(&l->lock);
}

/* Out of the list; the lock is held. */
static void take_out(struct lives *l, struct live *s)
{
    struct live **at = &l->list;

    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    l->n--;
}

/* The idle one that was used longest ago; the lock is held. */
static struct live *oldest(const struct lives *l)
{
    struct live *old = NULL;

    for (struct live *s = l->list; s; s = s->next)
        if (!s->busy && (!old || s->used_ns < old->used_ns))
            old = s;
    return old;
}

/* One at a time, since each is freed without the lock, and the list may be another one by then. */
int lives_expire(struct lives *l)
{
    for (;;) {
        uint64_t now = clock_ns();
        struct live *s;
        int ms = -1;

        (void)pthread_mutex_lock(&l->lock);
        s = oldest(l);
        if (s && now < s->used_ns + l->idle_ns) {
            ms = clock_until_ms(s->used_ns + l->idle_ns, now);
            s = NULL;
        }
        if (s)
            take_out(l, s);
        (void)pthread_mutex_unlock(&l->lock);
        if (!s)
            return ms;
        free_live(s);
    }
}

/* --- taken and given back --------------------------------------------------------------------- */

/* Nobody can guess another's, though keys stand before it as well. */
static int new_live(const char *who, struct live **ret, struct problem *p)
{
    struct live *s = calloc(1, sizeof(*s));
    unsigned char bits[LIVE_ID_LEN / 2];

    if (!s)
        return problem_no_memory(p);
    s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->stop_fd < 0 || getrandom(bits, sizeof(bits), 0) != (ssize_t)sizeof(bits)) {
        (void)problem_set(p, PROBLEM_INTERNAL, NULL, "opening a session: %s", strerror(errno));
        free_live(s);
        return -1;
    }
    for (size_t i = 0; i < sizeof(bits); i++)
        (void)snprintf(s->id + 2 * i, 3, "%02x", bits[i]);
    (void)snprintf(s->who, sizeof(s->who), "%s", who);
    s->busy = true;
    *ret = s;
    return 0;
}

static int no_place(const struct lives *l, struct problem *p)
{
    return problem_set(p, PROBLEM_LIMIT, NULL,
                       "as many sessions are being answered as this key may have of the %u of "
                       "--live-sessions just now: ask again in a moment",
                       l->max);
}

/* A place for one more, of which another may have to go. */
static int add(struct lives *l, const char *who, struct live **ret, struct problem *p)
{
    struct live *s = NULL, *old = NULL;
    bool may;

    if (new_live(who, &s, p) < 0)
        return -1;
    (void)pthread_mutex_lock(&l->lock);
    may = places_may(l, who);
    /* One goes for one that comes. It is off the list before it is freed, and so nobody else's. */
    if (may && l->n >= l->max && (old = places_end(l, who)))
        take_out(l, old);
    may &= l->n < l->max;
    if (may) {
        s->next = l->list;
        l->list = s;
        l->n++;
    } else {
        places_wait(l, who);
    }
    (void)pthread_mutex_unlock(&l->lock);
    if (old)
        free_live(old);
    if (!may) {
        free_live(s);
        return no_place(l, p);
    }
    *ret = s;
    return 0;
}

/* The key's own of that name, or NULL; the lock is held. */
static struct live *find(const struct lives *l, const char *who, const char *id, size_t len)
{
    for (struct live *s = l->list; s; s = s->next)
        if (strlen(s->id) == len && memcmp(s->id, id, len) == 0 && strcmp(s->who, who) == 0)
            return s;
    return NULL;
}

/* Which of the reasons it was is all the same to the client: it sends the whole chat. */
static int gone(struct problem *p, const char *id)
{
    return problem_set(p, PROBLEM_GONE, "session",
                       "the session %s is not open any more: send the whole chat, without "
                       "`session`, and what is known of it need not be read again",
                       id);
}

int live_take(struct lives *l, const char *who, const char *id, uint32_t n_turns, struct live **ret,
              struct problem *p)
{
    bool busy = false, other = false, may = true;
    struct live *s;
    uint64_t n;

    if (!id)
        return add(l, who, ret, p);
    (void)pthread_mutex_lock(&l->lock);
    s = find(l, who, id, strlen(id));
    /* Busy from now on, while the lock is held that it was found under: two requests can't both
     * have it. */
    if (s) {
        busy = s->busy;
        other = !busy && s->n_turns != n_turns;
        may = busy || other || places_may(l, who);
        if (may)
            s->busy = true;
        else
            places_wait(l, who);
    }
    (void)pthread_mutex_unlock(&l->lock);
    if (!s)
        return gone(p, id);
    if (busy)
        return problem_set(p, PROBLEM_LIMIT, "session",
                           "the session %s is being answered: wait, or stop that", id);
    if (!may)
        return no_place(l, p);
    (void)!read(s->stop_fd, &n, sizeof(n)); /* that was meant for its last request */
    /* Its daemon is gone, or another program went on with it. */
    if (other || (s->conn && gist_dispatch(s->conn) < 0)) {
        live_drop(l, s);
        return gone(p, id);
    }
    *ret = s;
    return 0;
}

/* Under the lock for `number`, which live_look reads for others. */
void live_opened(struct lives *l, struct live *s, gist_session *session)
{
    (void)pthread_mutex_lock(&l->lock);
    s->session = session;
    s->number = gist_session_id(session);
    (void)pthread_mutex_unlock(&l->lock);
}

bool live_put(struct lives *l, struct live *s, bool read)
{
    bool doomed;

    (void)pthread_mutex_lock(&l->lock);
    s->n_turns += read;
    s->busy = false;
    s->used_ns = clock_ns();
    /* Deleted while it was busy: whoever did so could not free it under its request. */
    doomed = s->doomed;
    if (doomed)
        take_out(l, s);
    (void)pthread_mutex_unlock(&l->lock);
    if (doomed)
        free_live(s);
    return !doomed;
}

void live_drop(struct lives *l, struct live *s)
{
    if (!s)
        return;
    (void)pthread_mutex_lock(&l->lock);
    take_out(l, s);
    (void)pthread_mutex_unlock(&l->lock);
    free_live(s);
}

bool live_is_doomed(struct lives *l, const struct live *s)
{
    bool doomed;

    (void)pthread_mutex_lock(&l->lock);
    doomed = s->doomed;
    (void)pthread_mutex_unlock(&l->lock);
    return doomed;
}

bool live_is_heard(struct lives *l, const char *who, const char *id, size_t len, uint32_t n_turns)
{
    const struct live *s;
    bool heard;

    (void)pthread_mutex_lock(&l->lock);
    s = find(l, who, id, len);
    heard = s && s->busy && s->n_turns == n_turns;
    (void)pthread_mutex_unlock(&l->lock);
    return heard;
}

int live_title(const struct json_object *o, const char **ret, struct problem *p)
{
    if (field_text(o, "title", ret, p) < 0)
        return -1;
    if (*ret && strlen(*ret) > LIVE_TITLE_MAX)
        return problem_set(p, PROBLEM_INVALID, "title", "`title` has %zu bytes: at most %u go",
                           strlen(*ret), LIVE_TITLE_MAX);
    return 0;
}

/* The lock is held. */
static void set_title(struct live *s, const char *title)
{
    (void)snprintf(s->title, sizeof(s->title), "%s", title);
}

void live_rename(struct lives *l, struct live *s, const char *title)
{
    (void)pthread_mutex_lock(&l->lock);
    set_title(s, title);
    (void)pthread_mutex_unlock(&l->lock);
}

int live_connect(struct lives *l, struct live *s, struct problem *p)
{
    return s->conn ? 0 : pool_open(l->pool, &s->conn, p);
}

/* --- asked about ------------------------------------------------------------------------------ */

/* The lock is held: s may be busy, and then its own thread writes to the rest of it. */
static struct json_object *row(const struct live *s)
{
    return json_make("{s:s, s:s, s:I, s:b, s:I}", "id", s->id, "title", s->title, "turns",
                     (int64_t)s->n_turns, "busy", s->busy, "idle_s",
                     s->busy ? 0 : (int64_t)((clock_ns() - s->used_ns) / CLOCK_S));
}

int live_list(const struct live_ask *a, struct json_object **ret, struct problem *p)
{
    struct json_object *rows = json_make("[]");
    int r = rows ? 0 : -1;

    (void)pthread_mutex_lock(&a->lives->lock);
    for (const struct live *s = a->lives->list; s && r == 0; s = s->next)
        if (strcmp(s->who, a->who) == 0)
            r = json_add(rows, row(s));
    (void)pthread_mutex_unlock(&a->lives->lock);
    if (r == 0)
        return problem_or_built(json_make("{s:o}", "sessions", rows), ret, p);
    json_free(rows);
    return problem_unbuilt(p);
}

/* The part of a tail that names a session; what is behind its '/': "". */
static size_t name_len(const char *tail, const char **ret_rest)
{
    size_t n = strcspn(tail, "/");

    *ret_rest = tail[n] ? tail + n + 1 : "";
    return n;
}

static int unknown(const struct live_ask *a, struct problem *p)
{
    return problem_set(p, PROBLEM_GONE, "session", "there is no open session %s here", a->tail);
}

static int no_path(const struct live_ask *a, struct problem *p)
{
    return problem_set(p, PROBLEM_NOT_FOUND, NULL,
                       "there is no /gist/v1/sessions/%s here: docs/http.md lists what is",
                       a->tail);
}

/* On a connection of its own: the session's may be its request's. */
static int look_map(const struct live_ask *a, uint64_t number, struct json_object **ret,
                    struct problem *p)
{
    gist_conn *c;
    bool fresh;

    if (pool_take(a->lives->pool, &c, &fresh, p) < 0)
        return -1;
    *ret = live_map(c, number, p);
    if (*ret)
        pool_put(a->lives->pool, c);
    else
        pool_drop(a->lives->pool, c);
    return *ret ? 0 : -1;
}

/* What is said of it is copied under the lock; the picture is asked for by its number outside, when
 * it may be gone, and then the daemon says so. */
int live_look(const struct live_ask *a, struct json_object **ret, struct problem *p)
{
    struct json_object *o = NULL;
    uint64_t number = 0;
    const char *rest;
    size_t n = name_len(a->tail, &rest);
    const struct live *s;

    if (*rest && strcmp(rest, "memory") != 0)
        return no_path(a, p);
    (void)pthread_mutex_lock(&a->lives->lock);
    s = find(a->lives, a->who, a->tail, n);
    if (s)
        number = s->number;
    if (s && !*rest)
        o = row(s);
    (void)pthread_mutex_unlock(&a->lives->lock);
    if (!s || (*rest && number == 0))
        return unknown(a, p);
    return *rest ? look_map(a, number, ret, p) : problem_or_built(o, ret, p);
}

/* Whoever waits for its request hears of it. */
static void ask_stop(struct live *s)
{
    const uint64_t one = 1;

    (void)!write(s->stop_fd, &one, sizeof(one)); /* a full one is readable as well */
}

static int read_new_title(const struct live_ask *a, const char **ret, struct problem *p)
{
    if (a->body && live_title(a->body, ret, p) < 0)
        return -1;
    return *ret
               ? 0
               : problem_set(p, PROBLEM_INVALID, "title", "`title` is missing: a text is expected");
}

/* A new title, or the end of what is being answered. One that is idle has nothing to stop. */
int live_change(const struct live_ask *a, struct json_object **ret, struct problem *p)
{
    const char *rest, *title = NULL;
    size_t n = name_len(a->tail, &rest);
    struct json_object *o = NULL;
    struct live *s;

    if (*rest && strcmp(rest, "stop") != 0)
        return no_path(a, p);
    if (!*rest && read_new_title(a, &title, p) < 0)
        return -1;
    (void)pthread_mutex_lock(&a->lives->lock);
    s = find(a->lives, a->who, a->tail, n);
    if (s && title)
        set_title(s, title);
    else if (s && s->busy)
        ask_stop(s);
    if (s)
        o = row(s);
    (void)pthread_mutex_unlock(&a->lives->lock);
    return s ? problem_or_built(o, ret, p) : unknown(a, p);
}

/* One that is being answered ends when it is. */
int live_delete(const struct live_ask *a, struct json_object **ret, struct problem *p)
{
    struct live *s, *free_it = NULL;

    (void)pthread_mutex_lock(&a->lives->lock);
    s = find(a->lives, a->who, a->tail, strlen(a->tail));
    if (s && s->busy) {
        s->doomed = true;
        ask_stop(s);
    } else if (s) {
        take_out(a->lives, s);
        free_it = s;
    }
    (void)pthread_mutex_unlock(&a->lives->lock);
    if (!s)
        return unknown(a, p);
    if (free_it)
        free_live(free_it);
    return problem_or_built(json_make("{s:b}", "deleted", 1), ret, p);
}
