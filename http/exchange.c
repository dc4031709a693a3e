/* http/exchange.c - one request: its headers are judged, its body is gathered, it is answered.
 *
 * What is refused by its headers is told when the body has come (and was dropped): an answer in the
 * middle of a request, and the reset that follows it, are lost to most clients.
 *
 * A stream's status goes out with its first bytes. So it waits for these, or for the first moment
 * of silence: what is wrong with a prompt is known by then, and gets a status of its own.
 */
#include "http/server.h"

#include "base/clock.h"
#include "base/shown.h"
#include "http/page.h"
#include "http/route.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What libmicrohttpd asks for at once at most: a token's event has some 200 bytes, so this is room
 * for all that came meanwhile. */
#define STREAM_BLOCK (16u * 1024)

/* From the first line of a request until it is completed, on its connection's thread. libmicrohttpd
 * calls with it: once with the headers, then for each piece of the body, then once more. */
struct exchange {
    struct server *server;
    struct client *client;
    struct MHD_Connection *connection;
    const struct route *route;
    const struct page_file *page; /* NULL: it is something else */
    const char *tail;
    char *url, method[16];
    char *origin; /* that may read the answer; NULL: none said so */
    const char *who, *allow;
    struct text body;
    struct problem problem;
    struct turn *turn;
    bool answered, error_said;
    unsigned status;
    uint64_t begun_ns;
};

static const char *header(struct exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

/* --- answers ---------------------------------------------------------------------------------- */

static bool add_headers(struct exchange *x, struct MHD_Response *r, const char *type)
{
    char number[16];
    /* What we say is of the type that we say, whatever it looks like: an answer holds what others
     * wrote, and a browser that guesses would run it as a page. */
    bool ok = MHD_add_response_header(r, "Content-Type", type) == MHD_YES &&
              MHD_add_response_header(r, "X-Content-Type-Options", "nosniff") == MHD_YES;

    if (x->origin)
        ok = ok &&
             MHD_add_response_header(r, "Access-Control-Allow-Origin", x->origin) == MHD_YES &&
             MHD_add_response_header(r, "Vary", "Origin") == MHD_YES;
    if (x->turn->begun)
        ok = ok && MHD_add_response_header(r, "X-Request-Id", x->turn->job.id) == MHD_YES;
    if (x->problem.kind == PROBLEM_KEY)
        ok = ok && MHD_add_response_header(r, "WWW-Authenticate", "Bearer") == MHD_YES;
    if (x->allow)
        ok = ok && MHD_add_response_header(r, "Allow", x->allow) == MHD_YES;
    /* Clients of OpenAI and Anthropic ask again by themselves, where the same would happen. */
    if (x->problem.kind == PROBLEM_DEADLINE)
        ok = ok && MHD_add_response_header(r, "X-Should-Retry", "false") == MHD_YES;
    if (x->problem.kind && problem_retry_s(&x->problem)) {
        (void)snprintf(number, sizeof(number), "%u", problem_retry_s(&x->problem));
        ok = ok && MHD_add_response_header(r, "Retry-After", number) == MHD_YES;
    }
    return ok;
}

/* r, which it takes over; NULL: there was no memory, and the connection ends. */
static enum MHD_Result queue(struct exchange *x, unsigned status, const char *type,
                             struct MHD_Response *r)
{
    enum MHD_Result result = MHD_NO;

    x->answered = true;
    x->status = status;
    if (r && add_headers(x, r, type)) {
        /* From here on it is the client's turn to take it. */
        (void)MHD_set_connection_option(x->connection, MHD_CONNECTION_OPTION_TIMEOUT,
                                        (unsigned)x->server->conf->send_s);
        result = MHD_queue_response(x->connection, status, r);
    }
    if (r)
        MHD_destroy_response(r);
    return result;
}

/* Of JSON; t is taken over. */
static enum MHD_Result answer_body(struct exchange *x, unsigned status, struct text *t)
{
    struct MHD_Response *r = NULL;

    if (t->bytes && !t->lost)
        r = MHD_create_response_from_buffer(t->len, t->bytes, MHD_RESPMEM_MUST_FREE);
    if (!r)
        text_fini(t);
    return queue(x, status, "application/json", r);
}

static enum MHD_Result answer_unbuilt(struct exchange *x);

/* body is taken over; NULL: out of memory. */
static enum MHD_Result answer_json(struct exchange *x, unsigned status, struct json_object *body)
{
    struct text t = { 0 };

    if (body)
        json_write(&t, body);
    json_free(body);
    if (t.bytes && !t.lost)
        return answer_body(x, status, &t);
    text_fini(&t);
    return answer_unbuilt(x);
}

/* Refused in the words of the API that was asked, or that its path looks like. */
static enum MHD_Result answer_problem(struct exchange *x)
{
    const struct voice *v = x->route ? x->route->voice : route_voice(x->url);

    return answer_json(x, problem_status(&x->problem), v->refusal(&x->problem));
}

/* An answer that there was no memory for is refused, and where there is none for that either, by
 * what lies ready. */
static enum MHD_Result answer_unbuilt(struct exchange *x)
{
    static const char ready[] =
        "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"" PROBLEM_UNBUILT
        "\",\"param\":null,\"code\":null}}";

    if (x->problem.kind == PROBLEM_NONE) {
        (void)problem_unbuilt(&x->problem);
        return answer_problem(x);
    }
    return queue(x, 500, "application/json",
                 MHD_create_response_from_buffer(sizeof(ready) - 1, (void *)(uintptr_t)ready,
                                                 MHD_RESPMEM_PERSISTENT));
}

/* text is static: nothing is copied, and nothing freed. */
static enum MHD_Result answer_text(struct exchange *x, const char *text)
{
    return queue(x, 200, "text/plain; charset=utf-8",
                 MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text,
                                                 MHD_RESPMEM_PERSISTENT));
}

/* What the page may do, however its texts came into it: nothing but talk to us. Nobody else may
 * show it. */
static enum MHD_Result answer_page(struct exchange *x)
{
    static const char *const headers[][2] = {
        { "Content-Security-Policy",
          "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src "
          "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
          "require-trusted-types-for 'script'; trusted-types 'none'" },
        { "Referrer-Policy", "no-referrer" },
        { "Cross-Origin-Opener-Policy", "same-origin" },
        { "Cross-Origin-Resource-Policy", "same-origin" },
        { "Cache-Control", "no-cache" },
    };
    struct MHD_Response *r = MHD_create_response_from_buffer(
        x->page->len, (void *)(uintptr_t)x->page->bytes, MHD_RESPMEM_PERSISTENT);

    for (size_t i = 0; r && i < sizeof(headers) / sizeof(headers[0]); i++)
        if (MHD_add_response_header(r, headers[i][0], headers[i][1]) != MHD_YES) {
            MHD_destroy_response(r);
            r = NULL;
        }
    return queue(x, 200, x->page->type, r);
}

/* A page asks first whether it may ask. */
static enum MHD_Result answer_preflight(struct exchange *x)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    const char *headers = header(x, "Access-Control-Request-Headers");

    if (r && (MHD_add_response_header(r, "Access-Control-Allow-Methods",
                                      "GET, POST, DELETE, OPTIONS") != MHD_YES ||
              (headers &&
               MHD_add_response_header(r, "Access-Control-Allow-Headers", headers) != MHD_YES))) {
        MHD_destroy_response(r);
        r = NULL;
    }
    return queue(x, 204, "text/plain", r);
}

/* --- jobs ------------------------------------------------------------------------------------- */

/* The next bytes of a stream. */
static ssize_t on_more(void *cls, uint64_t pos, char *buf, size_t max)
{
    struct exchange *x = cls;
    struct job *j = &x->turn->job;
    enum job_event event;

    (void)pos;
    /* We are the ones that are waited for: libmicrohttpd would count the time that a prompt takes
     * as the client's silence. */
    (void)MHD_set_connection_option(x->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
    while ((event = job_wait(j, (int)x->server->conf->keep_alive_s * 1000)) != JOB_OUTPUT) {
        if (event == JOB_QUIET) {
            x->route->voice->keep_alive(j);
            /* The next round takes what this has put into out, and the one behind it comes here
             * again and ends. */
        } else if (event == JOB_FAILED && !x->error_said && !j->out.lost) {
            x->error_said = true;
            x->route->voice->error(j);
        } else {
            return event == JOB_GONE || j->out.lost ? MHD_CONTENT_READER_END_WITH_ERROR
                                                    : MHD_CONTENT_READER_END_OF_STREAM;
        }
    }
    (void)MHD_set_connection_option(x->connection, MHD_CONNECTION_OPTION_TIMEOUT,
                                    (unsigned)x->server->conf->send_s);
    return (ssize_t)job_take(j, buf, max);
}

/* Nothing was said yet, so there is still a status to say it with. */
static enum MHD_Result refuse_job(struct exchange *x)
{
    x->problem = x->turn->job.problem;
    return answer_problem(x);
}

/* Waits for the first bytes, or for a moment of silence, before the status is fixed. */
static enum MHD_Result answer_stream(struct exchange *x)
{
    enum job_event event = job_wait(&x->turn->job, (int)x->server->conf->keep_alive_s * 1000);

    if (event == JOB_GONE)
        return MHD_NO;
    if (event == JOB_FAILED)
        return refuse_job(x);
    return queue(
        x, 200, x->route->voice->stream_type,
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, on_more, x, NULL));
}

static enum MHD_Result answer_whole(struct exchange *x)
{
    enum job_event event = job_wait(&x->turn->job, -1);

    if (event == JOB_GONE)
        return MHD_NO;
    if (event == JOB_FAILED)
        return refuse_job(x);
    return answer_json(x, 200, x->route->voice->whole(&x->turn->job));
}

static enum MHD_Result answer_job(struct exchange *x)
{
    struct job *j = &x->turn->job;
    struct ask *ask = &x->turn->ask;
    struct live *live = NULL;

    ask_init(ask);
    if (field_parse(x->body.bytes, x->body.len, &ask->root, &x->problem) < 0 ||
        x->route->read(ask, &x->problem) < 0)
        return answer_problem(x);
    /* The parsed body is what counts from here on: a document twice in memory is once too often. */
    text_fini(&x->body);
    /* The last thing that can be refused: a session that was taken has to be given back, which is
     * the job's to do. */
    if (x->route->is_turn &&
        live_take(&x->server->lives, x->who, ask->session, ask->n_turns, &live, &x->problem) < 0)
        return answer_problem(x);
    /* What one key's requests have read another's do not find: the names of keys are people. */
    if (x->who[0])
        ask->policy.realm = x->who;
    if (live && ask->title)
        live_rename(&x->server->lives, live, ask->title);
    *j = (struct job){ .ask = ask,
                       .voice = x->route->voice,
                       .pool = &x->server->pool,
                       .tokens = &x->server->tokens,
                       .client_fd = x->client->fd,
                       .stop_fd = x->server->stop_fd,
                       .label = ask->title  ? ask->title
                                : x->who[0] ? x->who
                                            : "http",
                       .lives = live ? &x->server->lives : NULL,
                       .live = live,
                       .strict_model = x->server->conf->strict_model };
    x->turn->begun = true;
    if (job_init(j) < 0)
        return refuse_job(x);
    return ask->stream ? answer_stream(x) : answer_whole(x);
}

/* Somebody is back: all that was said, and what is still said. */
static enum MHD_Result answer_again(struct exchange *x)
{
    struct turn *t = turns_take(&x->server->turns, x->who, x->tail, &x->problem);

    if (!t)
        return answer_problem(x);
    /* The one that it came with, in which there is nothing yet. */
    turn_free(x->turn);
    x->turn = t;
    t->job.client_fd = x->client->fd;
    t->job.voice->again(&t->job);
    return answer_stream(x);
}

static enum MHD_Result answer_embed(struct exchange *x)
{
    const struct embed_call call = { .pool = &x->server->pool,
                                     .client_fd = x->client->fd,
                                     .stop_fd = x->server->stop_fd,
                                     .strict_model = x->server->conf->strict_model };
    struct text body = { 0 };
    int r;

    if (field_parse(x->body.bytes, x->body.len, &x->turn->ask.root, &x->problem) < 0)
        return answer_problem(x);
    r = x->route->embed(&call, x->turn->ask.root, &body, &x->problem);
    if (r > 0)
        return MHD_NO;
    return r < 0 ? answer_problem(x) : answer_body(x, 200, &body);
}

/* --- the request ------------------------------------------------------------------------------ */

/* A page that came from us: its host is the one that was asked, and that was judged. */
static bool is_ours(const char *origin, const char *host)
{
    const char *rest = strstr(origin, "://");

    return rest && host && strcasecmp(rest + 3, host) == 0;
}

static void judge_origin(struct exchange *x, const struct door *d)
{
    const struct guard *g = &x->server->guard;
    const char *host = header(x, "Host"), *origin = header(x, "Origin");

    if (!d->is_unix && host && !guard_host(g, host))
        (void)problem_set(&x->problem, PROBLEM_FORBIDDEN, NULL,
                          "this server is not known as \"%s\": use localhost or its address, or "
                          "start gist-http with --hosts",
                          host);
    if (origin && !guard_origin(g, origin) && !is_ours(origin, host))
        (void)problem_set(
            &x->problem, PROBLEM_FORBIDDEN, NULL,
            "the page %s may not ask here: start gist-http with --origins to allow it", origin);
    else if (origin)
        x->origin = strdup(origin);
    if (origin && !x->origin) /* a page could not read the answer without it */
        (void)problem_no_memory(&x->problem);
}

/* The page's files and what says that we are there need no key: a browser asks for them before its
 * user could give one. */
static void judge_key(struct exchange *x)
{
    x->who = guard_who(&x->server->guard, header(x, "Authorization"), header(x, "X-Api-Key"));
    if (!x->who && !x->page && !(x->route && x->route->open))
        (void)problem_set(
            &x->problem, PROBLEM_KEY, NULL,
            "the API key is missing or wrong: send one of gist-http's --api-keys file "
            "as `Authorization: Bearer KEY` or `x-api-key: KEY`");
}

static bool is_preflight(const struct exchange *x)
{
    return strcmp(x->method, "OPTIONS") == 0;
}

static bool is_get(const struct exchange *x)
{
    return strcmp(x->method, "GET") == 0 || strcmp(x->method, "HEAD") == 0;
}

static bool is_root(const struct exchange *x)
{
    return strcmp(x->url, "/") == 0 && is_get(x);
}

/* Programs that look whether we are there get a line, browsers the page. */
static const struct page_file *page_of(struct exchange *x)
{
    const char *accept = header(x, "Accept");

    if (!is_get(x) || (is_root(x) && !(accept && strstr(accept, "text/html"))))
        return NULL;
    return page_find(x->url);
}

static void judge_path(struct exchange *x)
{
    if (x->route || x->page || is_root(x))
        return;
    if (x->allow)
        (void)problem_set(&x->problem, PROBLEM_METHOD, NULL, "%s takes %s, not %s", x->url,
                          x->allow, x->method);
    else
        (void)problem_set(&x->problem, PROBLEM_NOT_FOUND, NULL,
                          "there is no %s here: gist-http(1) lists what is", x->url);
}

/* With the headers. Whatever is wrong is noted, the first thing alone, and told when the body has
 * come. NULL: no memory, and the connection ends. */
static struct exchange *begin(struct door *d, struct MHD_Connection *connection, const char *url,
                              const char *method)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct exchange *x = calloc(1, sizeof(*x));

    if (!x || !info || !info->socket_context)
        goto fail;
    /* Made for every request: it holds the ask and the job, and may outlive the exchange. */
    x->turn = turn_new();
    if (!x->turn)
        goto fail;
    x->server = d->server;
    x->client = info->socket_context;
    x->connection = connection;
    x->begun_ns = clock_ns();
    x->url = strdup(url);
    if (!x->url)
        goto fail;
    (void)snprintf(x->method, sizeof(x->method), "%s", method);
    x->route = route_find(x->method, x->url, &x->tail, &x->allow);
    x->page = page_of(x);
    judge_origin(x, d);
    if (!is_preflight(x)) {
        judge_key(x);
        judge_path(x);
    }
    return x;

fail:
    if (x)
        turn_free(x->turn);
    free(x);
    return NULL;
}

/* The body of a request that is refused already is taken and thrown away. */
static void gather(struct exchange *x, const char *data, size_t size)
{
    if (x->problem.kind)
        return;
    if (size > x->server->conf->max_body - x->body.len) {
        text_fini(&x->body);
        (void)problem_set(&x->problem, PROBLEM_TOO_LARGE, NULL,
                          "the request is longer than %llu bytes: gist-http's --max-body allows no "
                          "more",
                          (unsigned long long)x->server->conf->max_body);
        return;
    }
    text_add(&x->body, data, size);
    if (x->body.lost)
        (void)problem_no_memory(&x->problem);
}

static enum MHD_Result answer_about(struct exchange *x)
{
    struct live_ask a = {
        .lives = &x->server->lives, .turns = &x->server->turns, .who = x->who, .tail = x->tail
    };
    struct json_object *body;
    int r;

    if (x->body.len > 0 &&
        field_parse(x->body.bytes, x->body.len, &x->turn->ask.root, &x->problem) < 0)
        return answer_problem(x);
    a.body = x->turn->ask.root; /* the ask's to free */
    r = x->route->about(&a, &body, &x->problem);
    return r < 0 ? answer_problem(x) : answer_json(x, 200, body);
}

static enum MHD_Result answer(struct exchange *x)
{
    struct json_object *body;

    if (x->problem.kind)
        return answer_problem(x);
    if (is_preflight(x))
        return answer_preflight(x);
    if (x->page)
        return answer_page(x);
    if (!x->route)
        return answer_text(x, "gist-http is running: gist-http(1) says what it answers.\n");
    if (x->route->read)
        return answer_job(x);
    if (x->route->is_answer)
        return answer_again(x);
    if (x->route->about)
        return answer_about(x);
    if (x->route->embed)
        return answer_embed(x);
    if (x->route->info(&x->server->pool, x->tail, &body, &x->problem) < 0)
        return answer_problem(x);
    return answer_json(x, 200, body);
}

enum MHD_Result exchange_on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                    const char *method, const char *version, const char *data,
                                    size_t *size, void **ret_exchange)
{
    struct exchange *x = *ret_exchange;

    (void)version;
    if (!x) {
        x = *ret_exchange = begin(cls, connection, url, method);
        return x ? MHD_YES : MHD_NO;
    }
    if (*size > 0) {
        gather(x, data, *size);
        *size = 0;
        return MHD_YES;
    }
    if (x->answered)
        return MHD_YES;
    /* Ours to be slow now: nobody's silence is counted. */
    server_waits(x->server, x->client, false);
    (void)MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
    return answer(x);
}

/* --- the end ---------------------------------------------------------------------------------- */

/* No text of a request or an answer, and no key. */
static void log_line(const struct exchange *x)
{
    const struct job_usage *u = &x->turn->job.usage;

    shown_line(stderr, "gist-http: %s%s%s %s %u, %.0f ms, %u tokens read, %u computed, %u said",
               x->who ? x->who : "", x->who && x->who[0] ? " " : "", x->method, x->url, x->status,
               (double)(clock_ns() - x->begun_ns) / 1e6, u->prompt, u->computed, u->generated);
}

void exchange_on_completed(void *cls, struct MHD_Connection *connection, void **exchange,
                           enum MHD_RequestTerminationCode how)
{
    struct exchange *x = *exchange;

    (void)cls;
    (void)how;
    if (!x)
        return;
    if (x->server->conf->log_requests)
        log_line(x);
    /* Before the exchange goes: the turn does not point to it any more. */
    turns_leave(&x->server->turns, x->turn, x->who ? x->who : "");
    text_fini(&x->body);
    /* The next request of the connection is awaited. */
    (void)MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT,
                                    (unsigned)x->server->conf->request_s);
    server_waits(x->server, x->client, true);
    free(x->url);
    free(x->origin);
    free(x);
    *exchange = NULL;
}
