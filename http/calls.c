/* http/calls.c - finds calls in an answer. What has come and can still become a call, or part of a
 * tag, is held back; everything else is told at once. Each step looks at all that is held: a call
 * at most, or in WHOLE, where there is one step at the end, the answer. */

#include "http/calls.h"

#include "http/tools.h"

#include <errno.h>
#include <string.h>

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Of bytes: those before the white space at their end. */
static size_t without_space(const char *bytes, size_t len)
{
    while (len > 0 && is_space(bytes[len - 1]))
        len--;
    return len;
}

static size_t space_len(const char *bytes, size_t len)
{
    size_t n = 0;

    while (n < len && is_space(bytes[n]))
        n++;
    return n;
}

/* The first bytes of what is held are dealt with. */
static void drop(struct calls *c, size_t len)
{
    c->at += len;
    c->held.len -= len;
    if (c->held.len > 0)
        memmove(c->held.bytes, c->held.bytes + len, c->held.len);
}

static void tell(struct calls *c, size_t len)
{
    if (len > 0 && !c->held.lost)
        c->on_text(c->arg, c->held.bytes, len);
    drop(c, len);
}

/* --- a call ----------------------------------------------------------------------------------- */

/* A name that nobody offered is no call: its client would not know what to do with it. */
static const struct ask_tool *find_tool(const struct calls *c, const struct json_object *o)
{
    const struct json_object *name = json_get(o, "name");

    for (size_t i = 0; json_kind(name) == JSON_STRING && i < c->n_tools; i++)
        if (strcmp(c->tools[i].name, json_text(name)) == 0)
            return &c->tools[i];
    return NULL;
}

/* As JSON; false: it is none. What there is no memory for may be a call, and is not told as text.
 */
static bool read_json(struct calls *c, const char *text, size_t len, struct json_object **ret)
{
    char why[160];
    int r = len > 0 ? json_read(text, len, JSON_SAID, ret, why) : -EINVAL;

    c->held.lost |= r == -ENOMEM;
    return r == 0;
}

/* Some models write them as a text that holds JSON. NULL: they are no object. */
static struct json_object *find_arguments(struct calls *c, const struct json_object *o)
{
    const struct json_object *v = json_get(o, "arguments");
    struct json_object *parsed;

    if (!v)
        v = json_get(o, "parameters");
    if (json_kind(v) == JSON_OBJECT)
        return json_share(v);
    if (json_kind(v) != JSON_STRING || !read_json(c, json_text(v), json_len(v), &parsed))
        return NULL;
    if (json_kind(parsed) == JSON_OBJECT)
        return parsed;
    json_free(parsed);
    return NULL;
}

/* The arguments, and whose they are; NULL: it is no call. */
static struct json_object *read_call(struct calls *c, const char *bytes, size_t len,
                                     const struct ask_tool **ret_tool)
{
    size_t space = space_len(bytes, len);
    struct json_object *o, *arguments = NULL;

    len = without_space(bytes + space, len - space);
    if (!read_json(c, bytes + space, len, &o))
        return NULL;
    *ret_tool = json_kind(o) == JSON_OBJECT ? find_tool(c, o) : NULL;
    if (*ret_tool)
        arguments = find_arguments(c, o);
    json_free(o);
    return arguments;
}

/* The name is told as the request wrote it, and the arguments as parsed: what the client gets is
 * JSON whatever the model's looked like. */
static bool take_call(struct calls *c, const char *bytes, size_t len)
{
    const struct ask_tool *tool;
    struct json_object *arguments = read_call(c, bytes, len, &tool);

    if (!arguments)
        return false;
    c->n++;
    c->on_call(c->arg, tool->name, arguments);
    return true;
}

/* --- a whole answer --------------------------------------------------------------------------- */

/* Of the object at the beginning; 0: there is none that ends. */
static size_t object_len(const char *b, size_t len)
{
    size_t depth = 0;
    bool inside = false;

    if (len == 0 || b[0] != '{')
        return 0;
    for (size_t i = 0; i < len; i++) {
        if (inside && b[i] == '\\')
            i++;
        else if (b[i] == '"')
            inside = !inside;
        else if (!inside && b[i] == '{')
            depth++;
        else if (!inside && b[i] == '}' && --depth == 0)
            return i + 1;
    }
    return 0;
}

/* How long the line is that opens a block of JSON, as models write it in Markdown. */
static size_t fence_len(const char *b, size_t len)
{
    static const char fence[] = "```json";
    size_t n = 0;

    while (n < len && n < sizeof(fence) - 1 && b[n] == fence[n])
        n++;
    return n < 3 ? 0 : n < sizeof(fence) - 1 ? 3 : n;
}

/* Whether an answer that begins so may be nothing but calls: 1, 0, or -1: that is not known yet. */
static int begins_whole(const char *b, size_t len)
{
    size_t at = space_len(b, len), fence = fence_len(b + at, len - at);

    if (fence > 0)
        at += fence + space_len(b + at + fence, len - at - fence);
    if (at < len && b[at] == '{')
        return 1;
    return at == len || (len - at < 3 && memcmp(b + at, "```", len - at) == 0) ||
                   (fence == 3 && b[at - 1] == '`' && len - at < 4 &&
                    memcmp(b + at, "json", len - at) == 0)
               ? -1
               : 0;
}

static bool is_call(struct calls *c, const char *bytes, size_t len)
{
    const struct ask_tool *tool;
    struct json_object *arguments = read_call(c, bytes, len, &tool);
    bool yes = arguments != NULL;

    json_free(arguments);
    return yes;
}

/* One call behind the other, and nothing else: told apart at first, then taken. */
static bool take_objects(struct calls *c, const char *b, size_t len, bool take)
{
    size_t n, any = 0;

    for (size_t at = space_len(b, len); at < len; at += n, any += n) {
        n = object_len(b + at, len - at);
        if (!(take ? take_call : is_call)(c, b + at, n))
            return false;
        n += space_len(b + at + n, len - at - n);
        /* Some models put one of these between two calls. */
        if (at + n < len && (b[at + n] == ';' || b[at + n] == ','))
            n += 1 + space_len(b + at + n + 1, len - at - n - 1);
    }
    return any > 0;
}

/* A fence that was opened may be left open: an answer that reached its limit, or a model that stops
 * behind the brace. */
static bool take_whole(struct calls *c)
{
    const char *b = c->held.bytes;
    size_t at = space_len(b, c->held.len), len = without_space(b, c->held.len), fence;

    if (c->held.len == 0)
        return false;
    fence = fence_len(b + at, c->held.len - at);
    at += fence;
    if (fence > 0 && len >= at + 3 && memcmp(b + len - 3, "```", 3) == 0)
        len -= 3;
    return len > at && take_objects(c, b + at, len - at, false) &&
           take_objects(c, b + at, len - at, true);
}

/* --- text ------------------------------------------------------------------------------------- */

/* How many of the last bytes may be the beginning of a tag. */
static size_t tag_begun(const char *bytes, size_t len)
{
    size_t n = strlen(TOOLS_OPEN) - 1;

    n = n < len ? n : len;
    while (n > 0 && memcmp(bytes + len - n, TOOLS_OPEN, n) != 0)
        n--;
    return n;
}

/* What stands before a tag is told but for the white space between, which belongs to the call if it
 * is one. */
static bool step_text(struct calls *c)
{
    const char *b = c->held.bytes, *tag = memmem(b, c->held.len, TOOLS_OPEN, strlen(TOOLS_OPEN));
    size_t len = tag ? (size_t)(tag - b) : c->held.len - tag_begun(b, c->held.len);

    tell(c, without_space(b, len));
    if (tag)
        c->state = CALLS_TAG;
    return tag != NULL;
}

/* The tag that ends the call, which may stand in a string of its arguments, too. */
static const char *find_close(const char *b, size_t len)
{
    bool inside = false;

    for (size_t i = 0; i < len; i++) {
        if (inside && b[i] == '\\')
            i++;
        else if (b[i] == '"')
            inside = !inside;
        else if (!inside && len - i >= strlen(TOOLS_CLOSE) &&
                 memcmp(b + i, TOOLS_CLOSE, strlen(TOOLS_CLOSE)) == 0)
            return b + i;
    }
    return NULL;
}

/* With a tag at the beginning of what is held, behind white space. */
static bool step_tag(struct calls *c)
{
    const char *b = c->held.bytes;
    size_t from = space_len(b, c->held.len) + strlen(TOOLS_OPEN), end;
    const char *close = find_close(b + from, c->held.len - from);

    if (!close)
        return false;
    end = (size_t)(close - b) + strlen(TOOLS_CLOSE);
    if (take_call(c, b + from, (size_t)(close - b) - from))
        drop(c, end);
    else
        tell(c, end);
    c->state = CALLS_TEXT;
    return true;
}

/* White space and the beginning of a fence say nothing yet, and wait. */
static bool step_start(struct calls *c)
{
    int whole = begins_whole(c->held.bytes, c->held.len);

    if (whole >= 0)
        c->state = whole ? CALLS_WHOLE : CALLS_TEXT;
    return whole >= 0;
}

/* Whether bytes begin with the text: 1, 0, or -1: that is not known yet. */
static int begins_with(const char *b, size_t len, const char *text)
{
    size_t n = strlen(text);

    if (memcmp(b, text, len < n ? len : n) != 0)
        return 0;
    return len >= n ? 1 : -1;
}

/* With how a call of this tool begins, to the byte: the grammar has no other spelling. */
static int begins_call(struct calls *c, const struct ask_tool *tool)
{
    struct text head = { 0 };
    int r;

    text_print(&head, "{\"name\": ");
    json_write_text(&head, tool->name);
    text_print(&head, ", \"%s\": ", tools_arguments(c->form));
    c->held.lost |= head.lost;
    r = head.lost ? -1 : begins_with(c->held.bytes, c->held.len, head.bytes);
    text_fini(&head);
    return r;
}

static bool step_held(struct calls *c)
{
    int r = c->form == GIST_TOOLS_BARE ? 0 : begins_with(c->held.bytes, c->held.len, TOOLS_OPEN);

    for (size_t i = 0; c->form == GIST_TOOLS_BARE && i < c->n_tools && r <= 0; i++) {
        int one = begins_call(c, &c->tools[i]);

        r = one ? one : r;
    }
    if (r >= 0)
        c->state = !r ? CALLS_PLAIN : c->form == GIST_TOOLS_BARE ? CALLS_WHOLE : CALLS_TAG;
    return r >= 0;
}

static bool step_plain(struct calls *c)
{
    tell(c, c->held.len);
    return false;
}

/* True: something has changed, and another step may be due. WHOLE waits for the end. */
static bool step(struct calls *c)
{
    switch (c->state) {
    case CALLS_START:
        return step_start(c);
    case CALLS_TEXT:
        return c->held.len > 0 && step_text(c);
    case CALLS_TAG:
        return step_tag(c);
    case CALLS_HELD:
        return c->held.len > 0 && step_held(c);
    case CALLS_PLAIN:
        return step_plain(c);
    default:
        return false;
    }
}

void calls_begin(struct calls *c, bool whole)
{
    c->state = whole ? CALLS_WHOLE : CALLS_START;
    c->held.len = 0;
    c->at = c->n = 0;
}

void calls_begin_held(struct calls *c, enum gist_tools form)
{
    calls_begin(c, false);
    c->state = CALLS_HELD;
    c->form = form;
}

void calls_add(struct calls *c, const char *text, size_t len)
{
    text_add(&c->held, text, len);
    while (!c->held.lost && step(c))
        ;
}

/* A tag that is not closed: a call all the same when it is complete. Else the tag was text, and
 * what stands behind it may have another. */
static void end_tag(struct calls *c)
{
    size_t from = space_len(c->held.bytes, c->held.len) + strlen(TOOLS_OPEN);

    if (take_call(c, c->held.bytes + from, c->held.len - from))
        drop(c, c->held.len);
    else
        tell(c, from);
    c->state = CALLS_TEXT;
}

/* WHOLE is judged now. What was no call after all is text, in which a tag may stand. */
void calls_end(struct calls *c)
{
    if (c->state == CALLS_WHOLE && !c->held.lost && take_whole(c))
        drop(c, c->held.len);
    /* Nothing comes that it could still begin. */
    if (c->state == CALLS_WHOLE || c->state == CALLS_START)
        c->state = CALLS_TEXT;
    if (c->state == CALLS_HELD)
        c->state = CALLS_PLAIN;
    while (c->held.len > 0 && !c->held.lost) {
        while (step(c))
            ;
        if (c->state != CALLS_TAG)
            break;
        end_tag(c);
    }
    /* White space behind a call is nobody's text. */
    if (!c->held.lost && !(c->n > 0 && space_len(c->held.bytes, c->held.len) == c->held.len))
        tell(c, c->held.len);
    c->held.len = 0;
}

void calls_fini(struct calls *c)
{
    text_fini(&c->held);
}
