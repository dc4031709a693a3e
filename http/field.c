#include "http/field.h"

#include <string.h>

int field_parse(const char *body, size_t len, json_t **ret, struct problem *p)
{
    json_error_t why;
    json_t *o;

    if (len == 0)
        return problem_set(p, PROBLEM_INVALID, NULL,
                           "the request has no body: a JSON object is expected");
    o = json_loadb(body, len, 0, &why);
    if (!o)
        return problem_set(p, PROBLEM_INVALID, NULL,
                           "the body is not valid JSON: line %d, column %d: %s", why.line,
                           why.column, why.text);
    if (!json_is_object(o)) {
        (void)problem_set(p, PROBLEM_INVALID, NULL, "the body is %s: a JSON object is expected",
                          field_type(o));
        json_decref(o);
        return -1;
    }
    *ret = o;
    return 0;
}

const char *field_type(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    default:
        return "null";
    }
}

const json_t *field_get(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);

    return v && !json_is_null(v) ? v : NULL;
}

static int wrong(const json_t *v, const char *name, const char *expected, struct problem *p)
{
    return problem_set(p, PROBLEM_INVALID, name, "`%s` is %s: %s is expected", name, field_type(v),
                       expected);
}

int field_text(const json_t *o, const char *name, const char **ret, struct problem *p)
{
    const json_t *v = field_get(o, name);

    if (!v)
        return 0;
    if (!json_is_string(v))
        return wrong(v, name, "a string", p);
    *ret = json_string_value(v);
    return 0;
}

int field_bool(const json_t *o, const char *name, bool *ret, struct problem *p)
{
    const json_t *v = field_get(o, name);

    if (!v)
        return 0;
    if (!json_is_boolean(v))
        return wrong(v, name, "true or false", p);
    *ret = json_is_true(v);
    return 0;
}

int field_real(const json_t *o, const char *name, double min, double max, float *ret,
               struct problem *p)
{
    const json_t *v = field_get(o, name);
    double x;

    if (!v)
        return 0;
    if (!json_is_number(v))
        return wrong(v, name, "a number", p);
    x = json_number_value(v);
    if (!(x >= min && x <= max))
        return problem_set(p, PROBLEM_INVALID, name, "`%s` is %g: it may be from %g to %g", name, x,
                           min, max);
    *ret = (float)x;
    return 0;
}

int field_count(const json_t *o, const char *name, uint32_t min, uint32_t max, uint32_t *ret,
                struct problem *p)
{
    const json_t *v = field_get(o, name);
    double x;

    if (!v)
        return 0;
    if (!json_is_number(v))
        return wrong(v, name, "a whole number", p);
    /* 1.0 is one to who writes JSON by JavaScript. */
    x = json_number_value(v);
    if (!(x >= min && x <= max) || x != (double)(uint32_t)x)
        return problem_set(p, PROBLEM_INVALID, name,
                           "`%s` is %.10g: a whole number from %u to %u is expected", name, x, min,
                           max);
    *ret = (uint32_t)x;
    return 0;
}

int field_object(const json_t *o, const char *name, const json_t **ret, struct problem *p)
{
    const json_t *v = field_get(o, name);

    *ret = v;
    return v && !json_is_object(v) ? wrong(v, name, "an object", p) : 0;
}

int field_array(const json_t *o, const char *name, const json_t **ret, struct problem *p)
{
    const json_t *v = field_get(o, name);

    *ret = v;
    return v && !json_is_array(v) ? wrong(v, name, "an array", p) : 0;
}

static bool asks_for_nothing(const json_t *v)
{
    return json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0) ||
           (json_is_string(v) && json_string_length(v) == 0) ||
           ((json_is_array(v) || json_is_object(v)) &&
            json_array_size(v) + json_object_size(v) == 0);
}

int field_refuse(const json_t *o, const char *name, const char *instead, struct problem *p)
{
    const json_t *v = field_get(o, name);

    if (!v || asks_for_nothing(v))
        return 0;
    return problem_set(p, PROBLEM_UNSUPPORTED, name, "`%s` is not supported: leave it out%s%s",
                       name, instead ? ", or " : "", instead ? instead : "");
}
