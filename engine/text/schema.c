/* A schema becomes an expression in one walk, keyword by keyword. What is not known is refused by
 * name (known), and each form takes only the keywords that it can hold the text to (schema_alone):
 * what a schema says and the grammar does not enforce would be a promise that is not kept.
 *
 * The values of the schema are json-c's, and are borrowed from `whole`, or from `joined` where
 * schema_join.c made them: both stay until the grammar is compiled, for rules are found again by
 * the address of what they are of. */
#include "engine/text/schema.h"

#include "base/hex.h"
#include "base/json_check.h"
#include "engine/text/schema_inner.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- places ----------------------------------------------------------------------------------- */

/* Places live on the stack of whoever made them, and point to those above. */
struct schema_place schema_at(const struct schema_place *up, const char *key, size_t index)
{
    return (struct schema_place){ up, key, index, up->depth + 1 };
}

/* Appends as much as there is room for; returns the new length. As a JSON pointer: ~ and / in a key
 * are ~0 and ~1. A long place is cut at its end. */
static size_t put_place(const struct schema_place *at, char *ret, size_t n)
{
    if (!at->up)
        return n;
    n = put_place(at->up, ret, n);
    if (n + 24 > SCHEMA_WHERE_MAX)
        return n;
    if (!at->key)
        return n + (size_t)snprintf(ret + n, SCHEMA_WHERE_MAX - n, "/%zu", at->index);
    ret[n++] = '/';
    for (const char *c = at->key; *c && n + 4 < SCHEMA_WHERE_MAX; c++) {
        if (*c == '~' || *c == '/')
            ret[n++] = '~';
        ret[n++] = *c == '~' ? '0' : *c == '/' ? '1' : *c;
    }
    ret[n] = '\0';
    return n;
}

const char *schema_where(const struct schema_place *at, char ret[SCHEMA_WHERE_MAX])
{
    size_t n = (size_t)snprintf(ret, SCHEMA_WHERE_MAX, "the schema%s", at->up ? "'s " : "");

    (void)put_place(at, ret, n);
    return ret;
}

void schema_fail(struct schema *s, const struct schema_place *at, int err, const char *fmt, ...)
{
    char where[SCHEMA_WHERE_MAX], text[256];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    expr_fail(&s->build, err, "%s%s: %s", s->of ? s->of : "", schema_where(at, where), text);
}

/* --- keywords --------------------------------------------------------------------------------- */

static const struct {
    const char *key;
    unsigned about; /* kinds; 0: it describes; SCHEMA_ANY: of any */
} keywords[] = {
    { "type", SCHEMA_ANY },
    { "enum", SCHEMA_ANY },
    { "const", SCHEMA_ANY },
    { "$ref", SCHEMA_ANY },
    { "anyOf", SCHEMA_ANY },
    { "oneOf", SCHEMA_ANY },
    { "allOf", SCHEMA_ANY },
    { "properties", SCHEMA_OBJECT },
    { "required", SCHEMA_OBJECT },
    { "additionalProperties", SCHEMA_OBJECT },
    { "items", SCHEMA_ARRAY },
    { "prefixItems", SCHEMA_ARRAY },
    { "minItems", SCHEMA_ARRAY },
    { "maxItems", SCHEMA_ARRAY },
    { "uniqueItems", SCHEMA_ARRAY },
    { "minLength", SCHEMA_STRING },
    { "maxLength", SCHEMA_STRING },
    { "pattern", SCHEMA_STRING },
    { "format", SCHEMA_STRING },
    { "minimum", SCHEMA_INTEGER | SCHEMA_NUMBER },
    { "maximum", SCHEMA_INTEGER | SCHEMA_NUMBER },
    { "exclusiveMinimum", SCHEMA_INTEGER | SCHEMA_NUMBER },
    { "exclusiveMaximum", SCHEMA_INTEGER | SCHEMA_NUMBER },
    { "title", 0 },
    { "description", 0 },
    { "default", 0 },
    { "examples", 0 },
    { "$comment", 0 },
    { "$schema", 0 },
    { "$id", 0 },
    { "$anchor", 0 },
    { "$defs", 0 },
    { "definitions", 0 },
    { "deprecated", 0 },
    { "readOnly", 0 },
    { "writeOnly", 0 },
};

/* What a keyword is about; -1: we don't know it. */
static int about(const char *key)
{
    for (size_t i = 0; i < sizeof(keywords) / sizeof(*keywords); i++)
        if (strcmp(keywords[i].key, key) == 0)
            return (int)keywords[i].about;
    return -1;
}

bool schema_asserts(const char *key)
{
    return about(key) != 0;
}

struct json_object *schema_get(struct json_object *x, const char *key)
{
    struct json_object *v = NULL;

    (void)json_object_object_get_ex(x, key, &v);
    return v;
}

/* --- types ------------------------------------------------------------------------------------ */

const char *const schema_type_names[SCHEMA_TYPES] = { "null",   "boolean", "integer", "number",
                                                      "string", "array",   "object" };

static unsigned type_named(const char *name)
{
    for (unsigned i = 0; i < SCHEMA_TYPES; i++)
        if (strcmp(schema_type_names[i], name) == 0)
            return 1u << i;
    return 0;
}

static unsigned type_of(struct schema *s, struct json_object *x, const struct schema_place *at)
{
    unsigned type =
        json_object_is_type(x, json_type_string) ? type_named(json_object_get_string(x)) : 0;

    if (!type)
        schema_fail(s, at, -EINVAL, "%.60s is no type", json_object_to_json_string(x));
    return type;
}

/* An integer is a number, so who allows numbers allows integers. */
unsigned schema_types(struct schema *s, struct json_object *x, const struct schema_place *at)
{
    struct json_object *t = schema_get(x, "type");
    struct schema_place here = schema_at(at, "type", 0);
    unsigned types = 0;

    if (!t)
        return SCHEMA_ANY;
    if (!json_object_is_type(t, json_type_array)) {
        types = type_of(s, t, &here);
    } else {
        for (size_t i = 0; i < json_object_array_length(t); i++)
            types |= type_of(s, json_object_array_get_idx(t, i), &here);
        if (types == 0)
            schema_fail(s, &here, -EINVAL, "an empty list of types");
    }
    return types & SCHEMA_NUMBER ? types | SCHEMA_INTEGER : types;
}

/* 1.0 is a double to the parser, and so no integer here, though the standard has it one: less is
 * written, nothing wrong. */
unsigned schema_kind_of(struct json_object *value)
{
    switch (json_object_get_type(value)) {
    case json_type_null:
        return SCHEMA_NULL;
    case json_type_boolean:
        return SCHEMA_BOOLEAN;
    case json_type_int:
        return SCHEMA_INTEGER | SCHEMA_NUMBER;
    case json_type_double:
        return SCHEMA_NUMBER;
    case json_type_string:
        return SCHEMA_STRING;
    case json_type_array:
        return SCHEMA_ARRAY;
    default:
        return SCHEMA_OBJECT;
    }
}

/* --- references ------------------------------------------------------------------------------- */

/* The next part of a pointer, which is percent-encoded as a part of a URI is, to ret of the length
 * of `from`. Returns where it ends. %7E is the sign for an escape as much as ~ is: it is decoded
 * before. */
static const char *pointer_part(const char *from, char *ret)
{
    while (*from && *from != '/') {
        char c = *from++;

        if (c == '%' && hex_digit(from[0]) >= 0 && hex_digit(from[1]) >= 0) {
            c = (char)(hex_digit(from[0]) << 4 | hex_digit(from[1]));
            from += 2;
        }
        if (c == '~' && (*from == '0' || *from == '1'))
            c = *from++ == '0' ? '~' : '/';
        *ret++ = c;
    }
    *ret = '\0';
    return from;
}

/* The member or the item; NULL: there is none. */
static struct json_object *step(struct json_object *x, const char *key)
{
    char *end;
    unsigned long i;

    if (json_object_is_type(x, json_type_object))
        return schema_get(x, key);
    if (!json_object_is_type(x, json_type_array) || *key < '0' || *key > '9')
        return NULL;
    i = strtoul(key, &end, 10);
    return *end == '\0' && i < json_object_array_length(x) ? json_object_array_get_idx(x, i) : NULL;
}

struct json_object *schema_target(struct schema *s, struct json_object *ref,
                                  const struct schema_place *at)
{
    const char *text = json_object_get_string(ref), *from = text;
    struct json_object *x = s->whole;
    char *part;

    if (!json_object_is_type(ref, json_type_string) || *from != '#' ||
        (from[1] != '/' && from[1] != '\0')) {
        schema_fail(s, at, -ENOTSUP,
                    "only references to places in the same schema, \"#/...\", are "
                    "supported");
        return NULL;
    }
    part = malloc(strlen(text) + 1);
    if (!part) {
        expr_fail(&s->build, -ENOMEM, "no memory for a schema");
        return NULL;
    }
    for (from++; *from == '/' && x;) {
        from = pointer_part(from + 1, part);
        x = step(x, part);
    }
    free(part);
    if (!x)
        schema_fail(s, at, -EINVAL, "there is nothing at %.100s", text);
    return x;
}

/* Keywords that only describe may stand beside it. */
bool schema_alone(struct schema *s, struct json_object *x, const struct schema_place *at,
                  const char *key, const char *with)
{
    json_object_object_foreach(x, k, v)
    {
        (void)v;
        if (!schema_asserts(k) || strcmp(k, key) == 0 || (with && strcmp(k, with) == 0))
            continue;
        schema_fail(s, at, -ENOTSUP, "%s beside %s is not supported", k, key);
        return false;
    }
    return true;
}

/* The call of a rule that there is already. Within its body it is not known yet whether any value
 * satisfies it. */
static uint32_t call_again(struct schema *s, struct schema_ref *r)
{
    r->called = true;
    return r->dead ? EXPR_NEVER : expr_call(&s->build, r->rule);
}

/* A rule for each place that is referred to, so that one may refer to what it is part of. The rule
 * is known before its body is made: a reference within it finds it, and becomes a call of itself.
 * Where no value satisfies it the reference is EXPR_NEVER, as what it refers to would be in its
 * place: a member that may be missing is left out. Its rule has a text all the same, since nfa.c
 * wants each to have one; but not one that its body calls, whose schema is refused then.
 */
static uint32_t reference(struct schema *s, struct json_object *x, const struct schema_place *at)
{
    struct schema_place here = schema_at(at, "$ref", 0);
    struct json_object *ref = schema_get(x, "$ref"), *to = schema_target(s, ref, &here);
    struct schema_ref *refs = s->refs.mem, *made;
    char name[EXPR_NAME_MAX];
    uint32_t rule, body;
    size_t n = s->refs.n;

    if (!to)
        return EXPR_EMPTY;
    for (size_t i = 0; i < n; i++)
        if (refs[i].to == to)
            return call_again(s, &refs[i]);
    made = expr_grow(&s->build, &s->refs, 1, sizeof(*made));
    if (!made)
        return EXPR_EMPTY;
    (void)snprintf(name, sizeof(name), "the schema's %.70s", json_object_get_string(ref));
    rule = expr_rule(&s->build, name);
    *made = (struct schema_ref){ .to = to, .rule = rule };
    body = schema_expr(s, to, &here);
    made = (struct schema_ref *)s->refs.mem + n; /* others may have come behind it */
    made->dead = body == EXPR_NEVER && !made->called;
    expr_define(&s->build, rule, made->dead ? EXPR_EMPTY : body);
    return call_again(s, made);
}

/* --- values that are listed ------------------------------------------------------------------- */

/* As json-c writes it, without blanks. A number keeps the digits that it had in the schema. */
uint32_t schema_literal(struct schema *s, struct json_object *value)
{
    return expr_text(&s->build,
                     json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN |
                                                               JSON_C_TO_STRING_NOSLASHESCAPE));
}

/* A value that `type` does not allow is none of the list. */
static uint32_t listed(struct schema *s, struct json_object *x, const struct schema_place *at)
{
    unsigned types = schema_types(s, x, at);
    struct json_object *list = schema_get(x, "enum"), *value = schema_get(x, "const");
    struct schema_place here = schema_at(at, "enum", 0);
    size_t mark = expr_mark(&s->build);

    if (json_object_object_get_ex(x, "const", NULL))
        return schema_kind_of(value) & types ? schema_literal(s, value) : EXPR_NEVER;
    if (!json_object_is_type(list, json_type_array)) {
        schema_fail(s, &here, -EINVAL, "it is no list of values");
        return EXPR_EMPTY;
    }
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        value = json_object_array_get_idx(list, i);
        if (schema_kind_of(value) & types)
            expr_put(&s->build, schema_literal(s, value));
    }
    return expr_any_of(&s->build, mark);
}

/* --- a schema --------------------------------------------------------------------------------- */

static uint32_t of_kind(struct schema *s, struct json_object *x, unsigned kind,
                        const struct schema_place *at)
{
    switch (kind) {
    case SCHEMA_NULL:
        return expr_text(&s->build, "null");
    case SCHEMA_BOOLEAN:
        return expr_or2(&s->build, expr_text(&s->build, "true"), expr_text(&s->build, "false"));
    case SCHEMA_INTEGER:
    case SCHEMA_NUMBER:
        return schema_number(s, x, kind == SCHEMA_INTEGER, at);
    case SCHEMA_STRING:
        return schema_string(s, x, at);
    case SCHEMA_ARRAY:
        return schema_array(s, x, at);
    default:
        return schema_object(s, x, at);
    }
}

/* Without `type` a schema would allow everything that its keywords are not about. Here it means the
 * kinds that they are about; without any such keyword, every value. */
static uint32_t of_kinds(struct schema *s, struct json_object *x, const struct schema_place *at)
{
    unsigned types = schema_types(s, x, at), meant = 0;
    size_t mark = expr_mark(&s->build);

    json_object_object_foreach(x, k, v)
    {
        int kinds = about(k);

        (void)v;
        if (kinds > 0 && kinds != SCHEMA_ANY)
            meant |= (unsigned)kinds;
    }
    if (types == SCHEMA_ANY && meant == 0 && !schema_get(x, "type"))
        return jsontext_value(&s->json);
    if (!schema_get(x, "type"))
        types = meant;
    if (types & SCHEMA_NUMBER) /* integers are among them */
        types &= ~(unsigned)SCHEMA_INTEGER;
    for (unsigned kind = 1; kind < SCHEMA_ANY; kind <<= 1)
        if (types & kind)
            expr_put(&s->build, of_kind(s, x, kind, at));
    return expr_any_of(&s->build, mark);
}

/* json-c has no object for null, so a keyword whose value is null looks like one that is not there.
 */
static bool known(struct schema *s, struct json_object *x, const struct schema_place *at)
{
    json_object_object_foreach(x, k, v)
    {
        struct schema_place here = schema_at(at, k, 0);

        if (about(k) < 0)
            schema_fail(s, &here, -ENOTSUP, "this keyword is not supported");
        else if (!v && about(k) > 0 && strcmp(k, "const") != 0)
            schema_fail(s, &here, -EINVAL, "it is null");
        if (s->build.err)
            return false;
    }
    return true;
}

/* The order decides what stands beside what: a reference alone, then what is made of several
 * schemas, then lists of values, then kinds. Depth is counted for schemas that contain themselves
 * by allOf, which make no rule. */
uint32_t schema_expr(struct schema *s, struct json_object *x, const struct schema_place *at)
{
    if (s->build.err)
        return EXPR_EMPTY;
    if (at->depth > 3 * SCHEMA_DEPTH_MAX) {
        schema_fail(s, at, -E2BIG, "the schema nests too deep");
        return EXPR_EMPTY;
    }
    if (json_object_is_type(x, json_type_boolean))
        return json_object_get_boolean(x) ? jsontext_value(&s->json) : EXPR_NEVER;
    if (!json_object_is_type(x, json_type_object)) {
        schema_fail(s, at, -EINVAL, "a schema is an object, true or false");
        return EXPR_EMPTY;
    }
    if (!known(s, x, at))
        return EXPR_EMPTY;
    if (schema_get(x, "$ref"))
        return schema_alone(s, x, at, "$ref", NULL) ? reference(s, x, at) : EXPR_EMPTY;
    if (schema_get(x, "allOf") || schema_get(x, "anyOf") || schema_get(x, "oneOf"))
        return schema_joined(s, x, at);
    if (json_object_object_get_ex(x, "const", NULL))
        return schema_alone(s, x, at, "const", "type") ? listed(s, x, at) : EXPR_EMPTY;
    if (schema_get(x, "enum"))
        return schema_alone(s, x, at, "enum", "type") ? listed(s, x, at) : EXPR_EMPTY;
    return of_kinds(s, x, at);
}

/* --- a text ----------------------------------------------------------------------------------- */

/* A double keeps its text in json-c, so as a `const` it would be written as it stands
 * (schema_literal), into answers that are to be JSON: what is none is refused before it is parsed.
 * The parser would cut a key at U+0000, and numbers of more than 64 bits. */
static int check_text(const char *what, const char *text, size_t len, struct why *why)
{
    struct json_checked c;
    const char *wrong;

    if (len > GRAMMAR_TEXT_MAX)
        return why_set(why, -E2BIG, "%s has %zu bytes; %u are allowed", what, len,
                       GRAMMAR_TEXT_MAX);
    wrong = json_check(text, len, 0, &c);
    if (wrong)
        return why_set(why, -EINVAL, "%s is not JSON: byte %zu: %s", what, c.at, wrong);
    if (c.digits > 18)
        return why_set(why, -ENOTSUP,
                       "%s has a number of more than 18 digits, which is not supported", what);
    if (c.nul)
        return why_set(why, -ENOTSUP, "%s has a U+0000, which is not supported", what);
    return 0;
}

/* json-c's `continue` means that it could go on, as a number could: the NUL is its end. */
int schema_parse(const char *what, const char *text, size_t len, int depth,
                 struct json_object **ret, struct why *why)
{
    struct json_tokener *t;
    enum json_tokener_error e;
    int r = check_text(what, text, len, why);

    if (r < 0)
        return r;
    t = json_tokener_new_ex(depth);
    if (!t)
        return why_set(why, -ENOMEM, "no memory for a schema");
    json_tokener_set_flags(t, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    *ret = json_tokener_parse_ex(t, text, (int)len);
    e = json_tokener_get_error(t);
    if (e == json_tokener_continue) { /* perhaps a number, which only the end ends */
        *ret = json_tokener_parse_ex(t, "", 1);
        e = json_tokener_get_error(t);
    }
    if (e != json_tokener_success)
        r = why_set(why, -EINVAL, "%s is not JSON: byte %zu: %s", what,
                    json_tokener_get_parse_end(t),
                    e == json_tokener_continue ? "it ends too early" : json_tokener_error_desc(e));
    json_tokener_free(t);
    return r;
}

int schema_init(struct schema *s, struct why *why)
{
    *s = (struct schema){ .whole = NULL };
    if (expr_init(&s->build, why) == 0)
        jsontext_init(&s->json, &s->build);
    return s->build.err;
}

uint32_t schema_root(struct schema *s, struct json_object *whole, const char *of)
{
    const struct schema_place top = { NULL, NULL, 0, 0 };
    char name[EXPR_NAME_MAX];
    uint32_t root, body;

    s->whole = whole;
    s->of = of;
    (void)snprintf(name, sizeof(name), "%sthe schema", of ? of : "");
    root = expr_rule(&s->build, name);
    body = schema_expr(s, whole, &top);
    if (!s->build.err && body == EXPR_NEVER)
        schema_fail(s, &top, -EINVAL, "no value is valid");
    expr_define(&s->build, root, body);
    return root;
}

/* Joined values hold references to those of the schemas, so either may be let go first. */
void schema_fini(struct schema *s)
{
    for (size_t i = 0; i < s->joined.n; i++)
        json_object_put(((struct json_object **)s->joined.mem)[i]);
    free(s->joined.mem);
    free(s->refs.mem);
    expr_fini(&s->build);
}

int schema_compile(const char *text, size_t len, struct grammar **ret, struct why *why)
{
    struct json_object *whole = NULL;
    struct schema s;
    uint32_t root;
    int e = schema_parse("the schema", text, len, SCHEMA_DEPTH_MAX, &whole, why);

    if (e < 0)
        return e;
    if (schema_init(&s, why) == 0) {
        root = schema_root(&s, whole, NULL);
        if (!s.build.err)
            (void)grammar_compile(&s.build, root, ret);
    }
    schema_fini(&s);
    json_object_put(whole);
    return s.build.err;
}
