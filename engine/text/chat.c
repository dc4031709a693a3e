/* Knowing a template is a search for a few expressions that only that family has, in the canonical
 * spelling. It must not be lax: a template that is taken for another one gives a model text that it
 * was never trained on, and nobody would notice. So whatever may change the text in a way that is
 * not rendered here (`strangers`) makes it unknown, and an unknown one is refused with a sentence.
 */
#include "engine/text/chat.h"

#include "engine/text/chat_tools.h"
#include "engine/text/template.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Expressions in the canonical spelling of template.h: \1 stands for a quote, \2 \3 for {{ }}, \5
 * for the end of a statement. Blanks are gone in that spelling, so a loop is "formessagein". */
#define CHATML_MESSAGE "\1<|im_start|>\1+message.role+\1\n\1+message.content+\1<|im_end|>\n\1"
#define CHATML_ANSWER  "\2\1<|im_start|>assistant\n\1\3"
#define CHATML_TOOL    "\2\1\n<tool_response>\n\1\3\2message.content\3\2\1\n</tool_response>\1\3"
#define LLAMA3_MESSAGE                                                                             \
    "\1<|start_header_id|>\1+message.role+\1<|end_header_id|>\n\n\1+message.content|trim+"         \
    "\1<|eot_id|>\1"
#define LLAMA3_ANSWER "\2\1<|start_header_id|>assistant<|end_header_id|>\n\n\1\3"
#define LLAMA3_SYSTEM "\2\1<|start_header_id|>system<|end_header_id|>\n\n\1\3"
#define LLAMA3_DATE   "\2\1Today Date: \1+date_string+\1\n\n\1\3"
#define LLAMA3_TOOL                                                                                \
    "\2\1<|start_header_id|>ipython<|end_header_id|>\n\n\1\3"                                      \
    "\4ifmessage.contentismappingormessage.contentisiterable\5\2message.content|tojson\3"

struct chat {
    enum chat_family family;
    char *bos;    /* the text of the begin-of-text token, or NULL: the template writes none */
    char *system; /* ChatML: the default system message; Llama 3.1: what a system message begins
                        with, which is written even when there is none; or NULL */
    enum chat_tools tools;
    bool has_ipython; /* Llama 3.1: the role that results of tools have */
    bool bos_first;   /* bos comes also when there is no message */
    bool wants_one;   /* it fails when there is none */
};

/* --- knowing a template ----------------------------------------------------------------------- */

/* All of these searches are over one string of a few kilobytes, once, when a model is loaded. */
static bool has(const char *t, const char *what)
{
    return strstr(t, what) != NULL;
}

static bool has_any(const char *t, const char *const *words, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++)
        if (has(t, words[i]))
            return true;
    return false;
}

/* The default system message stands as one literal with the tokens around it. A literal that ends
 * before <|im_end|> is another one: the head of a message that the caller gave. The caller's has
 * the message's content behind it, outside of the literal. */
static char *find_chatml_system(const char *t)
{
    static const char head[] = "<|im_start|>system\n", end[] = "<|im_end|>\n\1";
    const char *at = t, *stop;

    while ((at = strstr(at, head)) != NULL) {
        at += strlen(head);
        stop = strchr(at, '\1');
        if (stop && (size_t)(stop - at) + 1 >= strlen(end) &&
            memcmp(stop + 1 - strlen(end), end, strlen(end)) == 0)
            return strndup(at, (size_t)(stop + 1 - at) - strlen(end));
    }
    return NULL;
}

/* -ENOTSUP: not that family, or one of its relatives that does more than is rendered here. */
static int know_chatml(struct chat *c, const char *t)
{
    /* What would change a message's text or an answer's head in ways that we don't render. */
    static const char *const strangers[] = { "think",  "trim",     "strip(",
                                             "split(", "replace(", "system_message" };

    if (!has(t, CHATML_MESSAGE) || !has(t, CHATML_ANSWER) ||
        has_any(t, strangers, sizeof(strangers) / sizeof(*strangers)))
        return -ENOTSUP;
    c->family = CHAT_CHATML;
    /* Without the form for results a template's tools are of no use: calls could not be answered.
     */
    if (has(t, "message.role==\1tool\1") && has(t, CHATML_TOOL))
        c->tools = chat_tools_know(t);
    c->system = find_chatml_system(t);
    if (c->system && !has(t, "loop.firstandmessages[0].role!=\1system\1") &&
        !has(t, "ifmessages[0].role==\1system\1"))
        return -ENOTSUP; /* a default, but under another condition */
    return 0;
}

/* The text between `before` and the next quote, or NULL. */
static const char *find_literal(const char *t, const char *before, size_t *ret_len)
{
    const char *at = strstr(t, before), *end;

    if (!at)
        return NULL;
    at += strlen(before);
    end = strchr(at, '\1');
    if (!end)
        return NULL;
    *ret_len = (size_t)(end - at);
    return at;
}

/* Llama 3.1 and 3.2 begin every conversation with two dates. The second is the template's own
 * default: the text of a conversation should not depend on the day. Both stand in front of what the
 * caller's own system message says, and make a system message where it gave none. */
static int know_llama3_system(struct chat *c, const char *t)
{
    static const char cutoff[] = "\2\1Cutting Knowledge Date: ";
    const char *known, *date;
    size_t known_len, date_len;

    known = find_literal(t, cutoff, &known_len);
    date = find_literal(t, "setdate_string=\1", &date_len);
    if (!known || !date || !has(t, LLAMA3_DATE))
        return -ENOTSUP;
    if (asprintf(&c->system, "%s%.*sToday Date: %.*s\n\n", cutoff + 2, (int)known_len, known,
                 (int)date_len, date) < 0) {
        c->system = NULL;
        return -ENOMEM;
    }
    return 0;
}

/* Llama 3 has neither dates nor tools; 3.1 and later have both. */
static int know_llama3(struct chat *c, const char *t)
{
    static const char *const strangers[] = { "think", "strip(", "split(", "replace(" };

    if (!has(t, LLAMA3_MESSAGE) || !has(t, LLAMA3_ANSWER) ||
        has_any(t, strangers, sizeof(strangers) / sizeof(*strangers)))
        return -ENOTSUP;
    c->family = CHAT_LLAMA3;
    c->has_ipython = has(t, "message.role==\1tool\1") && has(t, LLAMA3_TOOL);
    if (!has(t, LLAMA3_SYSTEM) && !has(t, "Cutting Knowledge"))
        return 0;
    if (c->has_ipython)
        c->tools = chat_tools_know(t);
    return know_llama3_system(c, t);
}

/* The template writes bos_token; its text is the token's. Strings of the array have no index, so it
 * is read up to the token. */
static int read_bos(struct chat *c, const struct gguf *g, struct why *why)
{
    struct gguf_array tokens;
    struct gguf_str text = { 0 };
    size_t pos = 0;
    uint32_t id, i;

    if (gguf_get_u32(g, "tokenizer.ggml.bos_token_id", &id) < 0)
        return 0; /* bos_token is empty, then */
    if (gguf_get_array(g, "tokenizer.ggml.tokens", &tokens) < 0 || tokens.kind != GGUF_STRING ||
        id >= tokens.n)
        return why_set(why, -EINVAL, "%s: tokenizer.ggml.bos_token_id is %u, which is not a token",
                       gguf_path(g), id);
    for (i = 0; i <= id; i++)
        text = gguf_next_str(&tokens, &pos);
    c->bos = strndup(text.s, text.len);
    return c->bos ? 0 : -ENOMEM;
}

/* Jinja renders nothing of a loop over no messages, and fails at a look at the first of none. Which
 * comes first in the template's text tells what is rendered before the loop. */
static void know_of_none(struct chat *c, const char *t)
{
    const char *loop = strstr(t, "formessagein"), *first = strstr(t, "messages[0]"),
               *bos = strstr(t, "bos_token");

    c->wants_one = first && (!loop || first < loop);
    c->bos_first = bos && (!loop || bos < loop);
}

/* -ENOTSUP gets its sentence here; other errors have theirs already, or are -ENOMEM. */
static int know(struct chat *c, const struct gguf *g, struct gguf_str source, struct why *why)
{
    char *t = NULL;
    int r = template_canonical(source.s, source.len, &t);

    if (r == 0)
        r = has(t, "<|im_start|>") ? know_chatml(c, t) : know_llama3(c, t);
    if (r == -ENOTSUP)
        (void)why_set(
            why, r,
            "%s: unknown chat template, beginning \"%.*s\"; supported: ChatML as written by "
            "SmolLM2 and Qwen2, and Llama 3, 3.1 and 3.2; plain text still works",
            gguf_path(g), (int)(source.len < 80 ? source.len : 80), source.s);
    if (r == 0)
        know_of_none(c, t);
    if (r == 0 && has(t, "bos_token"))
        r = read_bos(c, g, why);
    free(t);
    return r;
}

int chat_open(const struct gguf *g, struct chat **ret, struct why *why)
{
    struct gguf_str source;
    struct chat *c;
    int r;

    r = gguf_get_str(g, "tokenizer.chat_template", &source);
    if (r == -ENOENT)
        return why_set(why, r, "%s: tokenizer.chat_template is missing", gguf_path(g));
    if (r < 0)
        return why_set(why, r, "%s: tokenizer.chat_template is not a string", gguf_path(g));
    c = calloc(1, sizeof(*c));
    if (!c)
        return why_set(why, -ENOMEM, "%s: not enough memory for the chat template", gguf_path(g));
    r = know(c, g, source, why);
    if (r < 0) {
        chat_close(c);
        return why_set(why, r, "%s: not enough memory for the chat template", gguf_path(g));
    }
    *ret = c;
    return 0;
}

void chat_close(struct chat *c)
{
    if (!c)
        return;
    free(c->bos);
    free(c->system);
    free(c);
}

enum chat_family chat_family(const struct chat *c)
{
    return c->family;
}

enum chat_tools chat_tools(const struct chat *c)
{
    return c->tools;
}

/* --- rendering -------------------------------------------------------------------------------- */

/* What stands before a message's text, and after it. */
static void put_head(const struct chat *c, struct chat_out *o, const char *role)
{
    if (c->family == CHAT_CHATML) {
        chat_put_special(o, "<|im_start|>");
        chat_put_text(o, role);
        chat_put_text(o, "\n");
    } else {
        chat_put_special(o, "<|start_header_id|>");
        chat_put_text(o, role);
        chat_put_special(o, "<|end_header_id|>");
        chat_put_text(o, "\n\n");
    }
}

static void put_end(const struct chat *c, struct chat_out *o)
{
    if (c->family == CHAT_CHATML) {
        chat_put_special(o, "<|im_end|>");
        chat_put_text(o, "\n");
    } else {
        chat_put_special(o, "<|eot_id|>");
    }
}

static bool is_role(const struct chat_message *m, const char *role)
{
    return strcmp(m->role, role) == 0;
}

/* Results of tools: Qwen2.5 writes those that follow each other as one user turn, Llama 3.1 each as
 * JSON in a turn of its own. first, last: of such a row. */
static void put_tool(const struct chat *c, struct chat_out *o, const struct chat_message *m,
                     bool first, bool last)
{
    if (c->has_ipython) {
        put_head(c, o, "ipython");
        chat_put_json(o, m->text, m->text_len);
        put_end(c, o);
        return;
    }
    if (first)
        put_head(c, o, "user");
    chat_put_text(o, first ? "<tool_response>\n" : "\n<tool_response>\n");
    chat_put_piece(o, m->text, m->text_len, false);
    chat_put_text(o, "\n</tool_response>");
    if (last)
        put_end(c, o);
}

static void put_message_text(const struct chat *c, struct chat_out *o, const struct chat_message *m)
{
    if (c->family == CHAT_LLAMA3)
        chat_put_trimmed(o, m->text, m->text_len);
    else
        chat_put_piece(o, m->text, m->text_len, false);
}

static void put_message(const struct chat *c, struct chat_out *o, const struct chat_message *m)
{
    put_head(c, o, m->role);
    put_message_text(c, o, m);
    put_end(c, o);
}

/* Calls, and what was said before them or NULL. Llama 3.1's template has one call a turn, and
 * leaves out what was said beside it. A caller may have put several calls into one message: there
 * each becomes a turn. */
static void put_calls(const struct chat *c, struct chat_out *o, const struct chat_message *said,
                      const struct chat_message *calls)
{
    size_t at = 0;

    do {
        put_head(c, o, "assistant");
        if (said && said->text_len > 0 && c->tools != CHAT_TOOLS_BARE) {
            put_message_text(c, o, said);
            chat_put_text(o, "\n");
        }
        chat_put_calls(o, c->tools, calls, &at);
        put_end(c, o);
    } while (at < calls->text_len);
}

/* What a conversation begins with; returns how many of the messages it took in. Messages that are
 * taken in here are the tools, a system message, and with Llama 3.1's tools the first user message,
 * which the list of tools stands in front of. Llama 3.1's dates (own) come beside what was given,
 * ChatML's default only in its place. Without tools or a system text of the template's own nothing
 * is taken in: the first message is then one like the others. */
static size_t put_start(const struct chat *c, struct chat_out *o, const struct chat_message *msgs,
                        size_t n_msgs)
{
    bool has_tools = n_msgs > 0 && is_role(&msgs[0], "tools"),
         bare = has_tools && c->tools == CHAT_TOOLS_BARE;
    size_t n = has_tools ? 1 : 0; /* messages taken in */
    const struct chat_message *given = n < n_msgs && is_role(&msgs[n], "system") ? &msgs[n] : NULL;
    bool own = c->system && (c->family == CHAT_LLAMA3 || !given);

    if (c->bos && (n_msgs > 0 || c->bos_first))
        chat_put_special(o, c->bos);
    if (n_msgs == 0 || (!has_tools && !own))
        return 0;
    put_head(c, o, "system");
    if (bare)
        chat_put_text(o, "Environment: ipython\n");
    if (own)
        chat_put_text(o, c->system);
    if (given)
        put_message_text(c, o, given);
    if (has_tools && !bare)
        chat_put_tools(o, c->tools, &msgs[0], own || given);
    put_end(c, o);
    n += given != NULL;
    if (bare) {
        put_head(c, o, "user");
        chat_put_tools(o, c->tools, &msgs[0], false);
        if (n < n_msgs && is_role(&msgs[n], "user"))
            put_message_text(c, o, &msgs[n++]);
        put_end(c, o);
    }
    return n;
}

/* All messages are looked at before the first is emitted: a rendering that fails in the middle
 * would leave the caller with half a text. `first`: where tools may stand. */
static int check_message(const struct chat_message *m, bool first)
{
    bool tools = is_role(m, "tools"), calls = is_role(m, "calls");

    if (tools || calls)
        return (calls || first) && chat_tools_valid(m) ? 0 : -EPROTO;
    return is_role(m, "system") || is_role(m, "user") || is_role(m, "assistant") ||
                   is_role(m, "tool")
               ? 0
               : -EINVAL;
}

/* The message at i, and the calls behind it that belong to it; returns how many that are. */
static size_t put_next(const struct chat *c, struct chat_out *o, const struct chat_message *msgs,
                       size_t n_msgs, size_t i)
{
    const struct chat_message *m = &msgs[i], *next = i + 1 < n_msgs ? m + 1 : NULL;

    if (is_role(m, "assistant") && next && is_role(next, "calls")) {
        put_calls(c, o, m, next);
        return 2;
    }
    if (is_role(m, "calls"))
        put_calls(c, o, NULL, m);
    else if (is_role(m, "tool"))
        put_tool(c, o, m, i == 0 || !is_role(m - 1, "tool"), !next || !is_role(next, "tool"));
    else
        put_message(c, o, m);
    return 1;
}

/* The pieces are emitted as they are made; nothing of the rendered text is kept here. An open turn
 * is an answer whose own end nobody kept: it is written before the next message. */
int chat_render(const struct chat *c, const struct chat_message *msgs, size_t n_msgs,
                enum chat_at at, bool open_answer,
                int (*emit)(void *arg, const struct chat_piece *p), void *arg)
{
    struct chat_out o = { .emit = emit, .arg = arg };
    size_t i;
    int r = 0;

    for (i = 0; i < n_msgs && r == 0; i++)
        r = check_message(&msgs[i], i == 0 && at == CHAT_AT_START);
    if (r < 0)
        return r;
    if (at == CHAT_AT_START && n_msgs == 0 && c->wants_one)
        return -ENODATA;
    i = 0;
    if (at == CHAT_AT_START)
        i = put_start(c, &o, msgs, n_msgs);
    else if (at == CHAT_AT_OPEN_TURN)
        put_end(c, &o);
    while (i < n_msgs)
        i += put_next(c, &o, msgs, n_msgs, i);
    if (open_answer)
        put_head(c, &o, "assistant");
    return o.r;
}
