/* http/turn.c - turns that their client has left. One list under one lock, which the main thread
 * holds while a turn goes on: so whoever takes a turn from it never meets a job that somebody else
 * is in. What leaves the list is freed outside of the lock, since that ends a connection. */

#include "http/turn.h"

#include "base/clock.h"
#include "http/say.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS 16 /* of what one turn says before the next one's turn comes */

void turns_init(struct turns *l, struct lives *lives, unsigned max, unsigned wait_s, int wake_fd)
{
    *l = (struct turns){
        .lives = lives, .max = max, .wait_ns = wait_s * CLOCK_S, .wake_fd = wake_fd
    };
    (void)pthread_mutex_init(&l->lock, NULL);
}

struct turn *turn_new(void)
{
    return calloc(1, sizeof(struct turn));
}

void turn_free(struct turn *t)
{
    if (!t)
        return;
    if (t->begun)
        job_fini(&t->job);
    ask_fini(&t->ask);
    free(t);
}

static void free_all(struct turn *t)
{
    while (t) {
        struct turn *next = t->next;

        turn_free(t);
        t = next;
    }
}

/* No other thread is there any more. */
void turns_fini(struct turns *l)
{
    free_all(l->list);
    l->list = NULL;
    (void)pthread_mutex_destroy(&l->lock);
}

/* It has no session any more, and no connection: the job gave both back. */
static bool has_ended(const struct turn *t)
{
    return t->job.state == JOB_ENDED;
}

/* Of a turn that has ended what was asked is of no use: a document may be long. */
static void drop_question(struct turn *t)
{
    json_free(t->ask.root);
    t->ask.root = NULL;
    t->ask.model = t->ask.session = t->ask.title = NULL;
    t->job.label = "";
}

/* The lock is held. */
static struct turn *take_out(struct turns *l, struct turn **at)
{
    struct turn *t = *at;

    *at = t->next;
    l->n--;
    return t;
}

/* Where the key's turn of this session stands, or NULL; the lock is held. */
static struct turn **find(struct turns *l, const char *who, const char *id, size_t len)
{
    for (struct turn **at = &l->list; *at; at = &(*at)->next)
        if (strlen((*at)->job.session) == len && memcmp((*at)->job.session, id, len) == 0 &&
            strcmp((*at)->who, who) == 0)
            return at;
    return NULL;
}

/* --- left, and come back to ------------------------------------------------------------------- */

/* What failed is told to who hears it, and has nothing to come back to. What has not begun to read
 * has no session yet. */
static bool may_stay(const struct turns *l, const struct turn *t)
{
    const struct job *j = &t->job;

    return l->wait_ns > 0 && t->begun && t->ask.detachable && j->session[0] && !j->problem.kind &&
           !j->out.lost && (has_ended(t) || (j->live && j->conn));
}

static unsigned count_of(const struct turns *l, const char *who)
{
    unsigned n = 0;

    for (const struct turn *t = l->list; t; t = t->next)
        n += strcmp(t->who, who) == 0;
    return n;
}

/* The turn that goes for t, of those that have ended: of the key that has most of them, the one
 * that was left longest ago. So nobody's answer ends because another leaves many. NULL: none has
 * ended; those that go on have a live session each, and of these there are no more than places. */
static struct turn **to_end(struct turns *l, const struct turn *t)
{
    struct turn **end = NULL;
    unsigned most = 0;

    for (struct turn **at = &l->list; *at; at = &(*at)->next) {
        unsigned n = count_of(l, (*at)->who) + (strcmp((*at)->who, t->who) == 0);

        if (has_ended(*at) && n >= most) {
            end = at;
            most = n;
        }
    }
    return end;
}

/* A place for t: of a session there is one turn, the newest. What has to go; the lock is held. */
static struct turn *make_place(struct turns *l, struct turn *t)
{
    struct turn **at = find(l, t->who, t->job.session, strlen(t->job.session));

    if (at && (*at)->job.n_turns > t->job.n_turns)
        return t;
    if (at)
        return take_out(l, at);
    if (l->n < l->max)
        return NULL;
    at = to_end(l, t);
    return at ? take_out(l, at) : t;
}

/* A client that has all of its answer may delete the session before the answer's exchange is over,
 * and the turn comes here. The lock is held. */
static bool is_deleted(const struct turns *l, const struct turn *t)
{
    for (size_t i = 0; i < TURNS_DELETED; i++)
        if (strcmp(l->deleted[i].id, t->job.session) == 0 && strcmp(l->deleted[i].who, t->who) == 0)
            return true;
    return false;
}

void turns_leave(struct turns *l, struct turn *t, const char *who)
{
    const uint64_t one = 1;
    struct turn *goes;

    if (!t || !may_stay(l, t)) {
        turn_free(t);
        return;
    }
    (void)snprintf(t->who, sizeof(t->who), "%s", who);
    t->left_ns = clock_ns();
    /* The connection's, which may be closed or bring another request from here on. */
    t->job.client_fd = -1;
    t->job.unheard = true;
    if (has_ended(t))
        drop_question(t);
    (void)pthread_mutex_lock(&l->lock);
    goes = is_deleted(l, t) ? t : make_place(l, t);
    if (goes != t) {
        t->next = l->list;
        l->list = t;
        l->n++;
        /* Whoever deletes the session from here on finds the turn (turns_delete). */
        t->forgotten = t->job.live && live_is_doomed(l->lives, t->job.live);
    }
    (void)pthread_mutex_unlock(&l->lock);
    turn_free(goes);
    /* The main thread is to wait for its connection as well. */
    (void)!write(l->wake_fd, &one, sizeof(one));
}

/* "ID/TURNS" */
static bool split(const char *path, size_t *ret_len, uint32_t *ret_turns)
{
    const char *slash = strchr(path, '/');
    unsigned long n;
    char *end;

    if (!slash || slash[1] < '0' || slash[1] > '9')
        return false;
    n = strtoul(slash + 1, &end, 10);
    *ret_len = (size_t)(slash - path);
    *ret_turns = (uint32_t)n;
    return *end == '\0' && n < UINT32_MAX;
}

struct turn *turns_take(struct turns *l, const char *who, const char *path, struct problem *p)
{
    struct turn *t = NULL, **at;
    bool forgotten;
    uint32_t n_turns;
    size_t len;

    if (!split(path, &len, &n_turns)) {
        (void)problem_set(p, PROBLEM_NOT_FOUND, NULL,
                          "there is no /gist/v1/answers/%s here: docs/http.md lists what is", path);
        return NULL;
    }
    (void)pthread_mutex_lock(&l->lock);
    at = find(l, who, path, len);
    forgotten = at && (*at)->forgotten;
    if (at && !forgotten && (*at)->job.n_turns == n_turns)
        t = take_out(l, at);
    (void)pthread_mutex_unlock(&l->lock);
    /* What it was about to say is in what it says again. */
    if (t) {
        t->job.out.len = t->job.out_at = 0;
        t->job.unheard = false;
    } else if (!forgotten && live_is_heard(l->lives, who, path, len, n_turns)) {
        (void)problem_set(p, PROBLEM_LIMIT, "session",
                          "another connection hears this answer: ask again when that is lost");
    } else {
        (void)problem_set(p, PROBLEM_GONE, "session",
                          "there is no answer %s to come back to: it is waited for --answer-wait "
                          "seconds, and only where its request was `detachable`",
                          path);
    }
    return t;
}

/* The lock is held. */
static void note_deleted(struct turns *l, const char *who, const char *id)
{
    struct turn_deleted *d = &l->deleted[l->n_deleted++ % TURNS_DELETED];

    (void)snprintf(d->who, sizeof(d->who), "%s", who);
    (void)snprintf(d->id, sizeof(d->id), "%s", id);
}

/* was: there was such a session. Others are not noted, or who deletes what is not there would push
 * out what others have deleted. */
static void forget(struct turns *l, const char *who, const char *id, bool was)
{
    struct turn *goes = NULL, **at;

    (void)pthread_mutex_lock(&l->lock);
    if (was)
        note_deleted(l, who, id);
    at = find(l, who, id, strlen(id));
    if (at && has_ended(*at))
        goes = take_out(l, at);
    else if (at)
        (*at)->forgotten = true;
    (void)pthread_mutex_unlock(&l->lock);
    turn_free(goes);
}

/* Whatever the former found: of what had ended there may be more. */
int turns_delete(const struct live_ask *a, struct json_object **ret, struct problem *p)
{
    int r = live_delete(a, ret, p);

    forget(a->turns, a->who, a->tail, r == 0);
    return r;
}

/* --- nobody's --------------------------------------------------------------------------------- */

static void waits_for(const struct turn *t, struct pollfd ret[TURNS_FDS])
{
    ret[0] = (struct pollfd){ gist_fd(t->job.conn), POLLIN, 0 };
    ret[1] = (struct pollfd){ t->job.live->stop_fd, POLLIN, 0 };
}

size_t turns_wait_for(struct turns *l, struct pollfd *ret)
{
    size_t n = 0;

    (void)pthread_mutex_lock(&l->lock);
    for (const struct turn *t = l->list; t; t = t->next) {
        if (has_ended(t))
            continue;
        waits_for(t, ret + n);
        n += TURNS_FDS;
    }
    (void)pthread_mutex_unlock(&l->lock);
    return n;
}

/* Looked at without waiting: a step of the job would hold the lock for a millisecond else. */
static bool can_go_on(const struct turn *t)
{
    struct pollfd p[TURNS_FDS];

    waits_for(t, p);
    return !t->job.waiting || poll(p, TURNS_FDS, 0) > 0;
}

/* False: it is of no use any more. A few rounds, since callbacks of one dispatch may have more to
 * say than one look takes. */
static bool go_on(struct turn *t)
{
    enum job_event e = JOB_OUTPUT;

    for (int i = 0; i < ROUNDS && e == JOB_OUTPUT; i++) {
        e = job_wait(&t->job, 1);
        /* Nobody hears it, and the job keeps what matters itself (keeps_text). */
        t->job.out.len = t->job.out_at = 0;
    }
    if (e == JOB_FAILED || (t->forgotten && has_ended(t)))
        return false;
    if (has_ended(t))
        drop_question(t);
    return true;
}

int turns_run(struct turns *l)
{
    struct turn *goes = NULL, **at = &l->list;
    int ms = -1;

    (void)pthread_mutex_lock(&l->lock);
    while (*at) {
        struct turn *t = *at;
        uint64_t now = clock_ns(), until = t->left_ns + l->wait_ns;

        /* It stays. Else its time is over, or it has failed. */
        if (now < until && (has_ended(t) || !can_go_on(t) || go_on(t))) {
            ms = clock_sooner_ms(ms, clock_until_ms(until, now));
            at = &t->next;
            continue;
        }
        (void)take_out(l, at);
        t->next = goes;
        goes = t;
    }
    (void)pthread_mutex_unlock(&l->lock);
    free_all(goes);
    return ms;
}
