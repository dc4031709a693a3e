/* http/read.c - what the readers of several APIs share. Texts of the ask point into the parsed body
 * wherever they stand there in one piece; only what has to be put together is copied, to ask.mem.
 */

#include "http/read.h"

#include <string.h>

static bool is_one_of(const char *word, const char *const *words)
{
    while (*words && strcmp(*words, word) != 0)
        words++;
    return *words != NULL;
}

/* Pictures and sounds are refused and not left out: an answer about the text beside them would look
 * like one about them. */
static int read_part(const struct json_object *part, const char *const *types, const char *what,
                     const char **ret, struct problem *p)
{
    const char *type = "";

    if (json_kind(part) != JSON_OBJECT)
        return problem_set(p, PROBLEM_INVALID, what, "a part of `%s` is %s: an object is expected",
                           what, field_type(part));
    if (field_text(part, "type", &type, p) < 0)
        return -1;
    if (!is_one_of(type, types))
        return problem_set(p, PROBLEM_UNSUPPORTED, what,
                           "`%s` has a part of type \"%s\": the model reads text alone", what,
                           type);
    *ret = NULL;
    if (field_text(part, "text", ret, p) < 0)
        return -1;
    return *ret ? 0 : problem_set(p, PROBLEM_INVALID, what, "a part of `%s` has no `text`", what);
}

int read_content(struct ask *a, const struct json_object *content, const char *const *types,
                 const char *what, const char **ret, struct problem *p)
{
    struct text all = { 0 };
    const char *text;
    size_t i, n;
    const struct json_object *part;

    *ret = "";
    if (!content || json_kind(content) == JSON_NULL)
        return 0;
    if (json_kind(content) == JSON_STRING) {
        *ret = json_text(content);
        return 0;
    }
    if (json_kind(content) != JSON_ARRAY)
        return problem_set(p, PROBLEM_INVALID, what,
                           "`%s` is %s: a string or an array of parts is expected", what,
                           field_type(content));
    n = json_len(content);
    for (i = 0; i < n; i++) {
        part = json_at(content, i);
        if (read_part(part, types, what, &text, p) < 0) {
            text_fini(&all);
            return -1;
        }
        text_add(&all, text, strlen(text));
    }
    *ret = all.lost ? NULL : mem_copy(&a->mem, all.bytes ? all.bytes : "", all.len);
    text_fini(&all);
    return *ret ? 0 : problem_no_memory(p);
}

int read_stops(struct ask *a, const struct json_object *o, const char *name, struct problem *p)
{
    const struct json_object *v = json_get(o, name);
    size_t n = v ? json_kind(v) == JSON_ARRAY ? json_len(v) : 1 : 0;

    if (n > ASK_STOPS_MAX)
        return problem_set(p, PROBLEM_INVALID, name, "`%s` has %zu texts: at most %u are allowed",
                           name, n, ASK_STOPS_MAX);
    a->sampling.n_stop = 0;
    for (size_t i = 0; i < n; i++) {
        const struct json_object *s = json_kind(v) == JSON_ARRAY ? json_at(v, i) : v;

        if (json_kind(s) != JSON_STRING)
            return problem_set(p, PROBLEM_INVALID, name,
                               "`%s` holds %s: a string or an array of strings is expected", name,
                               field_type(s));
        if (json_len(s) > 0) /* nothing ends with an empty one */
            a->stops[a->sampling.n_stop++] = json_text(s);
    }
    a->sampling.stop = a->stops;
    return 0;
}

/* --- formats ---------------------------------------------------------------------------------- */

/* As a text again: the daemon reads schemas itself, and trusts no parser but its own. */
int read_schema(struct ask *a, const struct json_object *schema, struct problem *p)
{
    struct text t = { 0 };
    char *text;

    if (schema)
        json_write(&t, schema);
    else
        text_print(&t, "{\"type\": \"object\"}");
    text = t.bytes && !t.lost ? mem_copy(&a->mem, t.bytes, t.len) : NULL;
    a->sampling.grammar = GIST_JSON_SCHEMA;
    a->sampling.grammar_text = text;
    a->sampling.grammar_len = t.len;
    text_fini(&t);
    return text ? 0 : problem_no_memory(p);
}

int read_format(struct ask *a, const struct json_object *o, const char *name, const char *inner,
                struct problem *p)
{
    const struct json_object *format, *schema;
    const char *type = "text";

    if (field_object(o, name, &format, p) < 0 ||
        (format && field_text(format, "type", &type, p) < 0))
        return -1;
    if (strcmp(type, "text") == 0)
        return 0;
    if (strcmp(type, "json_object") == 0)
        return read_schema(a, NULL, p);
    if (strcmp(type, "json_schema") != 0)
        return problem_set(p, PROBLEM_UNSUPPORTED, name,
                           "`%s` has the type \"%s\": \"text\", \"json_object\" or "
                           "\"json_schema\" is expected",
                           name, type);
    if (inner && field_object(format, inner, &format, p) < 0)
        return -1;
    schema = format ? json_get(format, "schema") : NULL;
    if (!schema)
        return problem_set(p, PROBLEM_INVALID, name,
                           "`%s` is of type \"json_schema\" and has no `schema`", name);
    return read_schema(a, schema, p);
}

/* --- log-probabilities ------------------------------------------------------------------------ */

void read_want_logprobs(struct ask *a, uint32_t n)
{
    a->logprobs = true;
    a->sampling.flags |= GIST_SET_LOGPROBS;
    a->sampling.logprobs = n;
}

int read_logprobs(struct ask *a, const struct json_object *o, struct problem *p)
{
    uint32_t n = 0;
    bool wanted = false;

    if (field_bool(o, "logprobs", &wanted, p) < 0 ||
        field_count(o, "top_logprobs", 0, READ_LOGPROBS_MAX, &n, p) < 0)
        return -1;
    if (n > 0 && !wanted)
        return problem_set(p, PROBLEM_INVALID, "top_logprobs",
                           "`top_logprobs` needs \"logprobs\": true");
    if (wanted)
        read_want_logprobs(a, n);
    return 0;
}

/* --- the extension ---------------------------------------------------------------------------- */

/* Named is what libgist has a name for, so that a compressor that is new there is known here. */
static int read_memory_name(struct ask *a, const struct json_object *o, struct problem *p)
{
    const char *name = NULL;
    unsigned i = 0;

    if (field_text(o, "memory", &name, p) < 0)
        return -1;
    if (!name)
        return 0;
    a->policy.memory = &a->memory;
    if (strcmp(name, "auto") == 0) {
        a->memory.flags |= GIST_AUTO;
        return 0;
    }
    while (gist_compressor_name(i) && strcmp(gist_compressor_name(i), name) != 0)
        i++;
    if (!gist_compressor_name(i))
        return problem_set(
            p, PROBLEM_INVALID, "memory",
            "`memory` is \"%s\": \"auto\", \"full\", \"none\", \"fit\", \"select\" or "
            "another compressor that gistctl(1) lists is expected",
            name);
    /* Who names a compressor wants that one, and not what would be chosen. */
    a->policy.flags &= ~GIST_AUTO;
    a->memory.flags &= ~GIST_AUTO;
    a->memory.compressor = (enum gist_compressor)i;
    return 0;
}

/* Who says a ratio or a budget and no more leaves the choice of the rest to the daemon. */
static int read_memory_numbers(struct ask *a, const struct json_object *o, struct problem *p)
{
    uint32_t ratio = 0, budget = 0;

    if (field_count(o, "ratio", 2, 64, &ratio, p) < 0 ||
        field_count(o, "budget", 1, 1u << 30, &budget, p) < 0)
        return -1;
    if (ratio)
        a->memory.ratio = ratio;
    if (budget)
        a->memory.budget = budget;
    if (ratio || budget)
        a->policy.memory = &a->memory;
    return 0;
}

static int read_hydrate(struct ask *a, const struct json_object *o, struct problem *p)
{
    const struct json_object *v = json_get(o, "hydrate");

    if (!v)
        return 0;
    a->policy.memory = &a->memory;
    a->memory.flags |= GIST_SET_HYDRATE;
    if (json_kind(v) == JSON_STRING && strcmp(json_text(v), "auto") == 0)
        a->memory.hydrate = GIST_HYDRATE_AUTO;
    else if (json_kind(v) == JSON_STRING && strcmp(json_text(v), "off") == 0)
        a->memory.hydrate = 0;
    else
        return field_count(o, "hydrate", 0, 1u << 20, &a->memory.hydrate, p);
    return 0;
}

static int read_rest(struct ask *a, const struct json_object *o, struct problem *p)
{
    const char *priority = "interactive";
    bool is_private = false;
    float deadline = 0;

    if (field_real(o, "deadline", 0.001, 3600, &deadline, p) < 0)
        return -1;
    a->deadline_ms = (uint32_t)(deadline * 1000);
    if (field_text(o, "adapter", &a->memory.adapter, p) < 0 ||
        field_bool(o, "private", &is_private, p) < 0 || field_text(o, "priority", &priority, p) < 0)
        return -1;
    if (a->memory.adapter)
        a->policy.memory = &a->memory;
    if (is_private)
        a->policy.flags |= GIST_PRIVATE;
    if (strcmp(priority, "background") == 0)
        a->policy.priority = GIST_BACKGROUND;
    else if (strcmp(priority, "interactive") != 0)
        return problem_set(p, PROBLEM_INVALID, "priority",
                           "`priority` is \"%s\": \"interactive\" or \"background\" is expected",
                           priority);
    return 0;
}

/* The same words beside the API's own fields first, so that those in the object win. */
static int read_extension(struct ask *a, const struct json_object *o, struct problem *p)
{
    const struct json_object *x;

    if (field_object(o, "gistd", &x, p) < 0 || read_memory_name(a, o, p) < 0 ||
        read_memory_numbers(a, o, p) < 0)
        return -1;
    if (x && (read_memory_name(a, x, p) < 0 || read_memory_numbers(a, x, p) < 0 ||
              read_hydrate(a, x, p) < 0 || read_rest(a, x, p) < 0))
        return -1;
    /* The memory is looked at instead of the policy's flag, and has it itself. */
    if (a->policy.memory && a->policy.flags & GIST_AUTO)
        a->memory.flags |= GIST_AUTO;
    return 0;
}

int read_common(struct ask *a, const struct json_object *o, struct problem *p)
{
    const struct json_object *seed = json_get(o, "seed");

    if (field_text(o, "model", &a->model, p) < 0 || field_bool(o, "stream", &a->stream, p) < 0)
        return -1;
    if (seed && json_kind(seed) != JSON_INTEGER)
        return problem_set(p, PROBLEM_INVALID, "seed", "`seed` is %s: a whole number is expected",
                           json_kind(seed) == JSON_REAL ? "no whole number" : field_type(seed));
    if (seed) {
        a->has_seed = true;
        a->sampling.seed = (uint64_t)json_integer(seed);
    }
    return read_extension(a, o, p);
}
