/* http/route.c - the table of paths. Looked through for each request, which costs nothing beside
 * it. HEAD is a GET whose body libmicrohttpd leaves out, but of an answer: it would be taken from
 * who waits for it. */

#include "http/route.h"

#include <string.h>

static const struct route routes[] = {
    { "GET", "/health", &say_chat, .info = info_health, .open = true },
    { "GET", "/v1/models", &say_chat, .info = info_models },
    { "GET", "/v1/models/", &say_chat, .info = info_model },
    { "POST", "/v1/chat/completions", &say_chat, .read = read_chat_completions },
    { "POST", "/v1/completions", &say_completions, .read = read_completions },
    { "POST", "/v1/responses", &say_responses, .read = read_responses },
    { "POST", "/v1/messages", &say_messages, .read = read_messages },
    { "POST", "/v1/messages/count_tokens", &say_count_tokens, .read = read_count_tokens },
    { "POST", "/v1/embeddings", &say_chat, .embed = embed_openai },
    { "POST", "/api/embed", &say_ollama_chat, .embed = embed_ollama },
    { "POST", "/api/embeddings", &say_ollama_chat, .embed = embed_ollama_one },
    { "POST", "/api/chat", &say_ollama_chat, .read = read_ollama_chat },
    { "POST", "/api/generate", &say_ollama_generate, .read = read_ollama_generate },
    { "GET", "/api/tags", &say_ollama_chat, .info = info_tags },
    { "POST", "/api/show", &say_ollama_chat, .info = info_show },
    { "GET", "/api/ps", &say_ollama_chat, .info = info_ps },
    { "GET", "/api/version", &say_ollama_chat, .info = info_ollama_version, .open = true },
    { "POST", "/gist/v1/chat", &say_page, .read = read_turn, .is_turn = true },
    { "GET", "/gist/v1/answers/", &say_page, .is_answer = true },
    { "GET", "/gist/v1/memory", &say_page, .about = live_memory },
    { "GET", "/gist/v1/sessions", &say_page, .about = live_list },
    { "GET", "/gist/v1/sessions/", &say_page, .about = live_look },
    { "DELETE", "/gist/v1/sessions/", &say_page, .about = turns_delete },
    { "POST", "/gist/v1/sessions/", &say_page, .about = live_change },
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
        if (strcmp(routes[i].method, head && !routes[i].is_answer ? "GET" : method) == 0)
            return &routes[i];
        /* The path is there, and takes something else: 405 says what. Of several the last. */
        *ret_method = routes[i].method;
    }
    return NULL;
}

/* A client that mistook a path still reads the refusal as its own API writes it. */
const struct voice *route_voice(const char *path)
{
    if (strncmp(path, "/api/", 5) == 0)
        return &say_ollama_chat;
    if (strncmp(path, "/v1/messages", 12) == 0)
        return &say_messages;
    return &say_chat;
}
