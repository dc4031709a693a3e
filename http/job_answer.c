/* http/job_answer.c - answers to the prompt that was read: started together, told as they come,
 * ended one by one.
 *
 * libgist's callbacks bring text, log-probabilities and ends, of any of the answers. They note what
 * they bring, or have the voice say it into job.out; only what needs the daemon once more, the
 * texts of other tokens, waits for job_wait (job_tell_piece). */

#include "http/job_inner.h"

#include "http/say.h"
#include "http/tools.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the choices, the one that is this answer to the prompt that it is at. */
static size_t choice_of(const struct job *j, size_t answer)
{
    return j->prompt * j->ask->n + answer;
}

/* To the stream, and to the answer's text where somebody will want it whole: without a stream, or a
 * voice that says it again (keeps_text). What was said about its tokens goes along (`said`). */
static void say_piece(struct job *j, const char *text, size_t len)
{
    struct job_choice *c = &j->choices[j->choice];
    bool kept = !j->ask->stream || j->voice->keeps_text;

    if (kept)
        text_add(&c->text, text, len);
    j->out.lost |= c->text.lost; /* half an answer would be told as a whole one */
    if (kept && j->said && json_join(c->logprobs, json_share(j->said)) < 0)
        j->out.lost = true;
    if (j->ask->stream)
        j->voice->text(j, text, len);
    c->n_text += len;
    json_free(j->said);
    j->said = NULL;
}

/* Once a job. From here on what fails is said within the stream, under a status of 200. */
static void begin_stream(struct job *j)
{
    if (!j->begun && j->ask->stream)
        j->voice->begin(j);
    j->begun = true;
}

/* Before anything of the answer is said. */
static void begin_choice(struct job *j)
{
    const struct ask_prompt *p = &j->ask->prompts[j->prompt];
    struct job_choice *c = &j->choices[j->choice];

    if (c->begun)
        return;
    c->begun = true;
    begin_stream(j);
    if (j->ask->stream)
        j->voice->choice(j);
    if (j->ask->echo)
        say_piece(j, p->text, p->len);
}

/* Text that is no call's. */
static void on_said(void *arg, const char *text, size_t len)
{
    struct job *j = arg;
    struct job_choice *c = &j->choices[j->choice];

    begin_choice(j);
    if (j->ask->logprobs && j->ask->n_tools > 0) {
        j->said = logprobs_of(&c->pieces, c->parser.at, c->parser.at + len);
        j->out.lost |= !j->said;
    }
    say_piece(j, text, len);
}

/* Ids are made here: models write none. They are unlike for all calls of all answers. */
static void on_call(void *arg, const char *name, struct json_object *arguments)
{
    struct job *j = arg;
    struct job_choice *c = &j->choices[j->choice];
    struct json_object *call;
    char id[64];

    begin_choice(j);
    if (!c->calls)
        c->calls = json_make("[]");
    (void)snprintf(id, sizeof(id), "%s%zx_%zx", j->id, j->choice, json_len(c->calls));
    call = json_make("{s:s, s:s, s:o}", "id", id, "name", name, "arguments", arguments);
    if (j->ask->stream && call)
        j->voice->call(j, call);
    if (json_add(c->calls, call) < 0)
        j->out.lost = true;
}

/* Once, from wherever its end is noticed first. */
static void end_choice(struct job *j, size_t choice)
{
    struct job_choice *c = &j->choices[choice];

    if (c->ended)
        return;
    c->ended = true;
    j->choice = choice;
    logprobs_clear(&c->pieces); /* of tokens without a text, such as the last */
    begin_choice(j);
    if (j->ask->n_tools > 0)
        calls_end(&c->parser);
    j->out.lost |= c->parser.held.lost;
    if (j->ask->stream)
        j->voice->choice_end(j);
}

/* A piece of one of the answers: to who tells it with its log-probabilities, to who looks for calls
 * in it, or straight out. */
static int on_answers(void *arg, uint32_t answer, const char *text, size_t len, const uint32_t *ids,
                      size_t n_ids)
{
    struct job *j = arg;
    struct job_choice *c = &j->choices[choice_of(j, answer)];

    (void)ids;
    j->choice = choice_of(j, answer);
    c->n_tokens += (uint32_t)n_ids;
    if (j->ask->logprobs)
        logprobs_piece(&c->pieces, text, len);
    else if (j->ask->n_tools > 0)
        calls_add(&c->parser, text, len);
    else
        on_said(j, text, len);
    return 0;
}

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    return on_answers(arg, 0, text, len, ids, n_ids);
}

/* Before the text that its token is part of. */
static void on_logprob(void *arg, const struct gist_logprob *token)
{
    struct job *j = arg;

    logprobs_token(&j->choices[choice_of(j, token->answer)].pieces, token);
}

/* One that has pieces to be told, of all that have some in turn; NULL: none has. */
struct job_choice *job_untold(struct job *j)
{
    if (j->state != JOB_ANSWERING && j->state != JOB_ANSWERED)
        return NULL;
    for (size_t i = 0; i < j->ask->n; i++) {
        size_t at = (j->turn + i) % j->ask->n;
        struct job_choice *c = &j->choices[choice_of(j, at)];

        if (c->pieces.n_pieces > 0) {
            j->turn = at;
            return c;
        }
    }
    return NULL;
}

/* What came first with log-probabilities. Tokens' texts are asked for, and more may come meanwhile,
 * perhaps faster than it can be told: what is asked with is a copy, and it is one piece a time, so
 * that who waits for it has it, and who left is noticed. */
void job_tell_piece(struct job *j, struct job_choice *c)
{
    struct logprobs_piece piece = c->pieces.pieces[0];
    struct logprobs_token *copy = calloc(piece.n_tokens + 1, sizeof(*copy));
    struct json_object *said = NULL;

    if (copy && piece.n_tokens > 0)
        memcpy(copy, c->pieces.tokens, piece.n_tokens * sizeof(*copy));
    if (copy)
        said = logprobs_json(copy, piece.n_tokens, j->tokens, j->conn);
    free(copy);
    if (!said || c->pieces.lost) {
        json_free(said);
        (void)problem_set(&j->problem, PROBLEM_FULL, NULL, "log-probabilities cannot be told: %s",
                          gist_error_code(j->conn) ? gist_error(j->conn)
                                                   : "gist-http is out of memory");
        return;
    }
    j->choice = (size_t)(c - j->choices);
    if (j->ask->n_tools > 0) {
        j->out.lost |= logprobs_keep(&c->pieces, piece.len, said) < 0;
        calls_add(&c->parser, c->pieces.texts.bytes, piece.len);
    } else {
        begin_choice(j);
        j->said = said;
        say_piece(j, c->pieces.texts.bytes, piece.len);
    }
    logprobs_told(&c->pieces);
    j->turn++;
    if (c->answered && c->pieces.n_pieces == 0)
        end_choice(j, j->choice);
}

/* A grammar is refused by the same code as what has no room just now. Asking again helps with the
 * latter alone, which is rare: clients do so by themselves when they are told 429. */
static void fail_answer(struct job *j)
{
    bool grammar = j->ask->must_call || j->ask->sampling.grammar != GIST_ANY_TEXT;

    if (grammar && gist_error_code(j->conn) == GIST_E_LIMIT)
        (void)problem_set(&j->problem, PROBLEM_INVALID, NULL, "%s", gist_error(j->conn));
    else
        job_fail(j);
}

/* One has ended; others may go on. */
static void on_answer(void *arg, uint32_t answer, const struct gist_result *result)
{
    struct job *j = arg;
    struct job_choice *c = &j->choices[choice_of(j, answer)];

    c->reason = result->reason;
    c->stop = result->stop;
    c->n_tokens = result->usage.generated_tokens;
    c->answered = true;
    j->usage.generated += result->usage.generated_tokens;
    j->usage.generate_ns += result->usage.generate_ns;
    if (c->pieces.n_pieces == 0)
        end_choice(j, choice_of(j, answer));
}

/* All answers have ended, or their request has failed. For several the end of each came before
 * (on_answer). */
static void on_answered(void *arg, int err, const struct gist_result *result)
{
    struct job *j = arg;

    if (!j->conn)
        return;
    j->waiting = false;
    if (err == -ECANCELED && j->stopped) { /* what was said stays */
        j->usage.generated += j->choices[choice_of(j, 0)].n_tokens;
        j->state = JOB_ANSWERED;
        return;
    }
    if (err < 0) {
        fail_answer(j);
        return;
    }
    if (j->ask->n == 1)
        on_answer(j, 0, result);
    job_stand_on(&j->usage, &result->usage);
    j->stopped = false; /* too late */
    j->state = JOB_ANSWERED;
}

/* What answers that may or must call begin with. */
static void begin_calls(struct job *j, struct gist_sampling *s)
{
    const struct ask *a = j->ask;
    enum gist_tools form = gist_tools(j->conn);

    for (size_t i = 0; i < a->n; i++) {
        struct calls *c = &j->choices[choice_of(j, i)].parser;

        c->tools = a->tools;
        c->n_tools = a->n_tools;
        c->on_text = on_said;
        c->on_call = on_call;
        c->arg = j;
        if (a->held)
            calls_begin_held(c, form);
        else
            calls_begin(c, a->must_call);
    }
    if (!a->must_call && !a->held)
        return;
    s->grammar = a->held ? GIST_CALLS : GIST_JSON_SCHEMA;
    s->grammar_text = (a->held ? tools_or_format : tools_schema)(&j->mem, a, form);
    s->grammar_len = s->grammar_text ? strlen(s->grammar_text) : 0;
    j->out.lost |= !s->grammar_text;
}

static void begin_answers(struct job *j)
{
    struct gist_sampling s = j->ask->sampling;
    uint32_t n = j->ask->n;
    int r;

    if (job_set_deadline(j) < 0)
        return;
    /* A seed is for the whole request: answers to several prompts must still differ, in the same
     * way each time. */
    s.seed = j->ask->has_seed ? s.seed + choice_of(j, 0) : job_random() >> 1;
    s.on_logprob = on_logprob;
    if (j->ask->n_tools > 0)
        begin_calls(j, &s);
    for (size_t i = 0; j->ask->logprobs && i < n; i++)
        if (!(j->choices[choice_of(j, i)].logprobs = json_make("[]")))
            j->out.lost = true;
    j->state = JOB_ANSWERING;
    j->waiting = true;
    /* A single one may have the session itself, and a live one goes on with it. */
    r = n == 1 ? gist_generate_start(j->base, &s, on_text, on_answered, j, &j->request)
               : gist_generate_several_start(j->base, &s, n, on_answers, on_answer, on_answered, j,
                                             &j->request);
    if (r < 0) {
        j->waiting = false;
        job_fail(j);
    } else if (j->stopped) { /* the prompt was read before it heard of that */
        (void)gist_cancel(j->conn, j->request);
    }
}

/* Each prompt has a session of its own; a live one goes on. */
static void next_prompt(struct job *j)
{
    if (!j->live)
        job_close_session(j);
    j->prompt++;
    j->turn = 0;
    j->state = j->prompt < j->ask->n_prompts ? JOB_OPEN : JOB_ENDED;
    if (j->state == JOB_ENDED && j->ask->stream)
        j->voice->end(j);
}

void job_end_answers(struct job *j)
{
    for (size_t i = 0; i < j->ask->n; i++) /* one that was stopped has not */
        end_choice(j, choice_of(j, i));
    next_prompt(j);
}

/* The prompt is read, and its number is known. */
void job_choose(struct job *j)
{
    j->usage.prompt += j->n_all;
    if (j->ask->count_only) {
        j->state = JOB_ENDED;
        return;
    }
    if (j->voice->early)
        begin_stream(j);
    if (j->ask->no_answer)
        next_prompt(j);
    else
        begin_answers(j);
}
