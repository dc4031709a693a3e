/* http/field.c - see field.h. Each reader leaves what it was given as a default where the field is
 * absent or null, so that APIs with other defaults use the same ones. */

#include "http/field.h"

#include <errno.h>
#include <string.h>

int field_parse(const char *body, size_t len, struct json_object **ret, struct problem *p)
{
    struct json_object *o;
    char why[160];
    int r;

    if (len == 0)
        return problem_set(p, PROBLEM_INVALID, NULL,
                           "the request has no body: a JSON object is expected");
    r = json_read(body, len, 0, &o, why);
    if (r == -ENOMEM)
        return problem_no_memory(p);
    if (r < 0)
        return problem_set(p, PROBLEM_INVALID, NULL, "the body cannot be read as JSON: %s", why);
    if (json_kind(o) != JSON_OBJECT) {
        (void)problem_set(p, PROBLEM_INVALID, NULL, "the body is %s: a JSON object is expected",
                          field_type(o));
        json_free(o);
        return -1;
    }
    *ret = o;
    return 0;
}

const char *field_type(const struct json_object *v)
{
    switch (json_kind(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_BOOL:
        return json_true(v) ? "true" : "false";
    default:
        return "null";
    }
}

static bool is_number(const struct json_object *v)
{
    return json_kind(v) == JSON_INTEGER || json_kind(v) == JSON_REAL;
}

/* Found and expected, in one form for all. */
static int wrong(const struct json_object *v, const char *name, const char *expected,
                 struct problem *p)
{
    return problem_set(p, PROBLEM_INVALID, name, "`%s` is %s: %s is expected", name, field_type(v),
                       expected);
}

int field_text(const struct json_object *o, const char *name, const char **ret, struct problem *p)
{
    const struct json_object *v = json_get(o, name);

    if (!v)
        return 0;
    if (json_kind(v) != JSON_STRING)
        return wrong(v, name, "a string", p);
    *ret = json_text(v);
    return 0;
}

int field_bool(const struct json_object *o, const char *name, bool *ret, struct problem *p)
{
    const struct json_object *v = json_get(o, name);

    if (!v)
        return 0;
    if (json_kind(v) != JSON_BOOL)
        return wrong(v, name, "true or false", p);
    *ret = json_true(v);
    return 0;
}

int field_real(const struct json_object *o, const char *name, double min, double max, float *ret,
               struct problem *p)
{
    const struct json_object *v = json_get(o, name);
    double x;

    if (!v)
        return 0;
    if (!is_number(v))
        return wrong(v, name, "a number", p);
    x = json_real(v);
    /* Not the other way round: what is not a number is in no range. */
    if (!(x >= min && x <= max))
        return problem_set(p, PROBLEM_INVALID, name, "`%s` is %g: it may be from %g to %g", name, x,
                           min, max);
    *ret = (float)x;
    return 0;
}

int field_count(const struct json_object *o, const char *name, uint32_t min, uint32_t max,
                uint32_t *ret, struct problem *p)
{
    const struct json_object *v = json_get(o, name);
    double x;

    if (!v)
        return 0;
    if (!is_number(v))
        return wrong(v, name, "a whole number", p);
    /* 1.0 is one to who writes JSON by JavaScript. */
    x = json_real(v);
    if (!(x >= min && x <= max) || x != (double)(uint32_t)x)
        return problem_set(p, PROBLEM_INVALID, name,
                           "`%s` is %.10g: a whole number from %u to %u is expected", name, x, min,
                           max);
    *ret = (uint32_t)x;
    return 0;
}

int field_object(const struct json_object *o, const char *name, const struct json_object **ret,
                 struct problem *p)
{
    const struct json_object *v = json_get(o, name);

    *ret = v;
    return v && json_kind(v) != JSON_OBJECT ? wrong(v, name, "an object", p) : 0;
}

int field_array(const struct json_object *o, const char *name, const struct json_object **ret,
                struct problem *p)
{
    const struct json_object *v = json_get(o, name);

    *ret = v;
    return v && json_kind(v) != JSON_ARRAY ? wrong(v, name, "an array", p) : 0;
}

/* Whether the model has such tokens the daemon says. */
int field_ids(const struct json_object *list, const char *name, struct mem *m, const uint32_t **ret,
              struct problem *p)
{
    size_t n = json_len(list);
    uint32_t *ids = mem_new(m, n, sizeof(*ids));

    if (!ids)
        return problem_no_memory(p);
    for (size_t i = 0; i < n; i++) {
        const struct json_object *v = json_at(list, i);
        int64_t id = json_kind(v) == JSON_INTEGER ? json_integer(v) : -1;

        if (id < 0 || id > UINT32_MAX)
            return problem_set(p, PROBLEM_INVALID, name,
                               "`%s` has a list of token ids with something else in it", name);
        ids[i] = (uint32_t)id;
    }
    *ret = ids;
    return 0;
}

static bool asks_for_nothing(const struct json_object *v)
{
    return json_kind(v) == JSON_BOOL ? !json_true(v)
           : is_number(v)            ? json_real(v) == 0
                                     : json_len(v) == 0;
}

int field_refuse(const struct json_object *o, const char *name, const char *instead,
                 struct problem *p)
{
    const struct json_object *v = json_get(o, name);

    if (!v || asks_for_nothing(v))
        return 0;
    return problem_set(p, PROBLEM_UNSUPPORTED, name, "`%s` is not supported: leave it out%s%s",
                       name, instead ? ", or " : "", instead ? instead : "");
}
