/* train/file/beacon_config.c - what config.json says of gists, by whichever of two prefixes its
 * authors took. What computes them in a way that adapters do not have is refused; what is not there
 * has the value that those models have by default.
 */
#include "train/file/beacon_config.h"

#include "engine/kv/compress.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#define FIELD_MAX 64

/* Objects belong to `all`. */
struct reader {
    const char *path;
    struct json_object *all;
    const char *prefix;
    struct why *why;
};

/* The field prefix_key, or NULL. */
static struct json_object *field(const struct reader *r, const char *key)
{
    char name[FIELD_MAX];
    struct json_object *o = NULL;

    (void)snprintf(name, sizeof(name), "%s_%s", r->prefix, key);
    return json_object_object_get_ex(r->all, name, &o) ? o : NULL;
}

/* --- of which model --------------------------------------------------------------------------- */

/* The whole shape, since tensors alone could fit two models. */
static int check_number(const struct reader *r, const char *key, uint32_t want)
{
    struct json_object *o;

    if (!json_object_object_get_ex(r->all, key, &o) || !o)
        return 0; /* some have defaults */
    if (json_object_is_type(o, json_type_int) && json_object_get_int64(o) == want)
        return 0;
    return why_set(r->why, -EINVAL, "%s: %s is %.40s, but the base model has %u", r->path, key,
                   json_object_to_json_string(o), want);
}

static int check_model(const struct reader *r, const struct model *m)
{
    static const char *const types[] = { [MODEL_LLAMA] = "llama", [MODEL_QWEN2] = "qwen2" };
    struct json_object *o = NULL;
    const char *type;
    int e;

    (void)json_object_object_get_ex(r->all, "model_type", &o);
    type = o ? json_object_get_string(o) : "absent";
    /* "absent" is no architecture. */
    if (strcmp(type, types[m->arch]) != 0)
        return why_set(r->why, -EINVAL, "%s: model_type is %.40s, but the base model is a %s",
                       r->path, type, types[m->arch]);
    e = check_number(r, "hidden_size", m->n_embd);
    if (e == 0)
        e = check_number(r, "num_hidden_layers", m->n_layer);
    if (e == 0)
        e = check_number(r, "num_attention_heads", m->n_head);
    if (e == 0)
        e = check_number(r, "num_key_value_heads", m->n_head_kv);
    return e == 0 ? check_number(r, "intermediate_size", m->n_ff) : e;
}

/* --- its gists -------------------------------------------------------------------------------- */

/* A field that is there must be this: anything else is computed in a way that we have not. */
static int expect(const struct reader *r, const char *key, const char *json)
{
    struct json_object *o = field(r, key);
    const char *found = o ? json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN) : NULL;

    if (!found || strcmp(found, json) == 0)
        return 0;
    return why_set(r->why, -EINVAL, "%s: %s_%s is %.60s, an adapter can only have %s", r->path,
                   r->prefix, key, found, json);
}

static int read_number(const struct reader *r, const char *key, uint32_t lo, uint32_t hi,
                       uint32_t *ret)
{
    struct json_object *o = field(r, key);

    if (!o)
        return 0;
    if (!json_object_is_type(o, json_type_int) || json_object_get_int64(o) < lo ||
        json_object_get_int64(o) > hi)
        return why_set(r->why, -EINVAL, "%s: %s_%s is %.40s, expected a number from %u to %u",
                       r->path, r->prefix, key, json_object_to_json_string(o), lo, hi);
    *ret = (uint32_t)json_object_get_int64(o);
    return 0;
}

/* ["q", "k", "v"] or some of them. */
static int read_params(const struct reader *r, struct beacon_config *ret)
{
    static const char letters[] = "qkv";
    struct json_object *o = field(r, "param");
    size_t n = o && json_object_is_type(o, json_type_array) ? json_object_array_length(o) : 0;

    for (size_t i = 0; i < n; i++) {
        /* NULL where it is no string. */
        const char *p = json_object_get_string(json_object_array_get_idx(o, i));
        const char *at = p && p[0] && !p[1] ? strchr(letters, p[0]) : NULL;

        if (!at)
            return why_set(
                r->why, -EINVAL,
                "%s: %s_param has \"%.20s\", gists are imported that have projections of "
                "their own to q, k and v only",
                r->path, r->prefix, p ? p : "");
        ret->has[at - letters] = true;
    }
    return 0;
}

/* The ones that we have, in order; others (0 is "not compressed") stay away. */
static void read_ratios(const struct reader *r, struct beacon_config *ret)
{
    struct json_object *o = field(r, "ratio");
    size_t n = o && json_object_is_type(o, json_type_array) ? json_object_array_length(o) : 0;

    for (uint32_t ratio = COMPRESS_RATIO_MIN; ratio <= COMPRESS_RATIO_MAX; ratio++)
        for (size_t i = 0; i < n && ret->n_ratios < ADAPTER_RATIOS_MAX; i++)
            if (json_object_get_int64(json_object_array_get_idx(o, i)) == ratio) {
                ret->ratios[ret->n_ratios++] = ratio;
                break;
            }
}

static int read_gists(struct reader *r, struct beacon_config *ret)
{
    int e = expect(r, "attn", "\"full-coverage\"");

    ret->prefix = r->prefix;
    if (e == 0)
        e = expect(r, "attend_prev", "true");
    if (e == 0)
        e = expect(r, "pos", "\"interleave\"");
    if (e == 0)
        e = read_number(r, "window", SEQ_SEGMENT_MIN, SEQ_SEGMENT_MAX, &ret->window);
    if (e == 0)
        e = read_number(r, "sink_size", 0, COMPRESS_SINKS_MAX, &ret->sinks);
    if (e == 0)
        e = read_params(r, ret);
    read_ratios(r, ret);
    return e;
}

int beacon_config_read(const char *path, const struct model *m, struct beacon_config *ret,
                       struct why *why)
{
    struct reader r = { .path = path, .prefix = "beacon", .why = why };
    struct beacon_config c = { .prefix = NULL };
    int e;

    errno = 0;
    r.all = json_object_from_file(path);
    if (!r.all && errno == ENOENT)
        return why_set(why, -ENOENT, "%s: %s", path, strerror(ENOENT));
    if (!json_object_is_type(r.all, json_type_object)) {
        json_object_put(r.all);
        return why_set(why, -EINVAL, "%s: not a JSON object", path);
    }
    /* By the two fields that every such file has one of. */
    if (!field(&r, "window") && !field(&r, "param"))
        r.prefix = "gist";
    e = check_model(&r, m);
    if (e == 0)
        e = read_gists(&r, &c);
    json_object_put(r.all);
    if (e == 0)
        *ret = c;
    return e;
}
