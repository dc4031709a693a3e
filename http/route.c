#include "http/route.h"

#include <string.h>

static const struct route routes[] = {
    { "GET", "/health", &say_chat, NULL, info_health, true },
    { "GET", "/v1/models", &say_chat, NULL, info_models, false },
    { "GET", "/v1/models/", &say_chat, NULL, info_model, false },
    { "POST", "/v1/chat/completions", &say_chat, read_chat_completions, NULL, false },
    { "POST", "/v1/completions", &say_completions, read_completions, NULL, false },
    { "POST", "/v1/responses", &say_responses, read_responses, NULL, false },
    { "POST", "/v1/messages", &say_messages, read_messages, NULL, false },
    { "POST", "/v1/messages/count_tokens", &say_count_tokens, read_count_tokens, NULL, false },
    { "POST", "/api/chat", &say_ollama_chat, read_ollama_chat, NULL, false },
    { "POST", "/api/generate", &say_ollama_generate, read_ollama_generate, NULL, false },
    { "GET", "/api/tags", &say_ollama_chat, NULL, info_tags, false },
    { "POST", "/api/show", &say_ollama_chat, NULL, info_show, false },
    { "GET", "/api/ps", &say_ollama_chat, NULL, info_ps, false },
    { "GET", "/api/version", &say_ollama_chat, NULL, info_ollama_version, true },
};

/* What is behind the route's path; NULL: it is another. */
static const char *match(const struct route *r, const char *path)
{
    size_t n = strlen(r->path);

    if (strncmp(r->path, path, n) != 0)
        return NULL;
    return r->path[n - 1] == '/' ? (path[n] ? path + n : NULL) : path[n] ? NULL : path + n;
}

const struct route *route_find(const char *method, const char *path, const char **ret_tail,
                               const char **ret_method)
{
    bool head = strcmp(method, "HEAD") == 0;

    *ret_method = NULL;
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        const char *tail = match(&routes[i], path);

        if (!tail)
            continue;
        *ret_tail = tail;
        if (strcmp(routes[i].method, head ? "GET" : method) == 0)
            return &routes[i];
        *ret_method = routes[i].method;
    }
    return NULL;
}

const struct voice *route_voice(const char *path)
{
    if (strncmp(path, "/api/", 5) == 0)
        return &say_ollama_chat;
    if (strncmp(path, "/v1/messages", 12) == 0)
        return &say_messages;
    return &say_chat;
}
