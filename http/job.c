/* http/job.c - a request is answered, from one wait to the next.
 *
 * job_wait goes round: what is to be told is told, and where nothing has to be waited for advance()
 * takes the next step of the state machine in job.h. Steps ask libgist for something without
 * waiting; its callbacks, which come from gist_dispatch, move the state on, and ask the daemon
 * nothing. */

#include "http/job_inner.h"

#include "base/clock.h"
#include "http/say.h"
#include "http/tools.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/* For names of answers and for seeds: that two are hardly ever the same is enough, so the clock
 * will do where the kernel has no random bits yet. */
uint64_t job_random(void)
{
    uint64_t x;

    if (getrandom(&x, sizeof(x), GRND_NONBLOCK) != (ssize_t)sizeof(x))
        x = clock_ns();
    return x;
}

int job_init(struct job *j)
{
    j->n_choices = j->ask->n_prompts * j->ask->n;
    /* One more: an ask without a prompt has none, and NULL means "no memory". */
    j->choices = calloc(j->n_choices + 1, sizeof(*j->choices));
    (void)snprintf(j->id, sizeof(j->id), "%016llx%08x", (unsigned long long)job_random(),
                   (unsigned)job_random());
    j->created_s = (uint64_t)time(NULL);
    j->begun_ns = clock_ns();
    return j->choices ? 0 : problem_no_memory(&j->problem);
}

void job_close_session(struct job *j)
{
    gist_close(j->base);
    j->base = NULL;
}

/* The next request on it has other ears, and its own time. */
static void leave_conn(gist_conn *c)
{
    gist_on_loading(c, NULL, NULL);
    (void)gist_set_deadline(c, 0);
}

/* What it holds is what its client knows of, or it is of no use. */
static void give_live(struct job *j)
{
    struct live *s = j->live;
    bool unread = j->problem.kind == PROBLEM_STOPPED;

    j->conn = NULL;
    j->live = NULL;
    if (!s)
        return;
    if (j->waiting || (j->problem.kind && !unread)) {
        live_drop(j->lives, s);
        j->session[0] = '\0';
    } else {
        if (j->base) /* else it was stopped before it was open */
            gist_on_progress(j->base, NULL, NULL);
        leave_conn(s->conn);
        if (!live_put(j->lives, s, !unread))
            j->session[0] = '\0';
    }
    j->base = NULL;
}

/* As soon as nothing more is wanted of it, and before the client has its last byte: who asks one
 * thing after the other needs one connection. */
static void give_back(struct job *j)
{
    gist_conn *c = j->conn;

    if (j->lives) {
        give_live(j);
        return;
    }
    j->conn = NULL; /* what is told about the end of a request is not for us any more */
    if (c && j->waiting) {
        pool_drop(j->pool, c); /* with its sessions */
    } else if (c) {
        job_close_session(j);
        leave_conn(c);
        pool_put(j->pool, c);
    }
    j->base = NULL;
}

void job_fini(struct job *j)
{
    give_back(j);
    for (size_t i = 0; j->choices && i < j->n_choices; i++) {
        text_fini(&j->choices[i].text);
        json_free(j->choices[i].logprobs);
        json_free(j->choices[i].calls);
        logprobs_fini(&j->choices[i].pieces);
        calls_fini(&j->choices[i].parser);
    }
    free(j->choices);
    j->choices = NULL;
    json_free(j->said);
    j->said = NULL;
    mem_fini(&j->mem);
    text_fini(&j->out);
}

/* The first problem stays: what follows from it is of no interest. */
void job_fail(struct job *j)
{
    (void)problem_of_gist(&j->problem, j->conn);
}

/* What is asked next ends with the time that there is for all of it. */
int job_set_deadline(struct job *j)
{
    uint64_t until = j->begun_ns + j->ask->deadline_ms * CLOCK_MS;
    int left = clock_until_ms(until, clock_ns());

    if (!j->ask->deadline_ms || gist_set_deadline(j->conn, left > 0 ? (unsigned)left : 1) == 0)
        return 0;
    job_fail(j);
    return -1;
}

/* --- reading the prompt ----------------------------------------------------------------------- */

/* A model that was given back (gistd --idle) comes back for a request. 0 is kept for "nothing is
 * loaded". */
static int on_loading(void *arg, unsigned percent)
{
    struct job *j = arg;

    j->loading = percent ? percent : 1;
    return 0;
}

/* The daemon of an idle connection went away while nobody looked: nothing was lost yet. */
static int renew_conn(struct job *j)
{
    j->renew = false;
    j->fresh = true;
    if (pool_renew(j->pool, j->conn, &j->conn, &j->problem) == 0)
        return 0;
    j->conn = NULL;
    return -1;
}

static int connect_job(struct job *j)
{
    struct gist_info info;

    if (j->live && live_connect(j->lives, j->live, &j->problem) < 0)
        return -1;
    /* fresh: it is not renewed when it turns out to be dead, since what the session holds is gone
     * with it. */
    if (j->live) {
        j->conn = j->live->conn;
        j->fresh = true;
    } else if (j->renew && renew_conn(j) < 0) {
        return -1;
    } else if (!j->conn && pool_take(j->pool, &j->conn, &j->fresh, &j->problem) < 0) {
        return -1;
    }
    gist_on_loading(j->conn, on_loading, j);
    gist_info(j->conn, &info);
    (void)snprintf(j->model, sizeof(j->model), "%s", info.model);
    return j->strict_model ? pool_check_model(j->conn, j->ask->model, &j->problem) : 0;
}

static void fail_open(struct job *j)
{
    if (gist_error_code(j->conn) == GIST_E_TRANSPORT && !j->fresh) {
        j->renew = true;
        j->state = JOB_OPEN;
    } else {
        job_fail(j);
    }
}

static void fail_stopped(struct job *j)
{
    (void)problem_set(&j->problem, PROBLEM_STOPPED, NULL,
                      "stopped before all of it was read: nothing of it is kept");
}

static void on_open(void *arg, int err, gist_session *session)
{
    struct job *j = arg;

    if (!j->conn)
        return;
    j->waiting = false;
    if (err == 0) {
        j->base = session;
        j->state = JOB_OPENED;
    } else if (err == -ECANCELED && j->stopped) {
        fail_stopped(j);
    } else {
        fail_open(j);
    }
}

/* It may have to wait for that: for the end of a step, or while the model comes back. */
static void open_session(struct job *j)
{
    struct gist_policy policy = j->ask->policy;

    if (connect_job(j) < 0)
        return;
    if (j->live && j->live->session) {
        j->base = j->live->session;
        j->state = JOB_OPENED;
        return;
    }
    if (job_set_deadline(j) < 0)
        return;
    policy.label = j->label;
    j->state = JOB_OPENING;
    j->waiting = true;
    if (gist_open_start(j->conn, &policy, on_open, j, &j->request) < 0) {
        j->waiting = false;
        fail_open(j);
    }
}

/* A live one is open, or is from now on. */
static void tell_session(struct job *j)
{
    struct live *s = j->live;

    if (s && !s->session)
        live_opened(j->lives, s, j->base);
    if (s) {
        (void)snprintf(j->session, sizeof(j->session), "%s", s->id);
        j->n_turns = s->n_turns;
    }
    if (j->ask->stream && j->voice->opened)
        j->voice->opened(j);
}

/* What the last tokens stand on. */
void job_stand_on(struct job_usage *to, const struct gist_usage *u)
{
    to->raw = u->raw_tokens;
    to->gist_tokens = u->gist_tokens;
    to->gists = u->gists;
    to->hydrated = u->hydrated_tokens;
    to->missed = u->missed_tokens;
    to->ratio = u->ratio;
}

/* What an answer begins with is read by an append of its own: both count. */
static void add_read(struct job_usage *to, const struct gist_usage *u)
{
    to->computed += u->computed_tokens;
    to->shared += u->shared_tokens;
    to->restored += u->restored_tokens;
    to->prompt_ns += u->prompt_ns;
}

/* The end of an append. Without a connection the job has given it up already. */
static void on_read(void *arg, int err, const struct gist_result *result)
{
    struct job *j = arg;

    if (!j->conn)
        return;
    j->waiting = false;
    if (err == -ECANCELED && j->stopped) {
        fail_stopped(j);
        return;
    }
    if (err < 0) {
        job_fail(j);
        return;
    }
    add_read(&j->usage, &result->usage);
    job_stand_on(&j->usage, &result->usage);
    j->n_read = j->n_all = result->usage.prompt_tokens;
    j->state = j->state == JOB_READING ? JOB_CONTINUING : JOB_CHOICE;
}

/* For who is told how far it is, and for who wants the number alone (counted). */
static void on_progress(void *arg, uint32_t n_read, uint32_t n_all)
{
    struct job *j = arg;

    j->n_read = n_read;
    j->n_all = n_all;
}

/* A model without a chat template goes on with text: messages are paragraphs. */
static int read_plain(struct job *j, const struct ask_prompt *p)
{
    struct text t = { 0 };
    int r;

    for (size_t i = 0; i < p->n_msgs; i++)
        text_print(&t, "%s%s", i ? "\n\n" : "", p->msgs[i].text);
    r = t.lost ? problem_no_memory(&j->problem)
               : gist_append_text_start(j->base, t.bytes ? t.bytes : "", t.len, 0, on_read, j,
                                        &j->request);
    text_fini(&t);
    return r;
}

/* A model that never saw calls may be held to one by its schema; what it would do freely nobody
 * could tell from text. */
static int check_tools(struct job *j, const struct gist_info *info)
{
    if (j->ask->n_tools == 0)
        return 0;
    if (!info->chat)
        return problem_set(&j->problem, PROBLEM_UNSUPPORTED, "tools",
                           "this model has no chat template, which is what offers it tools");
    if (!j->ask->must_call && gist_tools(j->conn) == GIST_TOOLS_NONE)
        return problem_set(
            &j->problem, PROBLEM_UNSUPPORTED, "tools",
            "the chat template of this model knows no tools: it can only be made to "
            "call one, by `tool_choice`; models that know them are Qwen2.5 and Llama "
            "3.1");
    return 0;
}

/* Special tokens count as such in a text that goes to the model without a template: who writes the
 * template has to name them. */
static void read_prompt(struct job *j)
{
    const struct ask_prompt *p = &j->ask->prompts[j->prompt];
    struct gist_info info;
    int r;

    tell_session(j);
    if (j->stopped) { /* too late for the daemon to hear of it */
        fail_stopped(j);
        return;
    }
    gist_on_progress(j->base, on_progress, j);
    gist_info(j->conn, &info);
    if (check_tools(j, &info) < 0 || job_set_deadline(j) < 0)
        return;
    j->state = JOB_READING;
    j->waiting = true;
    if (p->chat && info.chat)
        r = gist_append_chat_start(j->base, p->msgs, p->n_msgs,
                                   j->ask->no_answer ? 0 : GIST_OPEN_ANSWER, on_read, j,
                                   &j->request);
    else if (p->chat)
        r = read_plain(j, p);
    else if (p->n_ids > 0)
        r = gist_append_tokens_start(j->base, p->ids, p->n_ids, on_read, j, &j->request);
    else
        r = gist_append_text_start(j->base, p->text, p->len, GIST_SPECIAL, on_read, j, &j->request);
    if (r < 0) {
        j->waiting = false;
        job_fail(j);
    }
}

/* What the answer is to begin with is read behind the head of the answer. */
static void continue_answer(struct job *j)
{
    static const char call[] = TOOLS_OPEN "\n";
    const struct ask_prompt *p = &j->ask->prompts[j->prompt];
    bool tag = j->ask->must_call && gist_tools(j->conn) != GIST_TOOLS_BARE;

    if (!p->chat || (p->len == 0 && !tag)) {
        j->state = JOB_CHOICE;
        return;
    }
    if (job_set_deadline(j) < 0)
        return;
    j->waiting = true;
    /* Where the tag is a token it is meant as one. */
    if (gist_append_text_start(j->base, tag ? call : p->text, tag ? sizeof(call) - 1 : p->len,
                               tag ? GIST_SPECIAL : 0, on_read, j, &j->request) < 0) {
        j->waiting = false;
        job_fail(j);
    }
}

/* --- from step to step ------------------------------------------------------------------------ */

/* An ask without a prompt wants to know whether there is a model. */
static void begin_nothing(struct job *j)
{
    if (connect_job(j) < 0)
        return;
    j->state = JOB_ENDED;
    if (j->ask->stream)
        j->voice->end(j);
}

/* Nothing has to be waited for. */
static void advance(struct job *j)
{
    switch (j->state) {
    case JOB_OPEN:
        if (j->ask->n_prompts == 0)
            begin_nothing(j);
        else
            open_session(j);
        break;
    case JOB_OPENED:
        read_prompt(j);
        break;
    case JOB_CONTINUING:
        continue_answer(j);
        break;
    case JOB_CHOICE:
        job_choose(j);
        break;
    case JOB_ANSWERED:
        job_end_answers(j);
        break;
    default:
        break;
    }
}

/* --- waiting ---------------------------------------------------------------------------------- */

/* How many tokens a prompt has is known before they are read: then they need not be. */
static bool counted(struct job *j)
{
    const struct ask_prompt *p = &j->ask->prompts[j->prompt];
    uint32_t *ids = NULL;
    size_t n = 0;

    if (!j->ask->count_only || !j->conn || !j->waiting || j->n_all == 0)
        return false;
    if (p->len > 0 && gist_tokenize(j->conn, p->text, p->len, 0, &ids, &n) < 0) {
        job_fail(j);
        return true;
    }
    free(ids);
    j->usage.prompt = j->n_all + (uint32_t)n;
    j->state = JOB_ENDED;
    return true;
}

/* The answer's end comes as any other. */
static void stop(struct job *j)
{
    uint64_t n;

    (void)!read(j->live->stop_fd, &n, sizeof(n));
    j->stopped = true;
    if (j->waiting)
        (void)gist_cancel(j->conn, j->request);
}

/* One wait for whatever comes first. -1: the client is gone. */
static int wait_once(struct job *j, int timeout_ms)
{
    struct pollfd p[] = { { gist_fd(j->conn), POLLIN, 0 },
                          { j->client_fd, POLLRDHUP, 0 },
                          { j->stop_fd, POLLIN, 0 },
                          { j->live ? j->live->stop_fd : -1, POLLIN, 0 } };

    if (p[0].fd < 0) {
        job_fail(j);
        return 0;
    }
    if (poll(p, 4, timeout_ms) < 0 && errno != EINTR) {
        (void)problem_set(&j->problem, PROBLEM_INTERNAL, NULL, "waiting for gistd: %s",
                          strerror(errno));
        return 0;
    }
    /* First of all: for who is gone nothing else is done. */
    if (p[1].revents)
        return -1;
    if (p[2].revents)
        (void)problem_set(&j->problem, PROBLEM_NO_DAEMON, NULL, "gist-http is being stopped");
    if (p[3].revents)
        stop(j);
    /* A daemon that died tells it to the callbacks of what was open. */
    if (p[0].revents && gist_dispatch(j->conn) < 0 && !j->renew)
        job_fail(j);
    return 0;
}

static int left_ms(uint64_t until_ns)
{
    return until_ns == UINT64_MAX ? -1 : clock_until_ms(until_ns, clock_ns());
}

static void tick(struct job *j)
{
    /* A picture may be more than is taken at once: to who reads slowly it comes when the last one
     * was taken, or `out` would grow. */
    if (!j->voice->tick_ms || !j->ask->stream || j->unheard || !j->waiting || j->problem.kind ||
        j->state == JOB_OPENING || j->out.len > j->out_at || left_ms(j->tick_ns) > 0)
        return;
    j->voice->tick(j);
    j->tick_ns = clock_ns() + j->voice->tick_ms * CLOCK_MS;
}

/* Until the client wants to hear of us, or the voice has something to say. */
static int wait_ms(const struct job *j, uint64_t until)
{
    bool ticks = j->voice->tick_ms && !j->unheard && j->state != JOB_OPENING;

    return clock_sooner_ms(left_ms(until), ticks ? left_ms(j->tick_ns) : -1);
}

enum job_event job_wait(struct job *j, int timeout_ms)
{
    uint64_t until = timeout_ms < 0 ? UINT64_MAX : clock_ns() + (uint64_t)timeout_ms * CLOCK_MS;
    struct job_choice *c;

    for (;;) {
        c = job_untold(j);
        if (c && j->conn && !j->problem.kind)
            job_tell_piece(j, c);
        tick(j);
        if (j->out.lost)
            (void)problem_unbuilt(&j->problem);
        /* The connection goes back before the last bytes are told. */
        if (j->problem.kind || j->state == JOB_ENDED || counted(j))
            give_back(j);
        if (j->out.len > j->out_at && !j->out.lost)
            return JOB_OUTPUT;
        if (j->problem.kind)
            return JOB_FAILED;
        if (j->state == JOB_ENDED)
            return JOB_DONE;
        c = job_untold(j);
        /* With pieces that are not told yet the state stays, and they are told first, one in each
         * round. */
        if (!j->waiting && !c) {
            advance(j);
            continue;
        }
        if (left_ms(until) == 0)
            return JOB_QUIET;
        if (wait_once(j, c ? 0 : wait_ms(j, until)) < 0)
            return JOB_GONE;
    }
}

/* What is taken stays where it is until all is: no byte is moved for the sake of a few. */
size_t job_take(struct job *j, char *ret, size_t cap)
{
    size_t n = j->out.len - j->out_at;

    n = n < cap ? n : cap;
    if (n > 0)
        memcpy(ret, j->out.bytes + j->out_at, n);
    j->out_at += n;
    if (j->out_at == j->out.len)
        j->out.len = j->out_at = 0;
    return n;
}
