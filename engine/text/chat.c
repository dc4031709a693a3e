#include "engine/text/chat.h"

#include "base/utf8.h"
#include "engine/text/template.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Expressions in the canonical spelling of template.h: \1 stands for a quote, \2 \3 for {{ }}, \5
 * for the end of a statement. */
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
    bool has_tool;
    bool bos_first; /* bos comes also when there is no message */
    bool wants_one; /* it fails when there is none */
};

/* --- knowing a template ----------------------------------------------------------------------- */

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
 * before <|im_end|> is another one: the head of a message that the caller gave. */
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

static int know_chatml(struct chat *c, const char *t)
{
    /* What would change a message's text or an answer's head in ways that we don't render. */
    static const char *const strangers[] = { "think",  "trim",     "strip(",
                                             "split(", "replace(", "system_message" };

    if (!has(t, CHATML_MESSAGE) || !has(t, CHATML_ANSWER) ||
        has_any(t, strangers, sizeof(strangers) / sizeof(*strangers)))
        return -ENOTSUP;
    c->family = CHAT_CHATML;
    c->has_tool = has(t, "message.role==\1tool\1") && has(t, CHATML_TOOL);
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
 * default: the text of a conversation should not depend on the day. */
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

static int know_llama3(struct chat *c, const char *t)
{
    static const char *const strangers[] = { "think", "strip(", "split(", "replace(" };

    if (!has(t, LLAMA3_MESSAGE) || !has(t, LLAMA3_ANSWER) ||
        has_any(t, strangers, sizeof(strangers) / sizeof(*strangers)))
        return -ENOTSUP;
    c->family = CHAT_LLAMA3;
    c->has_tool = has(t, "message.role==\1tool\1") && has(t, LLAMA3_TOOL);
    if (has(t, LLAMA3_SYSTEM) || has(t, "Cutting Knowledge"))
        return know_llama3_system(c, t);
    return 0;
}

/* The template writes bos_token; its text is the token's. */
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

/* Jinja renders nothing of a loop over no messages, and fails at a look at the first of none. */
static void know_of_none(struct chat *c, const char *t)
{
    const char *loop = strstr(t, "formessagein"), *first = strstr(t, "messages[0]"),
               *bos = strstr(t, "bos_token");

    c->wants_one = first && (!loop || first < loop);
    c->bos_first = bos && (!loop || bos < loop);
}

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

/* --- rendering -------------------------------------------------------------------------------- */

struct out {
    int (*emit)(void *arg, const struct chat_piece *p);
    void *arg;
    int r; /* of the first emit that failed; nothing is emitted after it */
};

static void put_piece(struct out *o, const char *text, size_t len, bool special)
{
    struct chat_piece p = { .text = text, .len = len, .special = special };

    if (o->r == 0 && len > 0)
        o->r = o->emit(o->arg, &p);
}

static void put_special(struct out *o, const char *text)
{
    put_piece(o, text, strlen(text), true);
}

static void put_text(struct out *o, const char *text)
{
    put_piece(o, text, strlen(text), false);
}

/* What Python's str.strip() takes away: White_Space and the four separators U+001C to U+001F. */
static bool is_python_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

/* The length of the space character at p[0..n), or 0. */
static size_t space_len(const uint8_t *p, size_t n)
{
    size_t len;

    if (utf8_check(p, n, &len) != UTF8_OK || !is_python_space(utf8_get(p, len)))
        return 0;
    return len;
}

/* The same for the one that ends there. A space is at most 3 bytes long. */
static size_t last_space_len(const uint8_t *p, size_t n)
{
    size_t len;

    for (len = 1; len <= 3 && len <= n; len++)
        if (space_len(p + n - len, len) == len)
            return len;
    return 0;
}

static void put_trimmed(struct out *o, const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t n;

    while (len > 0 && (n = space_len(p, len)) > 0) {
        p += n;
        len -= n;
    }
    while (len > 0 && (n = last_space_len(p, len)) > 0)
        len -= n;
    put_piece(o, (const char *)p, len, false);
}

/* A JSON string, as json.dumps(text, ensure_ascii=False) writes it. */
static void put_json(struct out *o, const char *text, size_t len)
{
    static const char short_names[] = "btn-fr"; /* of 08 to 0D; 0B has none */
    char escape[8];
    size_t i, from = 0;

    put_text(o, "\"");
    for (i = 0; i < len; i++) {
        uint8_t c = (uint8_t)text[i];

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        put_piece(o, text + from, i - from, false);
        from = i + 1;
        if (c >= 0x20)
            (void)snprintf(escape, sizeof(escape), "\\%c", c);
        else if (c >= 0x08 && c <= 0x0d && c != 0x0b)
            (void)snprintf(escape, sizeof(escape), "\\%c", short_names[c - 0x08]);
        else
            (void)snprintf(escape, sizeof(escape), "\\u%04x", c);
        put_text(o, escape);
    }
    put_piece(o, text + from, len - from, false);
    put_text(o, "\"");
}

/* What stands before a message's text, and after it. */
static void put_head(const struct chat *c, struct out *o, const char *role)
{
    if (c->family == CHAT_CHATML) {
        put_special(o, "<|im_start|>");
        put_text(o, role);
        put_text(o, "\n");
    } else {
        put_special(o, "<|start_header_id|>");
        put_text(o, role);
        put_special(o, "<|end_header_id|>");
        put_text(o, "\n\n");
    }
}

static void put_end(const struct chat *c, struct out *o)
{
    if (c->family == CHAT_CHATML) {
        put_special(o, "<|im_end|>");
        put_text(o, "\n");
    } else {
        put_special(o, "<|eot_id|>");
    }
}

static bool is_role(const struct chat_message *m, const char *role)
{
    return strcmp(m->role, role) == 0;
}

/* Results of tools: Qwen2.5 writes those that follow each other as one user turn, Llama 3.1 each as
 * JSON in a turn of its own. first, last: of such a row. */
static void put_tool(const struct chat *c, struct out *o, const struct chat_message *m, bool first,
                     bool last)
{
    if (c->family == CHAT_LLAMA3) {
        put_head(c, o, "ipython");
        put_json(o, m->text, m->text_len);
        put_end(c, o);
        return;
    }
    if (first) {
        put_special(o, "<|im_start|>");
        put_text(o, "user");
    }
    put_text(o, "\n<tool_response>\n");
    put_piece(o, m->text, m->text_len, false);
    put_text(o, "\n</tool_response>");
    if (last)
        put_end(c, o);
}

static void put_message(const struct chat *c, struct out *o, const struct chat_message *m)
{
    put_head(c, o, m->role);
    if (c->family == CHAT_LLAMA3)
        put_trimmed(o, m->text, m->text_len);
    else
        put_piece(o, m->text, m->text_len, false);
    put_end(c, o);
}

/* What a conversation begins with; returns how many of the messages it took in. */
static size_t put_start(const struct chat *c, struct out *o, const struct chat_message *msgs,
                        size_t n_msgs)
{
    bool given = n_msgs > 0 && is_role(&msgs[0], "system");

    if (c->bos && (n_msgs > 0 || c->bos_first))
        put_special(o, c->bos);
    if (n_msgs == 0 || !c->system || (c->family == CHAT_CHATML && given))
        return 0;
    put_head(c, o, "system");
    put_text(o, c->system);
    if (given)
        put_trimmed(o, msgs[0].text, msgs[0].text_len);
    put_end(c, o);
    return given ? 1 : 0;
}

static bool role_is_known(const struct chat *c, const struct chat_message *m)
{
    return is_role(m, "system") || is_role(m, "user") || is_role(m, "assistant") ||
           (c->has_tool && is_role(m, "tool"));
}

int chat_render(const struct chat *c, const struct chat_message *msgs, size_t n_msgs,
                enum chat_at at, bool open_answer,
                int (*emit)(void *arg, const struct chat_piece *p), void *arg)
{
    struct out o = { .emit = emit, .arg = arg };
    size_t i;

    for (i = 0; i < n_msgs; i++)
        if (!role_is_known(c, &msgs[i]))
            return -EINVAL;
    if (at == CHAT_AT_START && n_msgs == 0 && c->wants_one)
        return -ENODATA;
    i = 0;
    if (at == CHAT_AT_START)
        i = put_start(c, &o, msgs, n_msgs);
    else if (at == CHAT_AT_OPEN_TURN)
        put_end(c, &o);
    for (; i < n_msgs; i++) {
        if (is_role(&msgs[i], "tool"))
            put_tool(c, &o, &msgs[i], i == 0 || !is_role(&msgs[i - 1], "tool"),
                     i + 1 == n_msgs || !is_role(&msgs[i + 1], "tool"));
        else
            put_message(c, &o, &msgs[i]);
    }
    if (open_answer)
        put_head(c, &o, "assistant");
    return o.r;
}
