/* A kind of value with the keywords that are about it. Where the standard has values in any order
 * or number, the grammar has one order and the bounds of jsontext.h. */
#include "engine/text/schema_inner.h"

#include "engine/text/pattern.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A whole number of at least 0 that a keyword says; without it `without`. As a double: 3.0 is a
 * whole number, too. */
static uint32_t count(struct schema *s, struct json_object *x, const char *key, uint32_t without,
                      const struct schema_place *at)
{
    struct json_object *v = schema_get(x, key);
    struct schema_place here = schema_at(at, key, 0);
    double n = v ? json_object_get_double(v) : 0;

    if (!json_object_object_get_ex(x, key, NULL))
        return without;
    if (!(schema_kind_of(v) & SCHEMA_NUMBER) || !(n >= 0) || n != floor(n)) {
        schema_fail(s, &here, -EINVAL, "it is no whole number of at least 0");
        return without;
    }
    if (n > EXPR_REPEAT_MAX) {
        schema_fail(s, &here, -E2BIG, "it is more than %u, the most that is supported",
                    EXPR_REPEAT_MAX);
        return without;
    }
    return (uint32_t)n;
}

/* --- strings ---------------------------------------------------------------------------------- */

static const struct {
    const char *name, *pattern;
} formats[] = {
/* Of February the first 28 days. */
#define YEAR_DAY                                                                                   \
    "[0-9]{3}[1-9]-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|"              \
    "(0[13578]|1[02])-31)"
#define CLOCK                                                                                      \
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]" \
    ")"
    { "date-time", "^" YEAR_DAY "T" CLOCK "$" },
    { "date", "^" YEAR_DAY "$" },
    { "time", "^" CLOCK "$" },
    { "uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" },
    { "ipv4", "^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}"
              "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])$" },
    { "email", "^[A-Za-z0-9_+-]{1,32}(\\.[A-Za-z0-9_+-]{1,32}){0,3}"
               "@([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\\.){1,4}[a-z]{2,10}$" },
};

static const char *pattern_of_format(const char *name)
{
    for (size_t i = 0; name && i < sizeof(formats) / sizeof(*formats); i++)
        if (strcmp(formats[i].name, name) == 0)
            return formats[i].pattern;
    return NULL;
}

/* By pattern or format, which would have to be joined with a length: not supported. Formats are
 * patterns of ours, so there is one way to a string's expression. */
static uint32_t string_by(struct schema *s, const char *key, struct json_object *x,
                          const struct schema_place *at)
{
    struct schema_place here = schema_at(at, key, 0);
    struct json_object *v = schema_get(x, key);
    const char *text = json_object_get_string(v), *pattern = text;
    char where[SCHEMA_WHERE_MAX];

    if (!json_object_is_type(v, json_type_string)) {
        schema_fail(s, &here, -EINVAL, "it is no string");
        return EXPR_EMPTY;
    }
    if (strcmp(key, "format") == 0) {
        pattern = pattern_of_format(text);
        if (!pattern)
            schema_fail(s, &here, -ENOTSUP, "the format \"%.60s\" is not supported", text);
    } else if (strlen(text) != (size_t)json_object_get_string_len(v)) {
        schema_fail(s, &here, -ENOTSUP, "a pattern with U+0000 is not supported");
    }
    if (s->build.err)
        return EXPR_EMPTY;
    return pattern_expr(&s->json, pattern, schema_where(&here, where));
}

/* A rule of its own: it may stand in a list that is written out many times. Written out it would
 * count its states each time; a call is one. */
static uint32_t as_rule(struct schema *s, uint32_t e, const struct schema_place *at)
{
    char where[SCHEMA_WHERE_MAX];
    uint32_t rule;

    if (e == EXPR_NEVER || s->build.err)
        return e;
    rule = expr_rule(&s->build, schema_where(at, where));
    expr_define(&s->build, rule, e);
    return expr_call(&s->build, rule);
}

/* Lengths that no string has are no error: the schema may be one of several, and EXPR_NEVER is left
 * out of those. */
uint32_t schema_string(struct schema *s, struct json_object *x, const struct schema_place *at)
{
    uint32_t min = count(s, x, "minLength", 0, at), max = count(s, x, "maxLength", EXPR_NO_MAX, at);
    bool pattern = schema_get(x, "pattern"), format = schema_get(x, "format"),
         length = min > 0 || max != EXPR_NO_MAX;
    uint32_t e;

    if (pattern + format + length > 1) {
        schema_fail(s, at, -ENOTSUP,
                    "only one of pattern, format, and minLength with maxLength is "
                    "supported for one string");
        return EXPR_EMPTY;
    }
    if (!pattern && !format && !length)
        return jsontext_string(&s->json);
    if (max < min)
        return EXPR_NEVER;
    e = pattern || format
            ? jsontext_quoted(&s->json, string_by(s, pattern ? "pattern" : "format", x, at))
            : jsontext_counted(&s->json, min, max);
    return as_rule(s, e, at);
}

/* --- numbers ---------------------------------------------------------------------------------- */

struct bound {
    long long at;
    bool without; /* it is no value itself */
};

/* A bound of whole numbers is rounded inwards; of others it must be whole. True: there is one.
 * False as well after an error, and for a bound that no number that is ever written passes. */
static bool read_bound(struct schema *s, struct json_object *x, const char *key, bool whole,
                       bool lower, const struct schema_place *at, struct bound *ret)
{
    struct schema_place here = schema_at(at, key, 0);
    struct json_object *v = schema_get(x, key);
    double d = v ? json_object_get_double(v) : 0, inwards = lower ? ceil(d) : floor(d);

    if (!json_object_object_get_ex(x, key, NULL))
        return false;
    if (!(schema_kind_of(v) & SCHEMA_NUMBER)) {
        schema_fail(s, &here, -EINVAL, "it is no number");
    } else if (fabs(d) > (double)JSONTEXT_INT_MAX) {
        if (lower ? d < 0 : d > 0) /* of more than is ever written */
            return false;
        schema_fail(s, &here, -ENOTSUP, "numbers of more than %d digits are not supported",
                    JSONTEXT_DIGITS);
    } else if (!whole && d != inwards) {
        schema_fail(s, &here, -ENOTSUP, "a bound of numbers that is not whole is not supported");
    }
    if (s->build.err) /* it may be too large for a long long, or no number */
        return false;
    ret->at = (long long)inwards;
    ret->without = strncmp(key, "exclusive", 9) == 0 && d == inwards;
    return true;
}

/* The tighter one of two. */
static void tighten(struct schema *s, struct json_object *x, const char *key, bool whole,
                    bool lower, const struct schema_place *at, struct bound *b)
{
    struct bound other;

    if (!read_bound(s, x, key, whole, lower, at, &other))
        return;
    if (lower ? other.at > b->at : other.at < b->at)
        *b = other;
    else if (other.at == b->at)
        b->without |= other.without;
}

/* An excluded whole number is the next one inwards for integers; for numbers it is for
 * jsontext_number to leave out. */
uint32_t schema_number(struct schema *s, struct json_object *x, bool whole,
                       const struct schema_place *at)
{
    struct bound lo = { -JSONTEXT_INT_MAX, false }, hi = { JSONTEXT_INT_MAX, false };

    tighten(s, x, "minimum", whole, true, at, &lo);
    tighten(s, x, "exclusiveMinimum", whole, true, at, &lo);
    tighten(s, x, "maximum", whole, false, at, &hi);
    tighten(s, x, "exclusiveMaximum", whole, false, at, &hi);
    if (s->build.err)
        return EXPR_EMPTY;
    if (whole)
        return jsontext_integer(&s->json, lo.at + lo.without, hi.at - hi.without);
    return jsontext_number(&s->json, lo.at, lo.without, hi.at, hi.without);
}

/* --- arrays ----------------------------------------------------------------------------------- */

struct array {
    uint32_t min, max; /* of those behind the first ones */
    uint32_t item;     /* each of them */
    size_t n_first;
    struct json_object *first;
};

/* Without `items` none come behind the first ones, unless minItems wants more than there are: then
 * those may be anything. */
static void read_items(struct schema *s, struct json_object *x, const struct schema_place *at,
                       struct array *a)
{
    struct schema_place items = schema_at(at, "items", 0), unique = schema_at(at, "uniqueItems", 0),
                        first = schema_at(at, "prefixItems", 0);
    struct json_object *item = schema_get(x, "items"), *u = schema_get(x, "uniqueItems");

    a->first = schema_get(x, "prefixItems");
    if (u && (!json_object_is_type(u, json_type_boolean) || json_object_get_boolean(u)))
        schema_fail(s, &unique, -ENOTSUP, "unique items are not supported");
    if (a->first && !json_object_is_type(a->first, json_type_array))
        schema_fail(s, &first, -EINVAL, "it is no list of schemas");
    a->n_first = a->first && !s->build.err ? json_object_array_length(a->first) : 0;
    if (item)
        a->item = schema_expr(s, item, &items);
    else
        a->item = a->n_first > 0 && a->min <= a->n_first ? EXPR_NEVER : jsontext_value(&s->json);
    a->item = as_rule(s, a->item, &items);
}

/* Of the first ones so many as there may be. */
static uint32_t first_items(struct schema *s, const struct array *a, const struct schema_place *at)
{
    struct schema_place first = schema_at(at, "prefixItems", 0);
    struct expr_build *b = &s->build;
    size_t mark = expr_mark(b);

    for (size_t i = 0; i < a->n_first; i++) {
        struct schema_place here = schema_at(&first, NULL, i);

        if (i > 0)
            expr_put(b, expr_seq2(b, expr_text(b, ","), jsontext_ws(&s->json)));
        expr_put(b, schema_expr(s, json_object_array_get_idx(a->first, i), &here));
    }
    return expr_seq(b, mark);
}

/* All four bounds meet here: minItems and maxItems count all items, a.min and a.max those behind
 * the first ones. */
uint32_t schema_array(struct schema *s, struct json_object *x, const struct schema_place *at)
{
    struct expr_build *b = &s->build;
    struct array a = { count(s, x, "minItems", 0, at), count(s, x, "maxItems", EXPR_NO_MAX, at), 0,
                       0, NULL };
    uint32_t more, n, all, ws;

    if (!schema_get(x, "items") && !schema_get(x, "prefixItems") && !schema_get(x, "uniqueItems") &&
        a.min == 0 && a.max == EXPR_NO_MAX)
        return jsontext_array(&s->json);
    read_items(s, x, at, &a);
    if (s->build.err || a.max < a.min)
        return s->build.err ? EXPR_EMPTY : EXPR_NEVER;
    if (a.n_first > a.max)
        a.n_first = a.max;
    n = (uint32_t)a.n_first;
    a.min = a.min > n ? a.min - n : 0;
    a.max = a.item == EXPR_NEVER ? 0 : a.max == EXPR_NO_MAX ? EXPR_NO_MAX : a.max - n;
    if (a.max < a.min)
        return EXPR_NEVER;
    ws = jsontext_ws(&s->json);
    more = expr_seq2(b, expr_text(b, ","), expr_seq2(b, ws, a.item));
    if (n > 0) {
        all = expr_seq2(b, first_items(s, &a, at), expr_repeat(b, more, a.min, a.max));
        all = expr_seq2(b, all, ws);
    } else if (a.max == 0) {
        all = EXPR_EMPTY;
    } else {
        all = expr_repeat(b, more, a.min > 0 ? a.min - 1 : 0,
                          a.max == EXPR_NO_MAX ? EXPR_NO_MAX : a.max - 1);
        all = expr_seq2(b, a.item, expr_seq2(b, all, ws));
        if (a.min == 0)
            all = expr_maybe(b, all);
    }
    all = expr_seq2(b, expr_text(b, "["), expr_seq2(b, ws, expr_seq2(b, all, expr_text(b, "]"))));
    return as_rule(s, all, at);
}

/* --- objects ---------------------------------------------------------------------------------- */

struct member {
    const char *name;
    uint32_t value; /* EXPR_NEVER: it is left out */
    bool required;
};

struct object {
    struct member *members;
    size_t n;
    uint32_t extra; /* a member of another name; EXPR_NEVER: there are none */
    uint32_t ws;
};

static bool is_required(struct json_object *list, const char *name)
{
    for (size_t i = 0; list && i < json_object_array_length(list); i++)
        if (strcmp(json_object_get_string(json_object_array_get_idx(list, i)), name) == 0)
            return true;
    return false;
}

/* The list of names, looked at once: is_required takes them for strings. */
static struct json_object *required_of(struct schema *s, struct json_object *x,
                                       const struct schema_place *at)
{
    struct schema_place here = schema_at(at, "required", 0);
    struct json_object *list = schema_get(x, "required");
    bool names = !list || json_object_is_type(list, json_type_array);

    for (size_t i = 0; names && list && i < json_object_array_length(list); i++)
        names = json_object_is_type(json_object_array_get_idx(list, i), json_type_string);
    if (names)
        return list;
    schema_fail(s, &here, -EINVAL, "it is no list of names");
    return NULL;
}

static uint32_t key_and(struct schema *s, struct object *o, uint32_t key, uint32_t value)
{
    struct expr_build *b = &s->build;

    return expr_seq2(b, expr_seq2(b, key, expr_text(b, ":")), expr_seq2(b, o->ws, value));
}

static void add_member(struct object *o, const char *name, uint32_t value, bool required)
{
    o->members[o->n++] = (struct member){ name, value, required };
}

/* Members that are named: those of `properties`, then those that are required alone. */
static void read_members(struct schema *s, struct json_object *x, struct object *o, uint32_t extra,
                         const struct schema_place *at)
{
    struct schema_place properties = schema_at(at, "properties", 0);
    struct json_object *p = schema_get(x, "properties"), *required = required_of(s, x, at);
    size_t n;

    if (p && !json_object_is_type(p, json_type_object)) {
        schema_fail(s, &properties, -EINVAL, "it is no object");
        return;
    }
    n = (p ? (size_t)json_object_object_length(p) : 0) +
        (required ? json_object_array_length(required) : 0);
    if (n > 2 * SCHEMA_MEMBERS_MAX) {
        schema_fail(s, &properties, -E2BIG, "more than %u members of one object are not supported",
                    SCHEMA_MEMBERS_MAX);
        return;
    }
    o->members = calloc(n + 1, sizeof(*o->members));
    if (!o->members) {
        expr_fail(&s->build, -ENOMEM, "no memory for a schema");
        return;
    }
    if (p) {
        json_object_object_foreach(p, name, schema)
        {
            struct schema_place here = schema_at(&properties, name, 0);

            add_member(o, name, schema_expr(s, schema, &here), is_required(required, name));
        }
    }
    for (size_t i = 0; required && i < json_object_array_length(required); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(required, i));
        bool there = false;

        for (size_t k = 0; k < o->n; k++)
            there |= strcmp(o->members[k].name, name) == 0;
        if (!there)
            add_member(o, name, extra, true);
    }
}

static uint32_t key_text(struct schema *s, const char *name)
{
    struct json_object *x = json_object_new_string(name);
    uint32_t e = EXPR_EMPTY;

    if (x)
        e = schema_literal(s, x);
    else
        expr_fail(&s->build, -ENOMEM, "no memory for a schema");
    json_object_put(x);
    return e;
}

/* A key that is none of the named ones, and its value: those would be there twice, or in another
 * order. */
static uint32_t extra_member(struct schema *s, struct object *o, uint32_t value)
{
    const char **names = calloc(o->n + 1, sizeof(*names));
    uint32_t e = EXPR_NEVER;

    if (!names)
        expr_fail(&s->build, -ENOMEM, "no memory for a schema");
    for (size_t i = 0; names && i < o->n; i++)
        names[i] = o->members[i].name;
    if (names && value != EXPR_NEVER)
        e = key_and(s, o, jsontext_other_key(&s->json, names, o->n), value);
    free(names);
    return e;
}

/* The rest of an object from member i on, as a rule that the members before it jump to: once where
 * nothing was written yet, and once where a comma is needed first. From the last one to the first.
 *
 * So an object of n members is some 2n rules' states, where all subsets of the optional ones would
 * be 2^n. Jumps cost no stack, and the commas come out right. */
static void write_members(struct schema *s, struct object *o, const char *where,
                          uint32_t *ret_first)
{
    struct expr_build *b = &s->build;
    uint32_t close = expr_text(b, "}"), comma = expr_seq2(b, expr_text(b, ","), o->ws),
             first = expr_rule(b, where), rest = expr_rule(b, where);

    expr_define(b, rest,
                expr_or2(b, expr_seq2(b, o->ws, close),
                         expr_seq2(b, comma, expr_seq2(b, o->extra, expr_jump(b, rest)))));
    expr_define(b, first, expr_or2(b, close, expr_seq2(b, o->extra, expr_jump(b, rest))));
    for (size_t i = o->n; i-- > 0 && !b->err;) {
        const struct member *m = &o->members[i];
        uint32_t it, none_first = expr_jump(b, first), none_rest = expr_jump(b, rest), next = rest;

        if (m->value == EXPR_NEVER && !m->required)
            continue;
        it = expr_seq2(b, key_and(s, o, key_text(s, m->name), m->value), expr_jump(b, next));
        first = expr_rule(b, where);
        rest = expr_rule(b, where);
        expr_define(b, first, m->required ? it : expr_or2(b, it, none_first));
        it = expr_seq2(b, comma, it);
        expr_define(b, rest, m->required ? it : expr_or2(b, it, none_rest));
    }
    *ret_first = first;
}

/* The body of the object is one rule; its parts are jumped to and have no calls of their own. An
 * object that can't be (a required member without a value) defines that rule nevertheless: nfa.c
 * wants each to have a text. */
uint32_t schema_object(struct schema *s, struct json_object *x, const struct schema_place *at)
{
    struct schema_place additional = schema_at(at, "additionalProperties", 0);
    struct json_object *more = schema_get(x, "additionalProperties");
    struct expr_build *b = &s->build;
    struct object o = { .members = NULL };
    char where[SCHEMA_WHERE_MAX];
    uint32_t value, first = 0, rule;
    bool never = false;

    if (!more && !schema_get(x, "properties") && !schema_get(x, "required"))
        return jsontext_object(&s->json);
    rule = expr_rule(b, schema_where(at, where));
    o.ws = jsontext_ws(&s->json);
    value = more ? schema_expr(s, more, &additional) : jsontext_value(&s->json);
    read_members(s, x, &o, value, at);
    for (size_t i = 0; i < o.n; i++)
        never |= o.members[i].required && o.members[i].value == EXPR_NEVER;
    o.extra = b->err
                  ? EXPR_NEVER
                  : extra_member(s, &o, more || !schema_get(x, "properties") ? value : EXPR_NEVER);
    if (!never && !b->err)
        write_members(s, &o, where, &first);
    free(o.members);
    if (never || b->err) {
        expr_define(b, rule, EXPR_EMPTY); /* nobody calls it */
        return EXPR_NEVER;
    }
    expr_define(b, rule, expr_seq2(b, expr_text(b, "{"), expr_seq2(b, o.ws, expr_jump(b, first))));
    return expr_call(b, rule);
}
