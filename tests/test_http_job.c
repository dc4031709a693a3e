/* tests/test_http_job.c - jobs of gist-http before a daemon that says what a script tells it to.
 * Would catch: a request to the daemon that a turn does not need, answers that are asked for one
 * after the other, or are told under each other's numbers; a stream that begins before it is known
 * whether it may; log-probabilities that keep back what was said long ago; an answer that is taken
 * for another prompt's, or is looked for behind the last one; a key's realm that does not reach the
 * daemon.
 */
#include "http/job.h"
#include "http/read.h"
#include "http/say.h"
#include "tests/support/count.h"
#include "tests/support/fake_daemon.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct turn {
    struct fake_daemon daemon;
    struct pool pool;
    struct tokens tokens;
    struct ask ask;
    struct job job;
    struct text out; /* what was taken of it */
};

static void begin(struct turn *t, fake_script *script, void *arg, read_fn *read,
                  const struct voice *voice, const char *body)
{
    struct problem p = { .kind = PROBLEM_NONE };

    *t = (struct turn){ .pool = { .max = 0 } };
    fake_start(&t->daemon, script, arg);
    pool_init(&t->pool, t->daemon.path, 1);
    tokens_init(&t->tokens);
    ask_init(&t->ask);
    if (field_parse(body, strlen(body), &t->ask.root, &p) < 0 || read(&t->ask, &p) < 0)
        fail_msg("%s", p.text);
    t->job = (struct job){ .ask = &t->ask,
                           .voice = voice,
                           .pool = &t->pool,
                           .tokens = &t->tokens,
                           .client_fd = -1,
                           .stop_fd = -1,
                           .label = "test" };
    assert_int_equal(job_init(&t->job), 0);
}

static void end(struct turn *t)
{
    job_fini(&t->job);
    ask_fini(&t->ask);
    text_fini(&t->out);
    pool_fini(&t->pool);
    tokens_fini(&t->tokens);
    assert_int_equal(fake_stop(&t->daemon), 0);
}

static void take_all(struct turn *t)
{
    char bytes[256];
    size_t n;

    while ((n = job_take(&t->job, bytes, sizeof(bytes))) > 0)
        text_add(&t->out, bytes, n);
}

/* To its end; what was said is in out. */
static enum job_event run(struct turn *t)
{
    enum job_event e;

    while ((e = job_wait(&t->job, -1)) == JOB_OUTPUT)
        take_all(t);
    return e;
}

/* --- scripts ---------------------------------------------------------------------------------- */

static void read_prompt(struct fake_daemon *d)
{
    fake_expect(d, WIRE_OPEN_SESSION);
    fake_last(d, (struct wire_rep){ .kind = WIRE_SESSION_OPENED,
                                    .u.session_opened = { .session = 77, .context_max = 512 } });
    fake_expect(d, WIRE_APPEND);
    FAKE_CHECK(d->req.u.append.session == 77);
    fake_last(
        d, (struct wire_rep){ .kind = WIRE_APPENDED, .u.appended = { 5, { .prompt_tokens = 5 } } });
}

static void close_session(struct fake_daemon *d)
{
    fake_expect(d, WIRE_CLOSE_SESSION);
    fake_last(d, (struct wire_rep){ .kind = WIRE_SESSION_CLOSED });
}

/* The session is closed, and nothing else was asked for. */
static void expect_close(struct fake_daemon *d)
{
    close_session(d);
    FAKE_CHECK(!fake_take(d));
}

static void say(struct fake_daemon *d, uint64_t id, uint32_t answer, const char *text)
{
    static const uint32_t ids[] = { 7 };
    struct wire_rep rep = { .id = id, .kind = WIRE_TEXT };

    rep.u.text.n_tokens = rep.u.text.n_ids = 1;
    rep.u.text.text = text;
    rep.u.text.tokens = ids;
    rep.u.text.index = answer;
    fake_reply(d, rep, NULL, 0);
}

static void end_one(struct fake_daemon *d, uint64_t id, uint32_t answer, enum wire_reason reason)
{
    struct wire_rep rep = { .id = id, .kind = WIRE_DONE };

    rep.u.done.reason = reason;
    rep.u.done.index = answer;
    rep.u.done.usage.generated_tokens = 2;
    fake_reply(d, rep, NULL, 0);
}

/* --- what a turn takes ------------------------------------------------------------------------ */

static void script_turn(struct fake_daemon *d, void *arg)
{
    (void)arg;
    read_prompt(d);
    fake_expect(d, WIRE_GENERATE);
    FAKE_CHECK(d->req.u.generate.n < 2);
    for (int i = 0; i < 20; i++)
        say(d, 0, 0, " word");
    fake_done(d, d->req.id, WIRE_REASON_LENGTH);
    expect_close(d);
}

#define CHAT "\"messages\": [{\"role\": \"user\", \"content\": \"Why?\"}], \"max_tokens\": 20"

static const struct {
    read_fn *read;
    const struct voice *voice;
    const char *body;
} apis[] = {
    { read_chat_completions, &say_chat, "{" CHAT "}" },
    { read_chat_completions, &say_chat, "{" CHAT ", \"stream\": true}" },
    { read_completions, &say_completions, "{\"prompt\": \"Why?\", \"stream\": true}" },
    { read_responses, &say_responses, "{\"input\": \"Why?\", \"stream\": true}" },
    { read_messages, &say_messages, "{" CHAT ", \"stream\": true}" },
    { read_ollama_chat, &say_ollama_chat, "{" CHAT "}" },
    { read_ollama_generate, &say_ollama_generate, "{\"prompt\": \"Why?\"}" },
};
#define N_APIS (sizeof(apis) / sizeof(*apis))

/* To open, to read, to write, to close: the script knows no other request. */
static void a_turn_is_four_requests(void **state)
{
    struct turn t;

    (void)state;
    for (size_t i = 0; i < N_APIS; i++) {
        begin(&t, script_turn, NULL, apis[i].read, apis[i].voice, apis[i].body);
        assert_int_equal(run(&t), JOB_DONE);
        assert_true(!t.ask.stream || count_of(t.out.bytes, " word") >= 20);
        assert_true(t.job.choices[0].n_text == 20 * strlen(" word"));
        end(&t);
    }
}

static void script_realm(struct fake_daemon *d, void *arg)
{
    (void)arg;
    fake_expect(d, WIRE_OPEN_SESSION);
    FAKE_CHECK(strcmp(d->req.u.open_session.realm, "anna") == 0);
    fake_error(d, WIRE_E_LIMIT, "enough");
    FAKE_CHECK(!fake_take(d));
}

static void a_key_has_its_realm(void **state)
{
    struct turn t;

    (void)state;
    begin(&t, script_realm, NULL, apis[0].read, apis[0].voice, apis[0].body);
    t.ask.policy.realm = "anna";
    assert_int_equal(run(&t), JOB_FAILED);
    assert_string_equal(t.job.problem.text, "enough");
    end(&t);
}

/* --- several answers -------------------------------------------------------------------------- */

static void script_several(struct fake_daemon *d, void *arg)
{
    (void)arg;
    read_prompt(d);
    fake_expect(d, WIRE_GENERATE);
    FAKE_CHECK(d->req.u.generate.n == 3 && d->req.u.generate.seed == 40);
    say(d, 0, 2, "c1");
    say(d, 0, 0, "a1");
    say(d, 0, 2, "c2");
    end_one(d, 0, 2, WIRE_REASON_STOP);
    say(d, 0, 0, "a2");
    end_one(d, 0, 0, WIRE_REASON_LENGTH);
    end_one(d, 0, 1, WIRE_REASON_END_OF_TEXT);
    fake_done(d, d->req.id, WIRE_REASON_END_OF_TEXT);
    expect_close(d);
}

/* One after the other in text: the places where they stand. */
static void in_order(const char *text, const char *const *what)
{
    for (; *what; what++) {
        const char *at = strstr(text, *what);

        if (!at)
            fail_msg("\"%s\" is not in, or does not come behind what was expected before: %s",
                     *what, text);
        text = at + strlen(*what);
    }
}

#define SEVERAL "{" CHAT ", \"n\": 3, \"seed\": 40"

static void several_are_one_request(void **state)
{
    struct json_object *body;
    struct turn t;

    (void)state;
    begin(&t, script_several, NULL, read_chat_completions, &say_chat, SEVERAL "}");
    assert_int_equal(run(&t), JOB_DONE);
    body = say_chat.whole(&t.job);
    json_write(&t.out, body);
    json_free(body);
    in_order(t.out.bytes, (const char *[]){ "\"index\":0", "\"a1a2\"", "\"length\"", "\"index\":1",
                                            "\"\"", "\"stop\"", "\"index\":2", "\"c1c2\"",
                                            "\"stop\"", "\"completion_tokens\":6", NULL });
    end(&t);
}

static void several_are_told_as_they_come(void **state)
{
    struct turn t;

    (void)state;
    begin(&t, script_several, NULL, read_chat_completions, &say_chat,
          SEVERAL ", \"stream\": true}");
    assert_int_equal(run(&t), JOB_DONE);
    in_order(t.out.bytes, (const char *[]){ "\"index\":2",   "\"assistant\"",
                                            "\"c1\"",        "\"index\":0",
                                            "\"assistant\"", "\"a1\"",
                                            "\"index\":2",   "\"c2\"",
                                            "\"index\":2",   "\"finish_reason\":\"stop\"",
                                            "\"index\":0",   "\"a2\"",
                                            "\"index\":0",   "\"finish_reason\":\"length\"",
                                            "\"index\":1",   "\"assistant\"",
                                            "\"index\":1",   "\"finish_reason\":\"stop\"",
                                            "[DONE]",        NULL });
    assert_int_equal(count_of(t.out.bytes, "\"finish_reason\":\""), 3);
    assert_int_equal(count_of(t.out.bytes, "\"role\""), 3);
    end(&t);
}

/* --- which text ended it ---------------------------------------------------------------------- */

static void script_stop(struct fake_daemon *d, void *arg)
{
    struct wire_rep rep = { .kind = WIRE_DONE };

    read_prompt(d);
    fake_expect(d, WIRE_GENERATE);
    say(d, 0, 0, "said");
    rep.u.done.reason = WIRE_REASON_STOP;
    rep.u.done.stop = *(const uint32_t *)arg;
    fake_last(d, rep);
    expect_close(d);
}

/* What Anthropic's clients are told of an answer that was ended by this one of the texts; 0: the
 * daemon does not say by which. */
static void told(const char *stops, uint32_t stop, bool ends_call, const char *reason,
                 const char *sequence)
{
    char body[512], want[128];
    struct json_object *j;
    struct turn t;

    for (int streams = 0; streams < 2; streams++) {
        (void)snprintf(body, sizeof(body), "{" CHAT ", \"stop_sequences\": [%s], \"stream\": %s}",
                       stops, streams ? "true" : "false");
        begin(&t, script_stop, &stop, read_messages, &say_messages, body);
        t.ask.ends_call = ends_call;
        assert_int_equal(run(&t), JOB_DONE);
        if (!streams) {
            j = say_messages.whole(&t.job);
            json_write(&t.out, j);
            json_free(j);
        }
        (void)snprintf(want, sizeof(want), "\"stop_reason\":\"%s\",\"stop_sequence\":%s", reason,
                       sequence);
        in_order(t.out.bytes, (const char *[]){ want, NULL });
        end(&t);
    }
}

static void which_text_ended_it(void **state)
{
    (void)state;
    told("\"a\", \"\", \"ab\", \"c\"", 1, false, "stop_sequence", "\"a\"");
    told("\"a\", \"\", \"ab\", \"c\"", 2, false, "stop_sequence",
         "\"ab\""); /* an empty one is none */
    told("\"a\", \"\", \"ab\", \"c\"", 3, false, "stop_sequence", "\"c\"");
    told("\"a\"", 0, false, "stop_sequence", "\"a\""); /* an older daemon */
    told("\"a\", \"b\"", 0, false, "stop_sequence", "null");
    told("\"a\", \"b\"", 1, true, "stop_sequence", "\"a\""); /* the last is not the client's */
    told("\"a\", \"b\"", 2, true, "end_turn", "null");
    told("\"b\"", 1, true, "end_turn", "null");
}

/* --- refused ---------------------------------------------------------------------------------- */

static void script_refuses(struct fake_daemon *d, void *arg)
{
    (void)arg;
    read_prompt(d);
    fake_expect(d, WIRE_GENERATE);
    fake_error(d, WIRE_E_UNSUPPORTED, "the schema at #/not can't be enforced");
    expect_close(d);
}

/* What is wrong with a schema is known when it was looked at, which is when the prompt was read:
 * nothing was said until then, so that it is told by a status. */
static void refused_before_it_begins(void **state)
{
    struct turn t;

    (void)state;
    for (size_t i = 0; i < N_APIS; i++) {
        begin(&t, script_refuses, NULL, apis[i].read, apis[i].voice, apis[i].body);
        assert_int_equal(job_wait(&t.job, -1), JOB_FAILED);
        assert_int_equal(t.job.out.len, 0);
        assert_int_equal(problem_status(&t.job.problem), 400);
        end(&t);
    }
}

/* --- log-probabilities ------------------------------------------------------------------------ */

#define N_PIECES 100u

static void say_with_logprob(struct fake_daemon *d, uint64_t id, uint32_t answer, uint32_t token)
{
    const float logprob = -1;
    struct wire_rep rep = { .id = id, .kind = WIRE_TEXT };

    rep.u.text.n_tokens = rep.u.text.n_ids = 1;
    rep.u.text.text = "x";
    rep.u.text.tokens = &token;
    rep.u.text.logprobs = &logprob;
    rep.u.text.index = answer;
    fake_reply(d, rep, NULL, 0);
}

/* Each time that it is asked for a token's text another token comes first, as from a model that is
 * faster than who tells of it. */
static void script_fast(struct fake_daemon *d, void *arg)
{
    uint64_t answer;

    (void)arg;
    read_prompt(d);
    fake_expect(d, WIRE_GENERATE);
    answer = d->req.id;
    say_with_logprob(d, answer, 0, 10);
    for (uint32_t i = 1; i <= N_PIECES; i++) {
        fake_expect(d, WIRE_DETOKENIZE);
        if (i < N_PIECES)
            say_with_logprob(d, answer, 0, 10 + i);
        fake_last(d, (struct wire_rep){ .kind = WIRE_TEXT, .u.text = { .text = "x" } });
    }
    fake_done(d, answer, WIRE_REASON_LENGTH);
    expect_close(d);
}

/* Whoever waits for the first piece has it before the others are looked at. */
static void pieces_are_told_one_by_one(void **state)
{
    struct turn t;
    unsigned n;

    (void)state;
    begin(&t, script_fast, NULL, read_completions, &say_completions,
          "{\"prompt\": \"Why?\", \"stream\": true, \"logprobs\": 0}");
    for (n = 0; n < N_PIECES; n++) {
        assert_int_equal(job_wait(&t.job, -1), JOB_OUTPUT);
        t.out.len = 0;
        take_all(&t);
        assert_int_equal(count_of(t.out.bytes, "data: "), 1);
        assert_int_equal(count_of(t.out.bytes, "\"token_logprobs\":[-1.0]"), 1);
    }
    assert_int_equal(run(&t), JOB_DONE);
    end(&t);
}

/* One prompt after the other, each with two answers, of one token that is asked for once. */
static void script_prompts(struct fake_daemon *d, void *arg)
{
    uint64_t id;

    (void)arg;
    for (uint32_t i = 0; i < 2; i++) {
        read_prompt(d);
        fake_expect(d, WIRE_GENERATE);
        FAKE_CHECK(d->req.u.generate.n == 2 && d->req.u.generate.seed == 40 + 2 * i);
        id = d->req.id;
        say_with_logprob(d, id, 1, 10);
        if (i == 0) {
            fake_expect(d, WIRE_DETOKENIZE);
            fake_last(d, (struct wire_rep){ .kind = WIRE_TEXT, .u.text = { .text = "x" } });
        }
        end_one(d, id, 1, i == 0 ? WIRE_REASON_STOP : WIRE_REASON_LENGTH);
        say_with_logprob(d, id, 0, 10);
        end_one(d, id, 0, WIRE_REASON_STOP);
        fake_done(d, id, WIRE_REASON_STOP);
        close_session(d);
    }
    FAKE_CHECK(!fake_take(d));
}

/* Each prompt's answers are where they belong, and behind the last one nothing is looked at. */
static void prompts_have_their_answers(void **state)
{
    struct json_object *body;
    struct turn t;

    (void)state;
    begin(&t, script_prompts, NULL, read_completions, &say_completions,
          "{\"prompt\": [\"Why?\", \"How?\"], \"n\": 2, \"seed\": 40, \"logprobs\": 0}");
    assert_int_equal(run(&t), JOB_DONE);
    body = say_completions.whole(&t.job);
    json_write(&t.out, body);
    json_free(body);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(t.job.choices[i].n_text, 1);
        assert_int_equal(t.job.choices[i].reason, i == 3 ? GIST_LENGTH : GIST_STOP);
    }
    assert_int_equal(count_of(t.out.bytes, "\"token_logprobs\":[-1.0]"), 4);
    in_order(t.out.bytes, (const char *[]){ "\"index\":3", "\"length\"", "\"prompt_tokens\":10",
                                            "\"completion_tokens\":8", NULL });
    end(&t);
}

/* --- log-probabilities beside calls ----------------------------------------------------------- */

static const char *const said_with_call[] = {
    "Well",         ".\n<tool", "_call>", "\n{\"name\": \"f\", ", "\"arguments\": {\"a\": 1}}\n",
    "</tool_call>", "\nSo <",   "b>",
};
#define N_SAID (sizeof(said_with_call) / sizeof(*said_with_call))

static void script_call(struct fake_daemon *d, void *arg)
{
    const float logprob = -1;
    uint64_t answer;

    (void)arg;
    read_prompt(d);
    fake_expect(d, WIRE_GENERATE);
    answer = d->req.id;
    for (uint32_t i = 0; i < N_SAID; i++) {
        struct wire_rep rep = { .id = answer, .kind = WIRE_TEXT };
        uint32_t token = i;

        rep.u.text.n_tokens = rep.u.text.n_ids = 1;
        rep.u.text.text = said_with_call[i];
        rep.u.text.tokens = &token;
        rep.u.text.logprobs = &logprob;
        fake_reply(d, rep, NULL, 0);
    }
    fake_done(d, answer, WIRE_REASON_END_OF_TEXT);
    for (uint32_t i = 0; i < N_SAID; i++) {
        char name[] = { 't', (char)('0' + i), '\0' };

        fake_expect(d, WIRE_DETOKENIZE);
        fake_last(d, (struct wire_rep){ .kind = WIRE_TEXT, .u.text = { .text = name } });
    }
    expect_close(d);
}

/* The tokens of what is told as text, in order and once; a call's own are not. */
static void expect_tokens(const char *bytes)
{
    static const char *const told[] = { "\"t0\"", "\"t1\"", "\"t6\"", "\"t7\"" };
    const char *at = bytes;

    assert_int_equal(count_of(bytes, "\"token\":"), 4);
    for (size_t i = 0; i < 4; i++) {
        at = strstr(at, told[i]);
        if (!at)
            fail_msg("%s is not behind the one before it: %s", told[i], bytes);
    }
    assert_int_equal(count_of(bytes, "\\\"a\\\":1"), 1);
}

#define WITH_TOOLS "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]"

static void calls_have_no_logprobs(void **state)
{
    struct text whole = { 0 };
    struct json_object *o;
    struct turn t;

    (void)state;
    begin(&t, script_call, NULL, read_chat_completions, &say_chat,
          "{" CHAT ", \"logprobs\": true, " WITH_TOOLS "}");
    assert_int_equal(run(&t), JOB_DONE);
    assert_string_equal(t.job.choices[0].text.bytes, "Well.\nSo <b>");
    o = say_chat.whole(&t.job);
    json_write(&whole, o);
    expect_tokens(whole.bytes);
    json_free(o);
    text_fini(&whole);
    end(&t);
    begin(&t, script_call, NULL, read_chat_completions, &say_chat,
          "{" CHAT ", \"logprobs\": true, \"stream\": true, " WITH_TOOLS "}");
    assert_int_equal(run(&t), JOB_DONE);
    expect_tokens(t.out.bytes);
    end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_turn_is_four_requests),
        cmocka_unit_test(a_key_has_its_realm),
        cmocka_unit_test(several_are_one_request),
        cmocka_unit_test(several_are_told_as_they_come),
        cmocka_unit_test(which_text_ended_it),
        cmocka_unit_test(refused_before_it_begins),
        cmocka_unit_test(pieces_are_told_one_by_one),
        cmocka_unit_test(prompts_have_their_answers),
        cmocka_unit_test(calls_have_no_logprobs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
