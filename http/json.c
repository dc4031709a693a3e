/* http/json.c - json-c behind a narrow door. Reading refuses more than json-c does; making is by a
 * form, so that an object is written as it will look, and running out of memory anywhere in it
 * shows once, at the end. */

#include "http/json.h"

#include "base/json_check.h"
#include "base/json_escape.h"

#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* json-c's readers change nothing, and yet take no const. */
static struct json_object *plain(const struct json_object *v)
{
    return (struct json_object *)(uintptr_t)v;
}

/* --- read ------------------------------------------------------------------------------------- */

static int refuse(char why[160], int err, const char *text)
{
    (void)snprintf(why, 160, "%s", text);
    return err;
}

/* Before it is parsed: json-c takes more than JSON. Texts and names become C strings: one with a
 * NUL would lose its end. And a value of two bytes takes 64 when it was parsed. */
static int check(const char *text, size_t len, unsigned flags, char why[160])
{
    struct json_checked c;
    const char *wrong = json_check(text, len, flags & JSON_SAID ? JSON_CHECK_CONTROLS : 0, &c);

    if (wrong) {
        (void)snprintf(why, 160, "byte %zu: %s", c.at, wrong);
        return -EINVAL;
    }
    if (c.nul)
        return refuse(why, -EINVAL, "a text has a NUL (\\u0000) in it");
    if (c.n_values > JSON_VALUES_MAX)
        return refuse(why, -EINVAL, "it has more than a million values");
    return 0;
}

/* In one go. What was found to be JSON json-c can't read for want of memory, but for its depth. The
 * former it says by a null. Its strict mode would find nothing more, and later releases refuse in
 * it what is read here: integers of more than 64 bits, control characters. */
int json_read(const char *text, size_t len, unsigned flags, struct json_object **ret, char why[160])
{
    int r = check(text, len, flags, why);
    struct json_tokener *tok = r == 0 && len < INT_MAX ? json_tokener_new_ex(JSON_DEPTH) : NULL;
    enum json_tokener_error err;
    struct json_object *v;

    if (r < 0)
        return r;
    if (!tok)
        return refuse(why, -ENOMEM, "there is no memory for it");
    json_tokener_set_flags(tok, JSON_TOKENER_VALIDATE_UTF8);
    v = json_tokener_parse_ex(tok, text, (int)len);
    err = json_tokener_get_error(tok);
    /* The end of a number that stands alone is the end of the text. */
    if (err == json_tokener_continue) {
        v = json_tokener_parse_ex(tok, "", 1);
        err = json_tokener_get_error(tok);
    }
    json_tokener_free(tok);
    if (err == json_tokener_success && (v || text[strspn(text, " \t\r\n")] == 'n')) {
        *ret = v;
        return 0;
    }
    json_free(v);
    return err == json_tokener_error_depth ? refuse(why, -EINVAL, json_tokener_error_desc(err))
                                           : refuse(why, -ENOMEM, "there is no memory for it");
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

/* json-c aborts where there is no object, and leaves v to the caller where it has failed. */
static bool add_member(struct json_object *o, const char *name, struct json_object *v)
{
    if (o && json_object_object_add(o, name, v) == 0)
        return true;
    json_free(v);
    return false;
}

static bool add_element(struct json_object *a, struct json_object *v)
{
    if (a && json_object_array_add(a, v) == 0)
        return true;
    json_free(v);
    return false;
}

static struct json_object *make_members(struct form *f)
{
    struct json_object *o = keep(f, json_object_new_object());

    while (!take(f, '}')) {
        const char *name = va_arg(f->args, const char *);

        (void)take(f, 's');
        f->failed |= !add_member(o, name, make_value(f));
    }
    return o;
}

static struct json_object *make_elements(struct form *f)
{
    struct json_object *a = keep(f, json_object_new_array());

    while (!take(f, ']'))
        f->failed |= !add_element(a, make_value(f));
    return a;
}

/* NaN and infinity are no numbers there. */
static struct json_object *make_real(double x)
{
    return isfinite(x) ? json_object_new_double(x) : NULL;
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
        return keep(f, make_real(va_arg(f->args, double)));
    if (take(f, 'b'))
        return keep(f, json_object_new_boolean(va_arg(f->args, int)));
    if (take(f, 'o'))
        return keep(f, va_arg(f->args, struct json_object *));
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
    return v && add_member(o, name, v) ? 0 : -1;
}

struct json_object *json_with(struct json_object *o, const char *name, struct json_object *v)
{
    if (json_set(o, name, v) == 0)
        return o;
    json_free(o);
    return NULL;
}

int json_set_null(struct json_object *o, const char *name)
{
    return add_member(o, name, NULL) ? 0 : -1;
}

int json_add(struct json_object *array, struct json_object *v)
{
    return v && add_element(array, v) ? 0 : -1;
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
            if (!add_member(o, name, json_object_get(v)))
                r = -1;
        }
    }
    json_free(from);
    return r;
}

/* --- write ------------------------------------------------------------------------------------ */

/* Not by json-c, which leaves out what it has no memory for, and says nothing. */
static void write_text(struct text *t, const char *bytes, size_t len)
{
    char escape[JSON_ESCAPE_MAX];
    size_t from = 0;

    text_add(t, "\"", 1);
    for (size_t i = 0; i < len; i++) {
        if (!json_escape((unsigned char)bytes[i], escape))
            continue;
        text_add(t, bytes + from, i - from);
        text_add(t, escape, strlen(escape));
        from = i + 1;
    }
    text_add(t, bytes + from, len - from);
    text_add(t, "\"", 1);
}

/* A number that was read is written as it was. It is short, and all of it or nothing. */
static void write_number(struct text *t, const struct json_object *v)
{
    size_t len;
    const char *text = json_object_to_json_string_length(plain(v), JSON_C_TO_STRING_PLAIN, &len);

    if (text && len > 0)
        text_add(t, text, len);
    else
        t->lost = true;
}

/* How it is written: with what between elements and behind a name, and what references to places of
 * the same document have in between, or NULL. */
struct style {
    const char *comma, *colon, *refs;
};

static void write_value(struct text *t, const struct json_object *v, const struct style *s);

/* A reference to a place of the same document ("#/...") gets `refs` in between, which is where that
 * document stands now. Others are left as they are. */
static void write_member(struct text *t, const char *name, const struct json_object *v,
                         const struct style *s)
{
    struct text to = { 0 };

    write_text(t, name, strlen(name));
    text_add(t, s->colon, strlen(s->colon));
    if (!s->refs || strcmp(name, "$ref") != 0 || json_kind(v) != JSON_STRING ||
        json_text(v)[0] != '#') {
        write_value(t, v, s);
        return;
    }
    text_print(&to, "#%s%s", s->refs, json_text(v) + 1);
    t->lost |= to.lost;
    if (!to.lost)
        write_text(t, to.bytes, to.len);
    text_fini(&to);
}

static void write_members(struct text *t, const struct json_object *o, const struct style *s)
{
    bool first = true;

    text_add(t, "{", 1);
    json_object_object_foreach(plain(o), name, v)
    {
        if (!first)
            text_add(t, s->comma, strlen(s->comma));
        first = false;
        write_member(t, name, v, s);
    }
    text_add(t, "}", 1);
}

static void write_elements(struct text *t, const struct json_object *a, const struct style *s)
{
    text_add(t, "[", 1);
    for (size_t i = 0; i < json_len(a); i++) {
        if (i > 0)
            text_add(t, s->comma, strlen(s->comma));
        write_value(t, json_at(a, i), s);
    }
    text_add(t, "]", 1);
}

/* No deeper than what was read, and a little around it. */
static void write_value(struct text *t, const struct json_object *v, const struct style *s)
{
    switch (json_kind(v)) {
    case JSON_OBJECT:
        write_members(t, v, s);
        break;
    case JSON_ARRAY:
        write_elements(t, v, s);
        break;
    case JSON_STRING:
        write_text(t, json_text(v), json_len(v));
        break;
    case JSON_BOOL:
        text_print(t, "%s", json_true(v) ? "true" : "false");
        break;
    case JSON_NULL:
        text_add(t, "null", 4);
        break;
    default:
        write_number(t, v);
    }
}

void json_write(struct text *t, const struct json_object *v)
{
    write_value(t, v, &(struct style){ ",", ":", NULL });
}

void json_write_text(struct text *t, const char *text)
{
    write_text(t, text, strlen(text));
}

void json_write_spaced(struct text *t, const struct json_object *v, const char *refs)
{
    write_value(t, v, &(struct style){ ", ", ": ", refs });
}
