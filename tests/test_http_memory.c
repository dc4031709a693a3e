/* tests/test_http_memory.c - answers of gist-http where memory ends at any of the calls that make
 * them. Would catch: a crash, an answer that lacks what there was no memory for and looks whole, a
 * request that is said to be no JSON, and a client that is told nothing: 500 is due.
 */
#include "http/calls.h"
#include "http/read.h"
#include "http/say.h"
#include "http/server.h"
#include "tests/support/fault.h"

#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

/* json-c's calls that make something, of http/json.c (the Makefile's WRAP_test_http_memory). */
static atomic_uint n_refused; /* of all threads, from now on; UINT_MAX: all */

static bool fails(const char *name)
{
    unsigned n = n_refused;

    while (n > 0 && n < UINT_MAX && !atomic_compare_exchange_weak(&n_refused, &n, n - 1))
        ;
    return n > 0 || fault_here(name, ENOMEM);
}

#define WATCH(type, failed, name, params, args)                                                    \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        return fails(#name) ? failed : __real_##name args;                                         \
    }

WATCH(struct json_object *, NULL, json_object_new_object, (void), ())
WATCH(struct json_object *, NULL, json_object_new_array, (void), ())
WATCH(struct json_object *, NULL, json_object_new_string, (const char *s), (s))
WATCH(struct json_object *, NULL, json_object_new_string_len, (const char *s, int n), (s, n))
WATCH(struct json_object *, NULL, json_object_new_int64, (int64_t i), (i))
WATCH(struct json_object *, NULL, json_object_new_double, (double x), (x))
WATCH(struct json_object *, NULL, json_object_new_boolean, (json_bool b), (b))
WATCH(int, -1, json_object_object_add,
      (struct json_object * o, const char *name, struct json_object *v), (o, name, v))
WATCH(int, -1, json_object_array_add, (struct json_object * a, struct json_object *v), (a, v))
WATCH(const char *, NULL, json_object_to_json_string_length,
      (struct json_object * o, int flags, size_t *len), (o, flags, len))
WATCH(struct json_tokener *, NULL, json_tokener_new_ex, (int depth), (depth))

/* --- answers ---------------------------------------------------------------------------------- */

#define TOOLS                                                                                      \
    "\"tools\": [{\"type\": \"function\", \"name\": \"f\", \"input_schema\": {\"type\": "          \
    "\"object\"}, \"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\"}}}]"
#define CHAT "\"messages\": [{\"role\": \"user\", \"content\": \"Why?\"}], \"max_tokens\": 9"

static const struct {
    read_fn *read;
    const struct voice *voice;
    const char *body;
    bool calls, logprobs;
} apis[] = {
    { read_chat_completions, &say_chat,
      "{" CHAT ", " TOOLS ", \"stream_options\": "
      "{\"include_usage\": true}, \"stream\": true}",
      true, false },
    { read_chat_completions, &say_chat, "{" CHAT ", \"n\": 2, \"logprobs\": true}", false, true },
    { read_completions, &say_completions, "{\"prompt\": \"Why?\", \"logprobs\": 1}", false, true },
    { read_responses, &say_responses,
      "{\"input\": \"Why?\", \"max_output_tokens\": 9, "
      "\"tools\": [{\"type\": \"function\", \"name\": \"f\"}]}",
      true, false },
    { read_responses, &say_responses,
      "{\"input\": \"Why?\", \"include\": "
      "[\"message.output_text.logprobs\"]}",
      false, true },
    { read_messages, &say_messages, "{" CHAT ", " TOOLS "}", true, false },
    { read_ollama_chat, &say_ollama_chat, "{" CHAT ", " TOOLS "}", true, false },
    { read_ollama_generate, &say_ollama_generate, "{\"prompt\": \"Why?\", \"logprobs\": true}",
      false, true },
    { read_turn, &say_page, "{" CHAT "}", false, false },
};

static struct json_object *parse(const char *text)
{
    struct json_object *v;
    char why[160];

    if (json_read(text, strlen(text), 0, &v, why) < 0)
        fail_msg("%s: %s", text, why);
    return v;
}

static struct json_object *some_logprobs(void)
{
    return parse("[{\"token\": \"So\", \"logprob\": -0.5, \"bytes\": [83, 111], \"top_logprobs\": "
                 "[{\"token\": \"So\", \"logprob\": -0.5, \"bytes\": null}]}]");
}

/* A job that has come to its end. */
static void open_job(struct job *j, struct ask *ask, size_t api)
{
    struct problem p = { .kind = PROBLEM_NONE };
    const char *body = apis[api].body;

    ask_init(ask);
    if (field_parse(body, strlen(body), &ask->root, &p) < 0 || apis[api].read(ask, &p) < 0)
        fail_msg("%s: %s", body, p.text);
    *j = (struct job){ .ask = ask, .voice = apis[api].voice, .unheard = true };
    assert_int_equal(job_init(j), 0);
    (void)snprintf(j->model, sizeof(j->model), "a \"model\"");
    for (size_t i = 0; i < j->n_choices; i++) {
        text_print(&j->choices[i].text, "So \x01\n\"it\" is: %zu", i);
        j->choices[i].reason = GIST_LENGTH;
        if (apis[api].calls)
            j->choices[i].calls = parse("[{\"id\": \"1\", \"name\": \"f\", \"arguments\": "
                                        "{\"a\": [1.50, true, null, \"x\"]}}]");
        if (apis[api].logprobs)
            j->choices[i].logprobs = some_logprobs();
    }
}

static void close_job(struct job *j, struct ask *ask)
{
    job_fini(j);
    ask_fini(ask);
}

/* Clocks go on, ids and lengths of times differ: a number is as good as any other. */
static void without_numbers(struct text *t)
{
    size_t n = 0;

    for (size_t i = 0; i < t->len; i++)
        if (t->bytes[i] < '0' || t->bytes[i] > '9')
            t->bytes[n++] = t->bytes[i];
    if (t->bytes)
        t->bytes[n] = '\0';
    t->len = n;
}

typedef void build_fn(struct job *j, size_t api, struct text *ret);

static void build_whole(struct job *j, size_t api, struct text *ret)
{
    struct json_object *o = apis[api].voice->whole(j);

    ret->lost = !o;
    if (o)
        json_write(ret, o);
    json_free(o);
}

static void build_stream(struct job *j, size_t api, struct text *ret)
{
    const struct voice *v = apis[api].voice;

    j->n_events = 0;
    j->in_text = false;
    v->begin(j);
    for (j->choice = 0; j->choice < j->n_choices; j->choice++) {
        v->choice(j);
        if (apis[api].logprobs)
            j->said = json_share(j->choices[j->choice].logprobs);
        v->text(j, "some", 4);
        json_free(j->said);
        j->said = NULL;
        if (apis[api].calls)
            v->call(j, json_at(j->choices[j->choice].calls, 0));
        v->choice_end(j);
    }
    j->choice = 0;
    v->end(j);
    *ret = j->out;
    j->out = (struct text){ 0 };
}

static void build_error(struct job *j, size_t api, struct text *ret)
{
    struct json_object *o;

    (void)api;
    (void)problem_set(&j->problem, PROBLEM_INTERNAL, "x", "it failed");
    j->voice->error(j);
    *ret = j->out;
    j->out = (struct text){ 0 };
    o = j->voice->refusal(&j->problem);
    ret->lost |= !o;
    if (o)
        json_write(ret, o);
    json_free(o);
    j->problem.kind = PROBLEM_NONE;
}

/* Each call fails once: nothing comes of it, or all. */
static void build_all(build_fn *build, size_t api)
{
    struct text right = { 0 }, t;
    struct fault f = { 0 };
    bool failed = true;
    struct ask ask;
    struct job j;

    open_job(&j, &ask, api);
    build(&j, api, &right);
    assert_false(right.lost);
    without_numbers(&right);
    for (uint64_t n = 1; failed; n++) {
        t = (struct text){ 0 };
        fault_arm(n);
        build(&j, api, &t);
        failed = fault_disarm(&f);
        without_numbers(&t);
        if (!t.lost && strcmp(t.bytes, right.bytes) != 0)
            fail_msg("%s, %s at call %zu: %s instead of %s", apis[api].body,
                     f.name ? f.name : "nothing", (size_t)n, t.bytes, right.bytes);
        assert_true(failed || !t.lost);
        text_fini(&t);
    }
    assert_true(f.n_calls > 5);
    text_fini(&right);
    close_job(&j, &ask);
}

static void test_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(apis) / sizeof(*apis); i++) {
        if (apis[i].voice->whole)
            build_all(build_whole, i);
        build_all(build_stream, i);
        build_all(build_error, i);
    }
}

/* --- requests --------------------------------------------------------------------------------- */

/* What can't be read for want of memory is not the client's fault. */
static void test_requests(void **state)
{
    struct problem p;
    struct fault f;
    struct ask a;

    (void)state;
    for (size_t i = 0; i < sizeof(apis) / sizeof(*apis); i++)
        for (uint64_t n = 1;; n++) {
            const char *body = apis[i].body;
            bool failed;
            int r;

            p = (struct problem){ .kind = PROBLEM_NONE };
            ask_init(&a);
            fault_arm(n);
            r = field_parse(body, strlen(body), &a.root, &p) < 0 ? -1 : apis[i].read(&a, &p);
            failed = fault_disarm(&f);
            ask_fini(&a);
            if (!failed) {
                assert_int_equal(r, 0);
                break;
            }
            if (r == 0 || p.kind != PROBLEM_FULL)
                fail_msg("%s, %s at call %zu: %d, %s", body, f.name, (size_t)n, r, p.text);
        }
}

/* --- calls ------------------------------------------------------------------------------------ */

static void on_text(void *arg, const char *text, size_t len)
{
    text_add(arg, text, len);
}

static void on_call(void *arg, const char *name, struct json_object *arguments)
{
    text_print(arg, "<%s>", name);
    json_write(arg, arguments);
    json_free(arguments);
}

static void call(bool held, const char *said, const char *told)
{
    static const struct ask_tool tool = { .name = "f" };
    bool failed = true;
    struct fault f;

    for (uint64_t n = 1; failed; n++) {
        struct text t = { 0 };
        struct calls c = { .tools = &tool, .n_tools = 1, .on_text = on_text, .on_call = on_call };

        c.arg = &t;
        if (held)
            calls_begin_held(&c, GIST_TOOLS_BARE);
        else
            calls_begin(&c, false);
        fault_arm(n);
        calls_add(&c, said, strlen(said));
        calls_end(&c);
        failed = fault_disarm(&f);
        t.lost |= c.held.lost;
        assert_true(failed || !t.lost);
        if (!t.lost)
            assert_string_equal(t.bytes, told);
        calls_fini(&c);
        text_fini(&t);
    }
}

/* A call that can't be read is not told as text. */
static void test_calls(void **state)
{
    (void)state;
    call(false,
         "Well.\n<tool_call>\n{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}\n</tool_call>",
         "Well.<f>{\"a\":1}");
    call(true, "{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "<f>{\"a\":1}");
    call(true, "{\"name\": \"f\", \"age\": 1}", "{\"name\": \"f\", \"age\": 1}");
}

/* --- what a client is told -------------------------------------------------------------------- */

static void *run_server(void *server)
{
    (void)server_run(server);
    return NULL;
}

/* The whole reply to one request; Connection: close ends it. */
static void ask_server(const char *path, char *ret, size_t cap)
{
    static const char request[] =
        "GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t len = 0;
    ssize_t n;

    assert_true(fd >= 0);
    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL), sizeof(request) - 1);
    while (len < cap - 1 && (n = recv(fd, ret + len, cap - 1 - len, 0)) > 0)
        len += (size_t)n;
    ret[len] = '\0';
    close(fd);
}

static void test_told(void **state)
{
    char dir[] = "/tmp/gist-http-XXXXXX", path[64], reply[4096];
    char *argv[] = { "gist-http", "--listen", "", "--unix", path, "--config", "/dev/null" };
    struct why why = { "" };
    struct server server;
    struct conf conf;
    struct listen at;
    sigset_t set, old;
    pthread_t thread;

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/http.sock", dir);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &set, &old);
    if (conf_load(&conf, 7, argv, &why) < 0 || listen_open(&at, &conf, &why) < 0 ||
        server_open(&server, &conf, &at, &why) < 0)
        fail_msg("%s", why.text);
    assert_int_equal(pthread_create(&thread, NULL, run_server, &server), 0);
    ask_server(path, reply, sizeof(reply));
    assert_memory_equal(reply, "HTTP/1.1 200", 12);
    n_refused = 1; /* the answer, and not the refusal: in Ollama's words */
    ask_server(path, reply, sizeof(reply));
    assert_memory_equal(reply, "HTTP/1.1 500", 12);
    assert_non_null(strstr(reply, "{\"error\":\"" PROBLEM_UNBUILT "\"}"));
    n_refused = UINT_MAX;
    ask_server(path, reply, sizeof(reply));
    n_refused = 0;
    assert_memory_equal(reply, "HTTP/1.1 500", 12);
    assert_non_null(strstr(reply, PROBLEM_UNBUILT));
    ask_server(path, reply, sizeof(reply));
    assert_memory_equal(reply, "HTTP/1.1 200", 12);
    assert_int_equal(pthread_kill(thread, SIGTERM), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    server_close(&server);
    listen_close(&at);
    assert_int_equal(rmdir(dir), 0);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
