/* http/info.c - what is asked about the model and the server. Each asks the daemon anew: what it
 * serves may have changed since, and an answer from memory would say that it serves when it
 * doesn't. */

#include "http/info.h"

#include <stdio.h>
#include <string.h>

/* When a model was made nobody says; clients want a date. */
#define SOME_DAY "1970-01-01T00:00:00Z"

/* Of the daemon: a copy of what is asked about, since the connection goes back at once. */
struct about {
    char model[128], digest[72];
    uint64_t bytes;
    uint32_t context_max;
    int chat;
    bool tools; /* the chat template knows them */
};

static int ask_daemon(struct pool *pool, struct about *ret, struct problem *p)
{
    struct gist_stats stats;
    struct gist_info info;
    gist_conn *c;

    if (pool_take_stats(pool, &c, &stats, p) < 0)
        return -1;
    gist_info(c, &info);
    *ret = (struct about){ .bytes = stats.weights_bytes,
                           .context_max = info.context_max,
                           .chat = info.chat,
                           .tools = gist_tools(c) != GIST_TOOLS_NONE };
    (void)snprintf(ret->model, sizeof(ret->model), "%s", info.model);
    (void)snprintf(ret->digest, sizeof(ret->digest), "%s", info.model_digest);
    pool_put(pool, c);
    return 0;
}

int info_health(struct pool *pool, const char *tail, struct json_object **ret, struct problem *p)
{
    struct about a;

    (void)tail;
    if (ask_daemon(pool, &a, p) < 0)
        return -1;
    return problem_or_built(json_make("{s:s, s:s}", "status", "ok", "model", a.model), ret, p);
}

static struct json_object *model(const struct about *a)
{
    return json_make("{s:s, s:s, s:i, s:s, s:s, s:s, s:s, s:I}", "id", a->model, "object", "model",
                     "created", 0, "owned_by", "gistd", "type", "model", "display_name", a->model,
                     "created_at", SOME_DAY, "context_window", (int64_t)a->context_max);
}

int info_models(struct pool *pool, const char *tail, struct json_object **ret, struct problem *p)
{
    struct about a;

    (void)tail;
    if (ask_daemon(pool, &a, p) < 0)
        return -1;
    return problem_or_built(json_make("{s:s, s:[o], s:b, s:s, s:s}", "object", "list", "data",
                                      model(&a), "has_more", 0, "first_id", a.model, "last_id",
                                      a.model),
                            ret, p);
}

int info_model(struct pool *pool, const char *tail, struct json_object **ret, struct problem *p)
{
    struct about a;

    if (ask_daemon(pool, &a, p) < 0)
        return -1;
    if (strcmp(tail, a.model) != 0)
        return problem_set(p, PROBLEM_NOT_FOUND, "model",
                           "there is no model \"%s\" here: gistd serves \"%s\"", tail, a.model);
    return problem_or_built(model(&a), ret, p);
}

/* --- Ollama's --------------------------------------------------------------------------------- */

/* Clients read the fields without looking whether they are there. Empty ones claim nothing. */
static struct json_object *details(void)
{
    return json_make("{s:s, s:s, s:s, s:[], s:s, s:s}", "parent_model", "", "format", "gguf",
                     "family", "", "families", "parameter_size", "", "quantization_level", "");
}

static struct json_object *row(const struct about *a)
{
    return json_make("{s:s, s:s, s:s, s:I, s:s, s:o}", "name", a->model, "model", a->model,
                     "modified_at", SOME_DAY, "size", (int64_t)a->bytes, "digest", a->digest,
                     "details", details());
}

int info_tags(struct pool *pool, const char *tail, struct json_object **ret, struct problem *p)
{
    struct about a;

    (void)tail;
    if (ask_daemon(pool, &a, p) < 0)
        return -1;
    return problem_or_built(json_make("{s:[o]}", "models", row(&a)), ret, p);
}

/* It is there as long as its daemon is: what Ollama says of a model that it was told to keep. */
int info_ps(struct pool *pool, const char *tail, struct json_object **ret, struct problem *p)
{
    struct about a;
    struct json_object *o;

    (void)tail;
    if (ask_daemon(pool, &a, p) < 0)
        return -1;
    o = row(&a);
    if (json_set(o, "expires_at", json_make("s", "2318-01-01T00:00:00Z")) < 0 ||
        json_set(o, "size_vram", json_make("i", 0)) < 0 ||
        json_set(o, "context_length", json_make("I", (int64_t)a.context_max)) < 0) {
        json_free(o);
        o = NULL;
    }
    return problem_or_built(json_make("{s:[o]}", "models", o), ret, p);
}

int info_show(struct pool *pool, const char *tail, struct json_object **ret, struct problem *p)
{
    struct about a;

    (void)tail;
    if (ask_daemon(pool, &a, p) < 0)
        return -1;
    return problem_or_built(json_make("{s:s, s:s, s:s, s:s, s:o, s:{s:s, s:I}, s:o}", "modelfile",
                                      "", "parameters", "", "template", "", "modified_at", SOME_DAY,
                                      "details", details(), "model_info", "general.basename",
                                      a.model, "general.context_length", (int64_t)a.context_max,
                                      "capabilities",
                                      a.tools ? json_make("[s, s]", "completion", "tools")
                                              : json_make("[s]", "completion")),
                            ret, p);
}

int info_ollama_version(struct pool *pool, const char *tail, struct json_object **ret,
                        struct problem *p)
{
    (void)pool;
    (void)tail;
    return problem_or_built(json_make("{s:s}", "version", GISTD_VERSION), ret, p);
}
