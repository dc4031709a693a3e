/* Several schemas of one value become one: their keywords together. That is the same where no
 * keyword is said twice, and none looks at what others of its schema say; else it is refused. A
 * join makes a new object, so that the client's schema stays as it is for others who refer to it.
 * It holds references to the values of both.
 *
 * oneOf means exactly one. A grammar can't say "and not the other", so it is anyOf where it is
 * certain that no value satisfies two (apart); where that is not certain it is refused. */
#include "engine/text/schema_inner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* False: it takes too long, or more memory than it should: what is joined is a copy, and a few
 * lines can join one long list with itself a thousand times. */
static bool works(struct schema *s, size_t n)
{
    s->work += n;
    if (s->work > SCHEMA_WORK_MAX)
        expr_fail(&s->build, -E2BIG,
                  "the schema takes too long to compile: its oneOfs are very large, or what it "
                  "joins is");
    return !s->build.err;
}

/* As json_object_equal, whose time has no limit. False behind an error, too. */
static bool equal(struct schema *s, struct json_object *a, struct json_object *b)
{
    size_t text =
        json_object_is_type(a, json_type_string) ? (size_t)json_object_get_string_len(a) : 0;

    if (a == b)
        return true;
    if (!works(s, 1 + text / 64) || json_object_get_type(a) != json_object_get_type(b))
        return false;
    if (json_object_is_type(a, json_type_array)) {
        size_t n = json_object_array_length(a);

        if (n != json_object_array_length(b))
            return false;
        for (size_t i = 0; i < n; i++)
            if (!equal(s, json_object_array_get_idx(a, i), json_object_array_get_idx(b, i)))
                return false;
        return true;
    }
    if (json_object_is_type(a, json_type_object)) {
        if (json_object_object_length(a) != json_object_object_length(b))
            return false;
        json_object_object_foreach(a, k, v)
        {
            struct json_object *w;

            if (!json_object_object_get_ex(b, k, &w) || !equal(s, v, w))
                return false;
        }
        return true;
    }
    return json_object_equal(a, b);
}

/* Takes x, also on failure, and keeps it in s->joined until all is compiled. */
static struct json_object *made(struct schema *s, struct json_object *x)
{
    struct json_object **at = NULL;

    if (s->joined.n == SCHEMA_JOIN_MAX)
        expr_fail(&s->build, -E2BIG, "the schema joins more than %u others", SCHEMA_JOIN_MAX);
    if (!x)
        expr_fail(&s->build, -ENOMEM, "no memory for a schema");
    if (!s->build.err)
        at = expr_grow(&s->build, &s->joined, 1, sizeof(*at));
    if (!at) {
        json_object_put(x);
        return NULL;
    }
    return *at = x;
}

/* What part i of a list of schemas is, behind its references; NULL: it failed. The references are
 * followed by hand, since what is joined needs the schema itself and not a call of its rule. */
static struct json_object *part(struct schema *s, struct json_object *x,
                                const struct schema_place *at)
{
    for (unsigned i = 0; x && !s->build.err && json_object_is_type(x, json_type_object); i++) {
        struct json_object *ref = schema_get(x, "$ref");
        struct schema_place here = schema_at(at, "$ref", 0);

        if (!ref)
            return x;
        if (!schema_alone(s, x, at, "$ref", NULL))
            return NULL;
        if (i == SCHEMA_DEPTH_MAX)
            schema_fail(s, &here, -EINVAL, "the references go round in a circle");
        x = schema_target(s, ref, &here);
    }
    if (!s->build.err)
        schema_fail(s, at, -ENOTSUP, "only objects can be joined with other schemas");
    return NULL;
}

/* --- joining ---------------------------------------------------------------------------------- */

/* json-c's objects take a reference, and so does this; nothing of the client's is changed but its
 * count. */
static bool add(struct schema *s, struct json_object *to, const char *key, struct json_object *v)
{
    if (json_object_object_add(to, key, json_object_get(v)) == 0)
        return true;
    json_object_put(v);
    expr_fail(&s->build, -ENOMEM, "no memory for a schema");
    return false;
}

/* Both lists of names, in a new one: the old one is the client's. */
static struct json_object *both(struct schema *s, struct json_object *a, struct json_object *b)
{
    struct json_object *all = made(s, json_object_new_array()), *from[] = { a, b };

    for (int k = 0; k < 2 && all; k++)
        for (size_t i = 0; i < json_object_array_length(from[k]) && !s->build.err; i++)
            if (works(s, 1) && json_object_array_add(
                                   all, json_object_get(json_object_array_get_idx(from[k], i))) < 0)
                expr_fail(&s->build, -ENOMEM, "no memory for a schema");
    return all;
}

/* Equal schemas of one member are one. Different ones would have to be joined in turn, which is not
 * done. */
static struct json_object *both_members(struct schema *s, struct json_object *a,
                                        struct json_object *b, const struct schema_place *at)
{
    struct json_object *all = made(s, json_object_new_object()), *from[] = { a, b };

    for (int k = 0; k < 2 && all; k++) {
        json_object_object_foreach(from[k], name, v)
        {
            struct json_object *had = schema_get(all, name);

            if (!works(s, 1))
                break;
            if (had && !equal(s, had, v))
                schema_fail(s, at, -ENOTSUP,
                            "two schemas for the member \"%.60s\" are not supported", name);
            else if (!had && !add(s, all, name, v))
                break;
        }
    }
    return all;
}

/* Types that both allow. */
static struct json_object *common_types(struct schema *s, struct json_object *a,
                                        struct json_object *b, const struct schema_place *at)
{
    unsigned types = schema_types(s, a, at) & schema_types(s, b, at);
    struct json_object *all = made(s, json_object_new_array());

    if (!types)
        schema_fail(s, at, -EINVAL, "no value has both types");
    for (unsigned i = 0; i < SCHEMA_TYPES && all && !s->build.err; i++)
        if ((types >> i & 1) &&
            json_object_array_add(all, json_object_new_string(schema_type_names[i])) < 0)
            expr_fail(&s->build, -ENOMEM, "no memory for a schema");
    return all;
}

/* What a keyword says depends on another one of the same schema. Joined, additionalProperties would
 * see the other schema's members as named, and allow or forbid others than it did alone. */
static bool mixes(struct json_object *a, struct json_object *b)
{
    static const char *const pairs[][2] = { { "additionalProperties", "properties" },
                                            { "additionalProperties", "required" },
                                            { "items", "prefixItems" } };

    for (size_t i = 0; i < 3; i++) {
        struct json_object *x = schema_get(a, pairs[i][0]);

        if (x && schema_get(b, pairs[i][1]) &&
            !(json_object_is_type(x, json_type_boolean) && json_object_get_boolean(x)))
            return true;
    }
    return false;
}

/* A keyword that both have is the same, or can be joined (type, required, properties), or is
 * refused. */
static void join_key(struct schema *s, struct json_object *to, struct json_object *from,
                     const char *key, const struct schema_place *at)
{
    struct json_object *a = schema_get(to, key), *b = schema_get(from, key);

    if (json_object_object_get_ex(to, key, NULL)) {
        if (equal(s, a, b))
            return;
        if (strcmp(key, "type") == 0)
            b = common_types(s, to, from, at);
        else if (strcmp(key, "required") == 0 && json_object_is_type(a, json_type_array) &&
                 json_object_is_type(b, json_type_array))
            b = both(s, a, b);
        else if (strcmp(key, "properties") == 0 && json_object_is_type(a, json_type_object) &&
                 json_object_is_type(b, json_type_object))
            b = both_members(s, a, b, at);
        else
            schema_fail(s, at, -ENOTSUP, "%s is said of the same value twice", key);
    }
    if (!s->build.err)
        (void)add(s, to, key, b);
}

/* Adds what `from` says to `to`, which is ours; but for keywords `but` and `or`. */
static void join(struct schema *s, struct json_object *to, struct json_object *from,
                 const char *but, const char * or, const struct schema_place *at)
{
    if (mixes(to, from) || mixes(from, to))
        schema_fail(s, at, -ENOTSUP,
                    "additionalProperties or items that look at what another schema "
                    "says are not supported");
    json_object_object_foreach(from, k, v)
    {
        (void)v;
        if (s->build.err)
            return;
        if (schema_asserts(k) && strcmp(k, but) != 0 && strcmp(k, or) != 0)
            join_key(s, to, from, k, at);
    }
}

/* --- no two at once --------------------------------------------------------------------------- */

/* It lists the values that it allows: `const` is a list of one. */
static bool is_listed(struct json_object *x)
{
    return json_object_object_get_ex(x, "const", NULL) ||
           json_object_is_type(schema_get(x, "enum"), json_type_array);
}

static size_t n_values(struct json_object *x)
{
    return json_object_object_get_ex(x, "const", NULL)
               ? 1
               : json_object_array_length(schema_get(x, "enum"));
}

static struct json_object *value(struct json_object *x, size_t i)
{
    return json_object_object_get_ex(x, "const", NULL)
               ? schema_get(x, "const")
               : json_object_array_get_idx(schema_get(x, "enum"), i);
}

/* The kinds of value that may satisfy it: what `type` says, and of listed values what they are. */
static unsigned types_of(struct schema *s, struct json_object *x, const struct schema_place *at)
{
    unsigned types = schema_types(s, x, at), of = 0;

    if (is_listed(x))
        for (size_t i = 0; i < n_values(x) && works(s, 1); i++)
            of |= schema_kind_of(value(x, i));
    return is_listed(x) ? types & of : types;
}

/* 1 and 1.0 are the same value. */
static bool same(struct schema *s, struct json_object *a, struct json_object *b)
{
    unsigned number = schema_kind_of(a) & schema_kind_of(b) & SCHEMA_NUMBER;

    return number ? json_object_get_double(a) == json_object_get_double(b) : equal(s, a, b);
}

static bool no_common_value(struct schema *s, struct json_object *a, struct json_object *b)
{
    for (size_t i = 0; i < n_values(a); i++)
        for (size_t k = 0; k < n_values(b); k++)
            if (!works(s, 1) || same(s, value(a, i), value(b, k)))
                return false;
    return true;
}

/* `required` names it. */
static bool demands(struct schema *s, struct json_object *x, const char *name)
{
    struct json_object *list = schema_get(x, "required");

    if (!json_object_is_type(list, json_type_array))
        return false;
    for (size_t i = 0; i < json_object_array_length(list) && works(s, 1); i++) {
        struct json_object *v = json_object_array_get_idx(list, i);

        if (json_object_is_type(v, json_type_string) &&
            strcmp(json_object_get_string(v), name) == 0)
            return true;
    }
    return false;
}

static bool apart(struct schema *s, struct json_object *a, struct json_object *b,
                  const struct schema_place *at);

/* A member that one of them must have, and that can't satisfy both. */
static bool member_apart(struct schema *s, struct json_object *a, struct json_object *b,
                         const struct schema_place *at)
{
    struct json_object *x = schema_get(a, "properties"), *y = schema_get(b, "properties");

    if (!json_object_is_type(x, json_type_object) || !json_object_is_type(y, json_type_object))
        return false;
    json_object_object_foreach(x, name, v)
    {
        struct json_object *w = schema_get(y, name);

        if (!works(s, 1))
            return false;
        if (json_object_is_type(v, json_type_object) && json_object_is_type(w, json_type_object) &&
            (demands(s, a, name) || demands(s, b, name)) && apart(s, v, w, at))
            return true;
    }
    return false;
}

/* Certain that no value satisfies both. True only where it can be shown: by kinds, by values, or by
 * a member that both name and one demands. */
static bool apart(struct schema *s, struct json_object *a, struct json_object *b,
                  const struct schema_place *at)
{
    unsigned types = types_of(s, a, at) & types_of(s, b, at);

    if (s->build.err)
        return false;
    if (types == 0 || (is_listed(a) && is_listed(b) && no_common_value(s, a, b)))
        return true;
    return (types & ~(unsigned)SCHEMA_OBJECT) == 0 && member_apart(s, a, b, at);
}

/* Each with each of those behind it; works() bounds that. */
static void check_one_of(struct schema *s, struct json_object *list, const struct schema_place *at)
{
    size_t n = json_object_array_length(list);

    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1; k < n && !s->build.err; k++) {
            struct schema_place one = schema_at(at, NULL, i), other = schema_at(at, NULL, k);
            struct json_object *a = part(s, json_object_array_get_idx(list, i), &one),
                               *b = a ? part(s, json_object_array_get_idx(list, k), &other) : NULL;

            if (b && !apart(s, a, b, &other))
                schema_fail(s, at, -ENOTSUP,
                            "values could satisfy both number %zu and number %zu, which oneOf "
                            "excludes: use anyOf, or different types or constants",
                            i, k);
        }
}

/* --- all of it -------------------------------------------------------------------------------- */

/* The schemas of a keyword; NULL: it has none, or it failed. */
static struct json_object *list_of(struct schema *s, struct json_object *x, const char *key,
                                   const struct schema_place *at)
{
    struct json_object *list = schema_get(x, key);
    struct schema_place here = schema_at(at, key, 0);

    if (list &&
        (!json_object_is_type(list, json_type_array) || json_object_array_length(list) == 0))
        schema_fail(s, &here, -EINVAL, "it is no list of schemas");
    return s->build.err ? NULL : list;
}

/* All of x and of its allOf but for that: a schema of its own. */
static struct json_object *with_all(struct schema *s, struct json_object *x,
                                    const struct schema_place *at)
{
    struct json_object *all = made(s, json_object_new_object()), *list = list_of(s, x, "allOf", at);
    struct schema_place here = schema_at(at, "allOf", 0);

    if (all)
        join(s, all, x, "allOf", "allOf", at);
    for (size_t i = 0; list && i < json_object_array_length(list) && !s->build.err; i++) {
        struct schema_place one = schema_at(&here, NULL, i);
        struct json_object *p = part(s, json_object_array_get_idx(list, i), &one);

        if (p)
            join(s, all, p, "", "", &one);
    }
    return s->build.err ? NULL : all;
}

/* What stands beside anyOf holds for each of its schemas, so it is joined to each; alone, they need
 * no join and may be anything that is a schema. */
static uint32_t any_of(struct schema *s, struct json_object *x, const char *key,
                       const struct schema_place *at)
{
    struct json_object *list = list_of(s, x, key, at), *base, *both_ways;
    struct schema_place here = schema_at(at, key, 0);
    size_t mark = expr_mark(&s->build);

    if (list && strcmp(key, "oneOf") == 0)
        check_one_of(s, list, &here);
    base = made(s, json_object_new_object());
    if (base)
        join(s, base, x, key, "allOf", at);
    for (size_t i = 0; list && !s->build.err && i < json_object_array_length(list); i++) {
        struct schema_place one = schema_at(&here, NULL, i);
        struct json_object *p = json_object_array_get_idx(list, i);

        if (json_object_object_length(base) > 0) {
            both_ways = made(s, json_object_new_object());
            p = both_ways ? part(s, p, &one) : NULL;
            if (p)
                join(s, both_ways, base, "", "", &one);
            if (p)
                join(s, both_ways, p, "", "", &one);
            p = both_ways;
        }
        expr_put(&s->build, schema_expr(s, p, &one));
    }
    return expr_any_of(&s->build, mark);
}

/* allOf first, until none is left: what it gives may have anyOf, which is a choice then. */
uint32_t schema_joined(struct schema *s, struct json_object *x, const struct schema_place *at)
{
    if (schema_get(x, "allOf")) {
        struct json_object *all = with_all(s, x, at);
        struct schema_place deeper = *at;

        deeper.depth++; /* it may lead to itself */
        return all ? schema_expr(s, all, &deeper) : EXPR_EMPTY;
    }
    if (schema_get(x, "anyOf") && schema_get(x, "oneOf")) {
        schema_fail(s, at, -ENOTSUP, "anyOf beside oneOf is not supported");
        return EXPR_EMPTY;
    }
    return any_of(s, x, schema_get(x, "anyOf") ? "anyOf" : "oneOf", at);
}
