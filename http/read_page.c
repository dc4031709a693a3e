/* http/read_page.c - a turn of a live session: a chat completion, and which session it is of. */
#include "http/live.h"
#include "http/read.h"

/* Read as a chat completion is; what would not fit to a session that goes on is refused by name.
 * The page always streams. */
int read_turn(struct ask *a, struct problem *p)
{
    const struct json_object *o = a->root;
    bool answer = true;

    if (read_chat_completions(a, p) < 0 || field_text(o, "session", &a->session, p) < 0 ||
        field_count(o, "turns", 0, UINT32_MAX, &a->n_turns, p) < 0 ||
        field_bool(o, "answer", &answer, p) < 0 ||
        field_bool(o, "detachable", &a->detachable, p) < 0 || live_title(o, &a->title, p) < 0 ||
        field_refuse(o, "tools", "use /v1/chat/completions", p) < 0 ||
        field_refuse(o, "logprobs", "use /v1/chat/completions", p) < 0)
        return -1;
    if (a->n > 1)
        return problem_set(p, PROBLEM_UNSUPPORTED, "n",
                           "a session has one answer at a time: leave `n` out, or use "
                           "/v1/chat/completions");
    a->no_answer = !answer;
    a->stream = true;
    return 0;
}
