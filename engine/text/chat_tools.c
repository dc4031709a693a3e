#include "engine/text/chat_tools.h"

#include <errno.h>
#include <string.h>

/* Words of Qwen2.5's template. They are looked for in a template (chat_tools_know), and written
 * where it has them: so a model reads its own template's words or the file is not taken for that
 * form. */
#define TAGGED_HEAD                                                                                \
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are " \
    "provided with function signatures within <tools></tools> XML tags:\n<tools>"
#define TAGGED_TAIL                                                                                \
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments " \
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, "          \
    "\"arguments\": <args-json-object>}\n</tool_call>"
#define OPEN_TAG  "<tool_call>"
#define CLOSE_TAG "</tool_call>"

/* Of Llama 3.1's; it writes them in four pieces. */
#define BARE_1 "Given the following functions, please respond with a JSON for a function call "
#define BARE_2 "with its proper arguments that best answers the given prompt.\n\n"
#define BARE_3                                                                                     \
    "Respond in the format {\"name\": function name, \"parameters\": dictionary of argument name " \
    "and its value}."
#define BARE_4 "Do not use variables.\n\n"

/* A literal that is written alone, in the spelling of template.h. */
#define WRITTEN(literal) "\2\1" literal "\1\3"

#define INDENT     4u
#define SPACES_MAX (1u << 20) /* that indenting one list of tools may cost */

static bool has_all(const char *t, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strstr(t, words[i]))
            return false;
    return true;
}

/* Each form is known by all of its fixed texts. One that differs in a word is none: what is written
 * would not be what the model was trained on. */
enum chat_tools chat_tools_know(const char *t)
{
    static const char *const tagged[] = {
        WRITTEN(TAGGED_HEAD), "\2tool|tojson\3", "\2\1" TAGGED_TAIL "<|im_end|>\n\1\3",
        WRITTEN("\n<tool_call>\n{\"name\": \"") "\2tool_call.name\3" WRITTEN(
            "\", \"arguments\": ") "\2tool_call.arguments|tojson\3" WRITTEN("}\n</tool_call>")
    };
    static const char *const bare[] = {
        WRITTEN("Environment: ipython\n"),
        WRITTEN(BARE_1) WRITTEN(BARE_2) WRITTEN(BARE_3) WRITTEN(BARE_4), "\2t|tojson(indent=4)\3",
        "\2\1{\"name\": \"\1+tool_call.name+\1\", \1\3" WRITTEN(
            "\"parameters\": ") "\2tool_call.arguments|tojson\3" WRITTEN("}")
    };

    if (has_all(t, tagged, sizeof(tagged) / sizeof(*tagged)))
        return CHAT_TOOLS_TAGGED;
    return has_all(t, bare, sizeof(bare) / sizeof(*bare)) ? CHAT_TOOLS_BARE : CHAT_TOOLS_NONE;
}

/* --- lines ------------------------------------------------------------------------------------ */

struct line {
    const char *s;
    size_t len;
};

/* The next of m behind *at; false: there is none. */
static bool next_line(const struct chat_message *m, size_t *at, struct line *ret)
{
    const char *end;

    if (*at >= m->text_len)
        return false;
    ret->s = m->text + *at;
    end = memchr(ret->s, '\n', m->text_len - *at);
    ret->len = end ? (size_t)(end - ret->s) : m->text_len - *at;
    *at += ret->len + 1;
    return true;
}

/* A name is written between quotes as it is, so what would have to be escaped is not taken. Bytes
 * above 0x7f are: names may be in any script. */
static bool is_name(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] <= ' ' || s[i] == '"' || s[i] == '\\')
            return false;
    return len > 0;
}

/* "NAME ARGUMENTS" in two. The arguments keep their blanks. */
static bool split_call(const struct line *l, struct line *ret_name, struct line *ret_arguments)
{
    const char *space = memchr(l->s, ' ', l->len);

    if (!space)
        return false;
    *ret_name = (struct line){ l->s, (size_t)(space - l->s) };
    *ret_arguments = (struct line){ space + 1, l->len - ret_name->len - 1 };
    return is_name(ret_name->s, ret_name->len) && ret_arguments->len > 0;
}

/* Whether every bracket ends, and a string before its line does. What is between them is text to
 * the model, and the client's own business. *spaces grows by what indenting it would cost. Cheap
 * and strict enough that put_indented never leaves its depth: who changes one must change the
 * other. */
static bool is_closed(const struct line *l, size_t *spaces)
{
    size_t depth = 0;
    bool inside = false;

    for (size_t i = 0; i < l->len; i++) {
        char c = l->s[i];

        if (inside && c == '\\')
            i++;
        else if (c == '"')
            inside = !inside;
        else if (!inside && (c == '{' || c == '['))
            *spaces += INDENT * ++depth;
        else if (!inside && (c == '}' || c == ']') && depth == 0)
            return false;
        else if (!inside && (c == '}' || c == ']'))
            *spaces += INDENT * --depth;
        else if (!inside && c == ',')
            *spaces += INDENT * depth;
    }
    return depth == 0 && !inside;
}

/* `at` is 0 where there is no line at all, which is no message either. */
bool chat_tools_valid(const struct chat_message *m)
{
    bool calls = strcmp(m->role, "calls") == 0;
    struct line l, name, arguments;
    size_t at = 0, spaces = 0;

    while (next_line(m, &at, &l)) {
        if (calls && (!split_call(&l, &name, &arguments) || !is_closed(&arguments, &spaces)))
            return false;
        if (!calls && (l.len == 0 || l.s[0] != '{' || !is_closed(&l, &spaces)))
            return false;
    }
    /* Calls are written as they came. */
    return at > 0 && (calls || spaces <= SPACES_MAX);
}

/* --- writing ---------------------------------------------------------------------------------- */

/* Qwen2.5's vocabulary has both tags as tokens: in the template's own words, and nowhere else, they
 * are these. Text between the tags goes out as plain text, also what a client wrote into it. */
static void put_tagged(struct chat_out *o, const char *text)
{
    const char *at;

    while ((at = strstr(text, "tool_call>")) != NULL) {
        const char *tag = at[-1] == '/' ? CLOSE_TAG : OPEN_TAG;

        at += strlen("tool_call>");
        chat_put_piece(o, text, (size_t)(at - text) - strlen(tag), false);
        chat_put_special(o, tag);
        text = at;
    }
    chat_put_text(o, text);
}

/* Depth is bounded by what chat_tools_valid counted: SPACES_MAX in all. */
static void put_break(struct chat_out *o, size_t depth)
{
    chat_put_text(o, "\n");
    while (depth-- > 0)
        chat_put_text(o, "    ");
}

/* The length of the empty array or object there, or 0. */
static size_t empty_len(const char *s, size_t n)
{
    size_t i = 1;

    while (i < n && s[i] == ' ')
        i++;
    return i < n && s[i] == (s[0] == '{' ? '}' : ']') ? i + 1 : 0;
}

/* From its opening quote to behind the closing one. The line was looked at, so it has one. */
static size_t string_len(const char *s, size_t n)
{
    size_t i = 1;

    while (i < n && s[i] != '"')
        i += s[i] == '\\' ? 2 : 1;
    return i < n ? i + 1 : n;
}

/* A line of JSON as json.dumps(x, indent=4) writes it. Strings are copied as they are; blanks
 * outside of them are dropped and written anew. */
static void put_indented(struct chat_out *o, const struct line *l)
{
    size_t depth = 0, n;

    for (size_t i = 0; i < l->len; i += n) {
        const char *s = l->s + i;

        n = 1;
        if (*s == '"') {
            n = string_len(s, l->len - i);
            chat_put_piece(o, s, n, false);
        } else if ((*s == '{' || *s == '[') && (n = empty_len(s, l->len - i)) > 0) {
            chat_put_text(o, *s == '{' ? "{}" : "[]");
        } else if (*s == '{' || *s == '[') {
            n = 1;
            chat_put_piece(o, s, 1, false);
            put_break(o, ++depth);
        } else if (*s == '}' || *s == ']') {
            put_break(o, --depth);
            chat_put_piece(o, s, 1, false);
        } else if (*s == ',') {
            chat_put_text(o, ",");
            put_break(o, depth);
        } else if (*s == ':') {
            chat_put_text(o, ": ");
        } else if (*s != ' ') {
            chat_put_piece(o, s, 1, false);
        }
    }
}

/* A system message that has only tools begins without the blank line that stands behind a text (+
 * 2). */
void chat_put_tools(struct chat_out *o, enum chat_tools form, const struct chat_message *tools,
                    bool after)
{
    struct line l;
    size_t at = 0;

    if (form == CHAT_TOOLS_BARE) {
        chat_put_text(o, BARE_1 BARE_2 BARE_3 BARE_4);
        while (next_line(tools, &at, &l)) {
            put_indented(o, &l);
            chat_put_text(o, "\n\n");
        }
        return;
    }
    chat_put_text(o, after ? TAGGED_HEAD : TAGGED_HEAD + 2);
    while (next_line(tools, &at, &l)) {
        chat_put_text(o, "\n");
        chat_put_piece(o, l.s, l.len, false);
    }
    put_tagged(o, TAGGED_TAIL);
}

/* The arguments are the client's JSON, and go out as plain text: tags in them are not read as
 * tokens. */
static void put_call(struct chat_out *o, bool bare, const struct line *name,
                     const struct line *arguments)
{
    if (!bare)
        put_tagged(o, OPEN_TAG "\n");
    chat_put_text(o, "{\"name\": \"");
    chat_put_piece(o, name->s, name->len, false);
    chat_put_text(o, bare ? "\", \"parameters\": " : "\", \"arguments\": ");
    chat_put_piece(o, arguments->s, arguments->len, false);
    if (bare)
        chat_put_text(o, "}");
    else
        put_tagged(o, "}\n" CLOSE_TAG);
}

void chat_put_calls(struct chat_out *o, enum chat_tools form, const struct chat_message *calls,
                    size_t *at)
{
    bool bare = form == CHAT_TOOLS_BARE, first = true;
    struct line l, name, arguments;

    while ((first || !bare) && next_line(calls, at, &l) && split_call(&l, &name, &arguments)) {
        if (!first)
            chat_put_text(o, "\n");
        put_call(o, bare, &name, &arguments);
        first = false;
    }
}
