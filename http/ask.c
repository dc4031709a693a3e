/* http/ask.c - an ask before anything of it was read, and messages as they are added to it. */

#include "http/ask.h"

#include <string.h>

void ask_init(struct ask *a)
{
    memset(a, 0, sizeof(*a));
    a->n = 1;
    a->sampling.size = sizeof(a->sampling);
    /* Zeros stand for "not said" elsewhere; here they would mean something else. */
    a->sampling.top_p = 1;
    /* What a request says is what it means, also a 0. */
    a->sampling.flags = GIST_SET_TOP_P;
    a->policy.size = sizeof(a->policy);
    a->policy.flags = GIST_AUTO;
    a->memory.size = sizeof(a->memory);
}

void ask_fini(struct ask *a)
{
    json_free(a->root);
    mem_fini(&a->mem);
    a->root = NULL;
}

/* The first message makes the prompt that all are of, with room for as many as there may be:
 * readers find out how many there are only by reading them. */
int ask_message(struct ask *a, const char *role, const char *text, struct problem *p)
{
    struct gist_message *msgs;

    if (!a->prompts) {
        a->prompts = mem_new(&a->mem, 1, sizeof(*a->prompts));
        msgs = mem_new(&a->mem, ASK_MESSAGES_MAX, sizeof(*msgs));
        if (!a->prompts || !msgs)
            return problem_no_memory(p);
        a->prompts->msgs = msgs;
        a->prompts->chat = true;
    }
    if (a->prompts->n_msgs == ASK_MESSAGES_MAX)
        return problem_set(p, PROBLEM_INVALID, "messages",
                           "`messages` has more than %u messages: join some of them",
                           ASK_MESSAGES_MAX);
    /* What the caller has put together, and could not. */
    if (!text)
        return problem_no_memory(p);
    msgs = (struct gist_message *)a->prompts->msgs;
    msgs[a->prompts->n_msgs++] = (struct gist_message){ role, text };
    return 0;
}

/* Behind all messages: until then the prompt does not count. */
int ask_chat(struct ask *a, struct problem *p)
{
    if (!a->prompts)
        return problem_set(p, PROBLEM_INVALID, "messages",
                           "there is no message: at least one is needed");
    a->n_prompts = 1;
    return 0;
}
