/* http/json.c - json-c behind a narrow door. Reading refuses more than json-c does; making is by a
 * form, so that an object is written as it will look, and running out of memory anywhere in it
 * shows once, at the end. */

#include "http/json.h"

#include <json-c/json.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* json-c's readers change nothing, and yet take no const. */
static struct json_object *plain(const struct json_object *v)
{
    return (struct json_object *)(uintptr_t)v;
}

/* --- read ------------------------------------------------------------------------------------- */

/* What is seen before it is parsed; NULL: nothing. Texts and names become C strings: one with a NUL
 * would lose its end. And a value of two bytes takes 64 when it was parsed.
 *
 * json-c's strict mode still takes names in apostrophes, whose NULs would not be seen here, and NaN
 * and Infinity as numbers. Outside of texts the standard has no apostrophe, N or I at all. */
static const char *trouble(const char *text, size_t len)
{
    bool inside = false;
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        char c = text[i];

        if (inside && c == '\\') {
            if (len - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0)
                return "a text has a NUL (\\u0000) in it";
            i++; /* what is escaped ends nothing */
        } else if (c == '"') {
            inside = !inside;
        } else if (!inside && c == '\'') {
            return "names and texts stand in double quotes";
        } else if (!inside && (c == 'N' || c == 'I')) {
            return "NaN and Infinity are no numbers in JSON";
        } else if (!inside && (c == ',' || c == '[' || c == '{') && n++ == JSON_VALUES_MAX) {
            return "it has more than a million values";
        }
    }
    return NULL;
}

static int refuse(char why[160], const char *text)
{
    (void)snprintf(why, 160, "%s", text);
    return -1;
}

/* In one go: `continue` from the parser means that the text is over and the value is not. */
int json_read(const char *text, size_t len, struct json_object **ret, char why[160])
{
    const char *what = trouble(text, len);
    struct json_tokener *tok = !what && len < INT_MAX ? json_tokener_new_ex(JSON_DEPTH) : NULL;
    enum json_tokener_error err;
    struct json_object *v;
    size_t at;

    if (what)
        return refuse(why, what);
    if (!tok)
        return refuse(why, "there is no memory for it");
    json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    v = json_tokener_parse_ex(tok, text, (int)len);
    err = json_tokener_get_error(tok);
    at = json_tokener_get_parse_end(tok);
    json_tokener_free(tok);
    if (err != json_tokener_success) {
        json_free(v);
        (void)snprintf(why, 160, "byte %zu: %s", at,
                       err == json_tokener_continue ? "it ends too early"
                                                    : json_tokener_error_desc(err));
        return -1;
    }
    *ret = v;
    return 0;
}

void json_free(struct json_object *v)
{
    (void)json_object_put(v);
}

/* NULL, which is json-c's null, has a kind, too: readers ask for it before anything else. */
enum json_kind json_kind(const struct json_object *v)
{
    switch (json_object_get_type(v)) {
    case json_type_boolean:
        return JSON_BOOL;
    case json_type_double:
        return JSON_REAL;
    case json_type_int:
        return JSON_INTEGER;
    case json_type_object:
        return JSON_OBJECT;
    case json_type_array:
        return JSON_ARRAY;
    case json_type_string:
        return JSON_STRING;
    default:
        return JSON_NULL;
    }
}

const struct json_object *json_get(const struct json_object *o, const char *name)
{
    struct json_object *v;

    return json_object_object_get_ex(o, name, &v) ? v : NULL;
}

size_t json_len(const struct json_object *v)
{
    switch (json_kind(v)) {
    case JSON_ARRAY:
        return json_object_array_length(v);
    case JSON_OBJECT:
        return (size_t)json_object_object_length(v);
    case JSON_STRING:
        return (size_t)json_object_get_string_len(v);
    default:
        return 0;
    }
}

const struct json_object *json_at(const struct json_object *array, size_t i)
{
    return json_object_array_get_idx(array, i);
}

const char *json_text(const struct json_object *string)
{
    return json_object_get_string(plain(string));
}

bool json_true(const struct json_object *v)
{
    return json_object_get_boolean(v);
}

double json_real(const struct json_object *v)
{
    return json_object_get_double(v);
}

int64_t json_integer(const struct json_object *v)
{
    return json_object_get_int64(v);
}

/* --- make ------------------------------------------------------------------------------------- */

/* A form that is being read; failed: something could not be made. */
struct form {
    const char *at;
    va_list args;
    bool failed;
};

/* Notes that something is missing, and goes on: the arguments of the rest have to be taken all the
 * same, and what they own freed with the whole. */
static struct json_object *keep(struct form *f, struct json_object *v)
{
    f->failed |= !v;
    return v;
}

/* Spaces, commas and colons are there for the reader of the form. */
static bool take(struct form *f, char c)
{
    f->at += strspn(f->at, " ,:");
    if (*f->at != c)
        return false;
    f->at++;
    return true;
}

static struct json_object *make_text(struct form *f)
{
    const char *text = va_arg(f->args, const char *);

    if (take(f, '%')) {
        size_t len = va_arg(f->args, size_t);

        return keep(f, len < INT_MAX ? json_object_new_string_len(text, (int)len) : NULL);
    }
    if (take(f, '?') && !text)
        return NULL;
    return keep(f, json_object_new_string(text));
}

static struct json_object *make_value(struct form *f);

static struct json_object *make_members(struct form *f)
{
    struct json_object *o = keep(f, json_object_new_object());

    while (!take(f, '}')) {
        const char *name = va_arg(f->args, const char *);

        (void)take(f, 's');
        if (json_object_object_add(o, name, make_value(f)) < 0)
            f->failed = true;
    }
    return o;
}

static struct json_object *make_elements(struct form *f)
{
    struct json_object *a = keep(f, json_object_new_array());

    while (!take(f, ']'))
        if (json_object_array_add(a, make_value(f)) < 0)
            f->failed = true;
    return a;
}

/* One value of the form and its argument. 'n' and whatever is unknown is null. */
static struct json_object *make_value(struct form *f)
{
    if (take(f, '{'))
        return make_members(f);
    if (take(f, '['))
        return make_elements(f);
    if (take(f, 's'))
        return make_text(f);
    if (take(f, 'I'))
        return keep(f, json_object_new_int64(va_arg(f->args, int64_t)));
    if (take(f, 'i'))
        return keep(f, json_object_new_int64(va_arg(f->args, int)));
    if (take(f, 'f'))
        return keep(f, json_object_new_double(va_arg(f->args, double)));
    if (take(f, 'b'))
        return keep(f, json_object_new_boolean(va_arg(f->args, int)));
    if (take(f, 'o')) {
        struct json_object *v = va_arg(f->args, struct json_object *);

        return take(f, '?') ? v : keep(f, v);
    }
    (void)take(f, 'n');
    return NULL;
}

struct json_object *json_make(const char *form, ...)
{
    struct form f = { .at = form };
    struct json_object *v;

    va_start(f.args, form);
    v = make_value(&f);
    va_end(f.args);
    if (!f.failed)
        return v;
    json_free(v);
    return NULL;
}

/* o may be NULL, and v: whoever made them need not look. */
int json_set(struct json_object *o, const char *name, struct json_object *v)
{
    if (o && v && json_object_object_add(o, name, v) == 0)
        return 0;
    json_free(v);
    return -1;
}

int json_set_null(struct json_object *o, const char *name)
{
    return o && json_object_object_add(o, name, NULL) == 0 ? 0 : -1;
}

int json_add(struct json_object *array, struct json_object *v)
{
    if (array && v && json_object_array_add(array, v) == 0)
        return 0;
    json_free(v);
    return -1;
}

/* Elements get one more owner each before `from` goes. */
int json_join(struct json_object *array, struct json_object *from)
{
    int r = array && from ? 0 : -1;

    for (size_t i = 0; r == 0 && i < json_len(from); i++)
        r = json_add(array, json_object_get(json_object_array_get_idx(from, i)));
    json_free(from);
    return r;
}

struct json_object *json_share(const struct json_object *v)
{
    return json_object_get(plain(v));
}

int json_merge(struct json_object *o, struct json_object *from)
{
    int r = o && from ? 0 : -1;

    if (r == 0) {
        json_object_object_foreach(from, name, v)
        {
            if (json_object_object_add(o, name, json_object_get(v)) < 0)
                r = -1;
        }
    }
    json_free(from);
    return r;
}

/* A '/' stays a '/': escaped it is the same JSON, and not what anybody would write. */
void json_write(struct text *t, const struct json_object *v)
{
    size_t len;
    const char *text = json_object_to_json_string_length(
        plain(v), JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);

    if (text)
        text_add(t, text, len);
    else
        t->lost = true;
}

void json_write_text(struct text *t, const char *text)
{
    struct json_object *v = json_object_new_string(text);

    t->lost |= !v;
    json_write(t, v);
    json_free(v);
}

/* A reference to a place of the same document ("#/...") gets `refs` in between, which is where that
 * document stands now. Others are left as they are. */
static void write_member(struct text *t, const char *name, const struct json_object *v,
                         const char *refs)
{
    json_write_text(t, name);
    text_add(t, ": ", 2);
    if (refs && strcmp(name, "$ref") == 0 && json_kind(v) == JSON_STRING &&
        json_text(v)[0] == '#') {
        struct text to = { 0 };

        text_print(&to, "#%s%s", refs, json_text(v) + 1);
        if (to.bytes)
            json_write_text(t, to.bytes);
        t->lost |= to.lost;
        text_fini(&to);
    } else {
        json_write_spaced(t, v, refs);
    }
}

/* No deeper than what was read. */
void json_write_spaced(struct text *t, const struct json_object *v, const char *refs)
{
    bool first = true;

    if (json_kind(v) == JSON_OBJECT) {
        text_add(t, "{", 1);
        json_object_object_foreach(plain(v), name, member)
        {
            if (!first)
                text_add(t, ", ", 2);
            first = false;
            write_member(t, name, member, refs);
        }
        text_add(t, "}", 1);
    } else if (json_kind(v) == JSON_ARRAY) {
        text_add(t, "[", 1);
        for (size_t i = 0; i < json_len(v); i++) {
            if (i > 0)
                text_add(t, ", ", 2);
            json_write_spaced(t, json_at(v, i), refs);
        }
        text_add(t, "]", 1);
    } else {
        json_write(t, v);
    }
}
