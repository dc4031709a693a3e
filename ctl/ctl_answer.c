/* ctl/ctl_answer.c - one answer, streamed. The prompt is read first (read_prompt), then the answer
 * is generated and printed as it comes (on_text); what it took is printed behind it. All of one
 * answer is in struct answer, which lives on the stack of the call.
 *
 * Standard output has the answer alone, and all else goes to standard error: an answer may be piped
 * into a file. */
#include "ctl/ctl_answer.h"

#include "base/options.h"
#include "ctl/ctl.h"
#include "ctl/ctl_json.h"
#include "ctl/ctl_progress.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* A penalty that no option can say: ctl_answer_read puts the default there. */
#define UNSAID (-1.0f)

/* One answer; times are by this side's clock. */
struct answer {
    const struct ctl_answer_opts *opts;
    uint64_t asked_ns, read_ns, first_ns, last_ns; /* read: the prompt was in the session */
    struct gist_usage prompt;                      /* of all that was read for it */
    struct ctl_progress progress;
    struct ctl_text text;  /* kept for --json, which prints all at once */
    struct ctl_text rates; /* struct rate of each token, and behind each its n_top struct rate */
    uint32_t n_tokens;
    bool line_open; /* what was said does not end with a newline */
    bool late;      /* its deadline has passed */
    struct gist_result result;
};

void ctl_answer_defaults(struct ctl_answer_opts *o)
{
    *o = (struct ctl_answer_opts){
        .sampling = { .size = sizeof(o->sampling),
                      .max_tokens = CTL_ANSWER_MAX_TOKENS,
                      .repeat_penalty = UNSAID,
                      .repeat_last_n = 256,
                      .top_p = 1,
                      /* What the options say is what they mean, also a 0. */
                      .flags = GIST_SET_TOP_P | GIST_SET_REPEAT_PENALTY },
        .stats = isatty(STDERR_FILENO),
    };
    /* Within the range that --seed takes back: it is printed with the times. */
    if (getrandom(&o->sampling.seed, sizeof(o->sampling.seed), GRND_NONBLOCK) < 0)
        o->sampling.seed = ctl_now_ns();
    o->sampling.seed >>= 32;
}

/* --draft: as gistd's option of that name. Read here and not by the option table, since it may be a
 * word. */
static int read_draft(struct ctl_answer_opts *o)
{
    if (!o->draft)
        return CTL_OK;
    o->sampling.flags |= GIST_SET_DRAFT;
    if (!options_read_auto(o->draft, 15, &o->sampling.draft))
        return ctl_fail(CTL_USAGE, "--draft needs auto, off or a number from 0 to 15, not '%s'.",
                        o->draft);
    return CTL_OK;
}

/* What no option alone can say: which exclude each other, and what they make of each other. */
int ctl_answer_read(struct ctl_answer_opts *o)
{
    static const char object[] = "{\"type\":\"object\"}";
    bool by_file = o->grammar || o->schema;
    int r = CTL_OK;

    if ((o->grammar != NULL) + (o->schema != NULL) + o->json_object > 1)
        return ctl_fail(CTL_USAGE, "--grammar, --schema and --json-object exclude each other.");
    if (o->logprobs && !o->json)
        return ctl_fail(CTL_USAGE, "--logprobs prints nothing without --json.");
    if (read_draft(o) != CTL_OK)
        return CTL_USAGE;
    if (by_file)
        r = ctl_text_read(&o->look, o->grammar ? o->grammar : o->schema);
    else if (o->json_object && ctl_text_add(&o->look, object, sizeof(object) - 1) < 0)
        r = ctl_fail(CTL_FAILED, "out of memory.");
    if (o->grammar)
        o->sampling.grammar = GIST_GBNF;
    else if (o->schema || o->json_object)
        o->sampling.grammar = GIST_JSON_SCHEMA;
    o->sampling.grammar_text = o->look.bytes;
    o->sampling.grammar_len = o->look.len;
    /* Without it small models, greedy, say the same line for ever; but braces and quotes have to
     * come again and again. */
    if (o->sampling.repeat_penalty == UNSAID)
        o->sampling.repeat_penalty = o->sampling.grammar ? 1 : 1.1f;
    return r;
}

void ctl_answer_fini(struct ctl_answer_opts *o)
{
    ctl_text_fini(&o->look);
}

unsigned ctl_answer_policy_flags(const struct ctl_answer_opts *o)
{
    return (o->is_public ? GIST_PUBLIC : 0) | (o->is_private ? GIST_PRIVATE : 0);
}

/* Non-zero ends the answer: after Ctrl-C, and when nobody reads standard output any more. Flushed
 * for each piece, or a pipe would get the answer in blocks of kilobytes. */
static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct answer *a = arg;

    (void)ids;
    a->last_ns = ctl_now_ns();
    if (a->first_ns == 0)
        a->first_ns = a->last_ns;
    a->n_tokens += (uint32_t)n_ids;
    if (a->opts->json) {
        if (ctl_text_add(&a->text, text, len) < 0)
            return -ENOMEM;
    } else {
        ctl_text_print(text, len);
        fflush(stdout);
        if (len > 0)
            a->line_open = text[len - 1] != '\n';
    }
    return ctl_interrupt_came() || ferror(stdout);
}

struct rate {
    uint32_t id;
    float logprob;
};

/* Kept until all is said: --json prints one object. */
static void on_logprob(void *arg, const struct gist_logprob *token)
{
    struct answer *a = arg;
    struct rate one = { token->id, token->logprob };
    size_t had = a->rates.len;
    int r = ctl_text_add(&a->rates, (const char *)&one, sizeof(one));

    for (uint32_t i = 0; r == 0 && i < token->n_top; i++) {
        one = (struct rate){ token->top_ids[i], token->top_logprobs[i] };
        r = ctl_text_add(&a->rates, (const char *)&one, sizeof(one));
    }
    if (r < 0) /* all of a group or nothing: print_logprobs counts in groups */
        a->rates.len = had;
}

/* A model without a chat template goes on with text: messages are paragraphs. A blank line stands
 * behind the last of them, unless it is the question: the model goes on there. */
static int append_plain(gist_session *s, const struct gist_message *msgs, size_t n_msgs, bool last,
                        struct gist_usage *ret_usage)
{
    struct ctl_text t = { 0 };
    int r = 0;

    for (size_t i = 0; r == 0 && i < n_msgs; i++) {
        if (i > 0)
            r = ctl_text_add(&t, "\n\n", 2);
        if (r == 0)
            r = ctl_text_add(&t, msgs[i].text, strlen(msgs[i].text));
    }
    if (r == 0 && !last)
        r = ctl_text_add(&t, "\n\n", 2);
    if (r == 0)
        r = gist_append_text(s, t.bytes, t.len, 0, ret_usage);
    ctl_text_fini(&t);
    return r;
}

static double rate(uint64_t n, uint64_t ns)
{
    return ns ? (double)n * 1e9 / (double)ns : 0;
}

static void print_part(const char *format, uint32_t n)
{
    if (n > 0)
        fprintf(stderr, format, n);
}

/* What the answer stands on, where that is not all that was read. At which ratio how many are:
 * ratio and its doubles, as far as there are any. */
static void print_memory(const struct gist_usage *u)
{
    const char *between = " (";

    if (u->gist_tokens == 0)
        return;
    fprintf(stderr, "; memory: %u raw tokens, %u ", u->raw_tokens, u->gist_tokens);
    if (u->gists == 0) {
        fputs("forgotten", stderr);
        return;
    }
    fprintf(stderr, "as %u gists", u->gists);
    for (unsigned i = 0; i < GIST_RATIOS; i++) {
        if (u->at_ratio[i] == 0)
            continue;
        fprintf(stderr, "%s%u at %u", between, u->at_ratio[i], u->ratio << i);
        between = ", ";
    }
    if (*between == ',')
        fputc(')', stderr);
}

/* Of the raw ones: compressed segments that are back for this question. */
static void print_hydrated(const struct gist_usage *u)
{
    if (u->hydrated_tokens == 0)
        return;
    fprintf(stderr, "; brought back for the question: %u tokens", u->hydrated_tokens);
    print_part(", %u from disk", u->hydrated_disk_tokens);
    print_part(", %u computed again", u->recomputed_tokens);
}

static void print_read(const struct answer *a)
{
    fprintf(stderr, "[read %u tokens in %.2f s, %.0f tokens/s", a->prompt.computed_tokens,
            (double)(a->read_ns - a->asked_ns) / 1e9,
            rate(a->prompt.computed_tokens, a->read_ns - a->asked_ns));
    print_part("; %u from memory", a->prompt.shared_tokens);
    print_part("; %u from disk", a->prompt.restored_tokens);
    print_part("; %u approximate: documents that were read alone", a->prompt.approximate_tokens);
    print_memory(&a->prompt);
}

/* first token: what the user waited for, from the question's way out. The rate leaves the first
 * token out, which belongs to the reading. */
static void print_stats(const struct answer *a, const struct ctl_answer_opts *o)
{
    static const char *const reasons[] = { [GIST_END_OF_TEXT] = "end of text",
                                           [GIST_STOP] = "stop text",
                                           [GIST_LENGTH] = "--max-tokens reached",
                                           [GIST_CONTEXT_FULL] = "context full",
                                           [GIST_POOL_FULL] =
                                               "no page left in the KV pool, or for this client",
                                           [GIST_CANCELLED] = "cancelled",
                                           [GIST_CUT] = "cut off by gistd" };

    print_read(a);
    print_hydrated(&a->prompt);
    if (a->n_tokens > 0)
        fprintf(stderr, "; first token after %.2f s", (double)(a->first_ns - a->asked_ns) / 1e9);
    fprintf(stderr, "; wrote %u tokens", a->n_tokens);
    if (a->n_tokens > 1)
        fprintf(stderr, ", %.1f tokens/s", rate(a->n_tokens - 1, a->last_ns - a->first_ns));
    print_part(", %u of them guessed ahead", a->result.usage.accepted_tokens);
    fprintf(stderr, "; %s", ctl_interrupt_came() ? "interrupted" : reasons[a->result.reason]);
    if (o->sampling.temperature > 0)
        fprintf(stderr, "; seed %llu", (unsigned long long)o->sampling.seed);
    fputs("]\n", stderr);
}

/* An answer that was cut must not pass for a whole one, also when nobody asked for times. */
static void print_cut(const struct answer *a)
{
    if (a->result.reason == GIST_LENGTH)
        ctl_fail(0, "the answer was cut off after %u tokens (--max-tokens).", a->n_tokens);
    else if (a->result.reason == GIST_CONTEXT_FULL)
        ctl_fail(0, "the answer was cut off: the model's context is full%s.",
                 a->result.usage.gist_tokens > 0
                     ? ""
                     : "; with --memory auto, the default, it would have gone on");
    else if (a->result.reason == GIST_POOL_FULL)
        ctl_fail(
            0,
            "the answer was cut off: the daemon's KV pool is full, or this client's part of it.");
}

/* An answer that can't stand on what it should is not to be taken for one that does. */
static void print_missed(const struct answer *a)
{
    if (a->prompt.missed_tokens > 0)
        ctl_fail(0,
                 "the question points to %u tokens of the text that could not be brought back; the "
                 "answer may be a guess.",
                 a->prompt.missed_tokens);
}

void ctl_answer_began(const gist_session *s, const struct ctl_answer_opts *o)
{
    struct gist_usage u;

    gist_session_usage(s, &u);
    if (o->stats && u.prompt_tokens > 0)
        fprintf(stderr, "[began with %u tokens: %u read now, in %.2f s]\n", u.prompt_tokens,
                u.computed_tokens, (double)u.prompt_ns / 1e9);
}

/* Reads messages into the session. What earlier calls for the same answer read is added up, what is
 * there now is the last one's. -ECANCELED after a Ctrl-C that came too late for the daemon: nobody
 * wants the answer any more. */
static int read_messages(gist_conn *c, gist_session *s, const struct gist_message *msgs, size_t n,
                         bool last, struct answer *a)
{
    struct gist_usage u = { 0 }, before = a->prompt;
    struct gist_info info;
    int r;

    gist_info(c, &info);
    if (info.chat)
        r = gist_append_chat(s, msgs, n, last ? GIST_OPEN_ANSWER : 0, &u);
    else
        r = append_plain(s, msgs, n, last, &u);
    if (r < 0)
        return r;
    a->prompt = u;
    a->prompt.computed_tokens += before.computed_tokens;
    a->prompt.shared_tokens += before.shared_tokens;
    a->prompt.restored_tokens += before.restored_tokens;
    a->prompt.prompt_ns += before.prompt_ns;
    return ctl_interrupt_came() ? -ECANCELED : 0;
}

/* A bar for what is read first, which may be a book. */
static int read_prompt(gist_conn *c, gist_session *s, const struct ctl_prompt *p, struct answer *a)
{
    int r = ctl_set_end(c, a->opts->end_ns);

    ctl_progress_begin(&a->progress);
    gist_on_progress(s, ctl_progress_tell, &a->progress);
    if (r == 0 && p->n_before > 0) {
        r = read_messages(c, s, p->before, p->n_before, false, a);
        gist_on_progress(s, NULL, NULL); /* a question is read in no time */
    }
    if (r == 0 && p->n_msgs > 0)
        r = read_messages(c, s, p->msgs, p->n_msgs, true, a);
    gist_on_progress(s, NULL, NULL);
    ctl_progress_end(&a->progress);
    a->read_ns = ctl_now_ns();
    return r;
}

int ctl_answer_prompt(gist_conn *c, gist_session *s, const struct ctl_prompt *prompt,
                      const struct ctl_answer_opts *o, struct gist_usage *ret_usage)
{
    struct answer a = { .opts = o, .asked_ns = ctl_now_ns() };
    int r = read_prompt(c, s, prompt, &a);

    *ret_usage = a.prompt;
    return r;
}

/* A deadline and a Ctrl-C are known here better than by the daemon's word. */
static const char *reason_word(const struct answer *a)
{
    if (a->late)
        return "deadline";
    return ctl_interrupt_came() ? "interrupted" : gist_reason_name(a->result.reason);
}

static void print_rate(struct ctl_json *j, const struct rate *r)
{
    ctl_json_u64(j, "id", r->id);
    ctl_json_float(j, "logprob", r->logprob);
}

static void print_logprobs(struct ctl_json *j, const struct answer *a)
{
    const struct rate *all = (const struct rate *)(const void *)a->rates.bytes;
    size_t n = a->rates.len / sizeof(*all), n_top = a->opts->sampling.logprobs;

    ctl_json_open(j, "logprobs", '[');
    for (size_t i = 0; i + n_top < n; i += 1 + n_top) {
        ctl_json_open(j, NULL, '{');
        print_rate(j, &all[i]);
        ctl_json_open(j, "top", '[');
        for (size_t k = 1; k <= n_top; k++) {
            ctl_json_open(j, NULL, '{');
            print_rate(j, &all[i + k]);
            ctl_json_close(j, '}');
        }
        ctl_json_close(j, ']');
        ctl_json_close(j, '}');
    }
    ctl_json_close(j, ']');
}

/* usage: of the prompt, and what was generated behind it. */
static void print_json(const struct answer *a)
{
    struct ctl_json j = { .out = stdout };
    struct gist_usage u = a->prompt;

    u.generated_tokens = a->n_tokens;
    u.drafted_tokens = a->result.usage.drafted_tokens;
    u.accepted_tokens = a->result.usage.accepted_tokens;
    u.first_token_ns = a->first_ns ? a->first_ns - a->asked_ns : 0;
    u.generate_ns = a->first_ns ? a->last_ns - a->first_ns : 0;
    ctl_json_open(&j, NULL, '{');
    ctl_json_text(&j, "answer", a->text.bytes ? a->text.bytes : "", a->text.len);
    ctl_json_string(&j, "reason", reason_word(a));
    ctl_json_stop(&j, "stop", &a->result, a->opts->stop.v);
    if (a->opts->logprobs)
        print_logprobs(&j, a);
    ctl_json_usage(&j, "usage", &u);
    ctl_json_close(&j, '}');
    fputc('\n', stdout);
}

/* Ctrl-C while the prompt was read: the daemon says what became of it. */
static int say_unread(const gist_conn *c, const struct answer *a)
{
    if (a->opts->stats)
        fprintf(stderr, "[%s]\n", gist_error(c));
    return CTL_INTERRUPTED;
}

/* What was said, however it ended. r: of the call that ended it. An interrupted or late answer is
 * printed as JSON as well, with its reason, since a script waits for an object. */
static int end_answer(const gist_conn *c, const struct answer *a, int r)
{
    if (a->line_open)
        fputc('\n', stdout);
    if (a->opts->json && (r == 0 || a->late || (r == -ECANCELED && ctl_interrupt_came())))
        print_json(a);
    if (ferror(stdout))
        return CTL_FAILED; /* main says why */
    if (r < 0 && !(r == -ECANCELED && ctl_interrupt_came()))
        return ctl_fail_gist(c, r);
    fflush(stdout);
    if (a->opts->stats)
        print_stats(a, a->opts);
    else if (r == 0)
        print_cut(a);
    print_missed(a);
    if (r < 0)
        return CTL_INTERRUPTED;
    /* Half a JSON text is none: who reads only the exit status must see it, too. */
    if (a->opts->whole && a->opts->sampling.grammar && a->result.reason != GIST_END_OF_TEXT)
        return CTL_FAILED;
    return CTL_OK;
}

/* What an answer stands on may only be known when it begins: a question at the end of a long text
 * brings back what it points to then. */
static void take_memory(struct answer *a)
{
    const struct gist_usage *u = &a->result.usage;

    a->prompt.raw_tokens = u->raw_tokens;
    a->prompt.gist_tokens = u->gist_tokens;
    a->prompt.gists = u->gists;
    a->prompt.ratio = u->ratio;
    memcpy(a->prompt.at_ratio, u->at_ratio, sizeof(u->at_ratio));
    a->prompt.hydrated_tokens = u->hydrated_tokens;
    a->prompt.hydrated_disk_tokens = u->hydrated_disk_tokens;
    a->prompt.recomputed_tokens = u->recomputed_tokens;
    a->prompt.missed_tokens = u->missed_tokens;
}

/* The deadline is told anew before the answer: reading took a part of it. */
int ctl_answer_run(gist_conn *c, gist_session *s, const struct ctl_prompt *prompt,
                   const struct ctl_answer_opts *o)
{
    struct gist_sampling sampling = o->sampling;
    struct answer a = { .opts = o, .asked_ns = ctl_now_ns() };
    int r;

    sampling.stop = o->stop.v;
    sampling.n_stop = (uint32_t)o->stop.n;
    if (o->logprobs) {
        sampling.flags |= GIST_SET_LOGPROBS;
        sampling.on_logprob = on_logprob;
    }
    r = read_prompt(c, s, prompt, &a);
    if (r == -ECANCELED && ctl_interrupt_came())
        return say_unread(c, &a);
    if (r == 0)
        r = ctl_set_end(c, o->end_ns);
    if (r == 0)
        r = gist_generate(s, &sampling, on_text, &a, &a.result);
    if (r == 0)
        take_memory(&a);
    a.late = r < 0 && gist_error_code(c) == GIST_E_DEADLINE;
    if (o->usage)
        *o->usage = a.prompt;
    r = end_answer(c, &a, r);
    ctl_text_fini(&a.text);
    ctl_text_fini(&a.rates);
    return r;
}

int ctl_answer_hear(gist_conn *c, gist_session *s, const struct gist_message *msgs, size_t n_msgs,
                    const struct ctl_answer_opts *o)
{
    struct answer a = { .opts = o, .asked_ns = ctl_now_ns() };
    int r = read_prompt(c, s, &(struct ctl_prompt){ .before = msgs, .n_before = n_msgs }, &a);

    if (r == -ECANCELED && ctl_interrupt_came())
        return say_unread(c, &a);
    if (r < 0)
        return ctl_fail_gist(c, r);
    if (o->usage)
        *o->usage = a.prompt;
    if (o->stats) {
        print_read(&a);
        fputs("]\n", stderr);
    }
    return CTL_OK;
}
