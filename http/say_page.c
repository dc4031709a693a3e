/* http/say_page.c - a turn of a live session, as the page hears of it (docs/http.md). */
#include "http/live.h"
#include "http/say.h"

#define TICK_MS 300u /* how often the picture of memory is drawn while something happens */

/* The first event: with it the page can come back to this answer (http/turn.h). */
static void opened(struct job *j)
{
    say_event(j, "session",
              json_make("{s:s, s:I, s:s}", "id", j->session, "turns", (int64_t)j->n_turns, "model",
                        j->model));
}

/* A picture less is no failure: what failed shows in the turn itself. */
static void say_map(struct job *j)
{
    struct problem p = { .kind = PROBLEM_NONE };
    struct json_object *o = live_map(j->conn, j->live->number, &p);

    if (o)
        say_event(j, "memory", o);
}

static void tick(struct job *j)
{
    if (j->loading > 0 && j->loading < 100) {
        say_event(j, "loading", json_make("{s:I}", "percent", (int64_t)j->loading));
        return;
    }
    if (j->state == JOB_READING)
        say_event(j, "reading",
                  json_make("{s:I, s:I}", "read", (int64_t)j->n_read, "of", (int64_t)j->n_all));
    say_map(j);
}

static void begin(struct job *j)
{
    const struct job_usage *u = &j->usage;

    say_event(j, "read",
              json_make("{s:I, s:I, s:I, s:I, s:f}", "tokens", (int64_t)u->prompt, "computed",
                        (int64_t)u->computed, "shared", (int64_t)u->shared, "restored",
                        (int64_t)u->restored, "ms", (double)u->prompt_ns / 1e6));
}

static void text(struct job *j, const char *bytes, size_t len)
{
    say_event(
        j, "text",
        json_make("{s:s%, s:I}", "text", bytes, len, "tokens", (int64_t)say_choice(j)->n_tokens));
}

static const char *reason(const struct job *j)
{
    static const char *const words[] = { [GIST_END_OF_TEXT] = "end",
                                         [GIST_STOP] = "end",
                                         [GIST_LENGTH] = "length",
                                         [GIST_CONTEXT_FULL] = "context_full",
                                         [GIST_POOL_FULL] = "pool_full" };
    enum gist_reason r = j->choices[0].reason;

    if (j->ask->no_answer)
        return "read";
    if (j->stopped)
        return "stopped";
    return (size_t)r < sizeof(words) / sizeof(words[0]) ? words[r] : "end";
}

static void done(struct job *j)
{
    const struct job_usage *u = &j->usage;

    say_event(j, "done",
              json_make("{s:s, s:I, s:I, s:f, s:o}", "reason", reason(j), "turns",
                        (int64_t)j->n_turns + 1, "tokens", (int64_t)u->generated, "ms",
                        (double)u->generate_ns / 1e6, "gistd", say_gistd(j)));
}

/* The last picture before the last event: behind `done` nothing comes. It asks the daemon, which
 * the main thread is not to wait for where nobody hears it. */
static void end(struct job *j)
{
    if (!j->unheard)
        say_map(j);
    done(j);
}

/* In the order that they first came in, and the text as one piece. Where nothing was read yet
 * `read` comes later, as ever. */
static void again(struct job *j)
{
    const struct job_choice *c = say_choice(j);

    opened(j);
    if (j->begun)
        begin(j);
    if (c->text.len > 0)
        text(j, c->text.bytes, c->text.len);
    if (j->state == JOB_ENDED)
        done(j);
}

static void error(struct job *j)
{
    say_event(j, "error", say_openai_refusal(&j->problem));
}

const struct voice say_page = { .stream_type = "text/event-stream",
                                .keeps_text = true,
                                .early = true,
                                .begin = begin,
                                .choice = say_nothing,
                                .text = text,
                                .choice_end = say_nothing,
                                .end = end,
                                .keep_alive = say_comment,
                                .tick_ms = TICK_MS,
                                .tick = tick,
                                .opened = opened,
                                .again = again,
                                .error = error,
                                .refusal = say_openai_refusal };
