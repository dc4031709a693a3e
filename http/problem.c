/* http/problem.c - a table of kinds, in the words of each API. Clients ask again by themselves at
 * 429 and 5xx: what would fail the same way has another status, or (504) a header against that. */

#include "http/problem.h"

#include "base/shown.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* retry_s: the clients of OpenAI and Anthropic wait so long and ask again by themselves. */
static const struct {
    unsigned status, retry_s;
    const char *openai_type, *openai_code, *anthropic_type;
} kinds[PROBLEM__N] = {
    [PROBLEM_NONE] = { 500, 0, "server_error", NULL, "api_error" },
    [PROBLEM_INVALID] = { 400, 0, "invalid_request_error", NULL, "invalid_request_error" },
    [PROBLEM_UNSUPPORTED] = { 400, 0, "invalid_request_error", "unsupported_parameter",
                              "invalid_request_error" },
    [PROBLEM_CONTEXT] = { 400, 0, "invalid_request_error", "context_length_exceeded",
                          "invalid_request_error" },
    [PROBLEM_KEY] = { 401, 0, "authentication_error", "invalid_api_key", "authentication_error" },
    [PROBLEM_FORBIDDEN] = { 403, 0, "permission_error", NULL, "permission_error" },
    [PROBLEM_NOT_FOUND] = { 404, 0, "invalid_request_error", "not_found", "not_found_error" },
    [PROBLEM_GONE] = { 404, 0, "invalid_request_error", "session_gone", "not_found_error" },
    [PROBLEM_STOPPED] = { 409, 0, "invalid_request_error", "stopped", "invalid_request_error" },
    [PROBLEM_METHOD] = { 405, 0, "invalid_request_error", "method_not_allowed",
                         "invalid_request_error" },
    [PROBLEM_TOO_LARGE] = { 413, 0, "invalid_request_error", "request_too_large",
                            "request_too_large" },
    [PROBLEM_LIMIT] = { 429, 1, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error" },
    [PROBLEM_INTERNAL] = { 500, 0, "server_error", NULL, "api_error" },
    [PROBLEM_NO_DAEMON] = { 503, 5, "server_error", "service_unavailable", "api_error" },
    [PROBLEM_LOADING] = { 503, 2, "server_error", "model_loading", "overloaded_error" },
    [PROBLEM_FULL] = { 503, 2, "server_error", "overloaded", "overloaded_error" },
    [PROBLEM_DEADLINE] = { 504, 0, "server_error", "deadline_exceeded", "timeout_error" },
};

int problem_set(struct problem *p, enum problem_kind kind, const char *param, const char *fmt, ...)
{
    char line[sizeof(p->text)];
    va_list ap;
    size_t n;

    if (p->kind != PROBLEM_NONE)
        return -1;
    p->kind = kind;
    if (param)
        (void)snprintf(p->param, sizeof(p->param), "%s", param);
    va_start(ap, fmt);
    (void)vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    /* It may quote a client's bytes, or be cut in the middle of a character. */
    n = shown_put(SHOWN_LINE, line, strlen(line), p->text, sizeof(p->text) - 1);
    p->text[n] = '\0';
    return -1;
}

int problem_no_memory(struct problem *p)
{
    return problem_set(p, PROBLEM_FULL, NULL, "gist-http is out of memory");
}

int problem_unbuilt(struct problem *p)
{
    return problem_set(p, PROBLEM_INTERNAL, NULL, "%s", PROBLEM_UNBUILT);
}

int problem_or_built(struct json_object *o, struct json_object **ret, struct problem *p)
{
    *ret = o;
    return o ? 0 : problem_unbuilt(p);
}

/* GIST_E_NOT_FOUND is no 404: what the daemon did not find was named in the body, an adapter for
 * instance. */
static enum problem_kind kind_of(enum gist_code code)
{
    switch (code) {
    case GIST_E_BAD_REQUEST:
    case GIST_E_UNSUPPORTED:
    case GIST_E_NOT_FOUND:
        return PROBLEM_INVALID;
    case GIST_E_CONTEXT_LENGTH_EXCEEDED:
        return PROBLEM_CONTEXT;
    case GIST_E_LIMIT:
    case GIST_E_BUSY:
        return PROBLEM_LIMIT;
    case GIST_E_POOL_FULL:
    case GIST_E_NO_MEMORY:
        return PROBLEM_FULL;
    case GIST_E_DEADLINE:
        return PROBLEM_DEADLINE;
    case GIST_E_TRANSPORT:
    case GIST_E_SHUTTING_DOWN:
        return PROBLEM_NO_DAEMON;
    default:
        return PROBLEM_INTERNAL;
    }
}

int problem_of_gist(struct problem *p, const gist_conn *c)
{
    enum problem_kind kind = kind_of(gist_error_code(c));

    if (kind == PROBLEM_NO_DAEMON)
        return problem_set(
            p, kind, NULL,
            "%s. Start the daemon (`systemctl --user start gistd`, or `gistd --model "
            "FILE`) and ask again; `gistctl status` shows whether it serves",
            gist_error(c));
    /* Agents look for this word, also where an API has no field for it. */
    if (kind == PROBLEM_CONTEXT)
        return problem_set(
            p, kind, NULL,
            "context_length_exceeded: the prompt is too long: %s. Leave `memory` out, "
            "or say \"memory\": \"auto\", and texts of any length are read",
            gist_error(c));
    return problem_set(p, kind, NULL, "%s", gist_error(c));
}

unsigned problem_status(const struct problem *p)
{
    return kinds[p->kind].status;
}

unsigned problem_retry_s(const struct problem *p)
{
    return kinds[p->kind].retry_s;
}

const char *problem_openai_type(const struct problem *p)
{
    return kinds[p->kind].openai_type;
}

const char *problem_openai_code(const struct problem *p)
{
    return kinds[p->kind].openai_code;
}

const char *problem_anthropic_type(const struct problem *p)
{
    return kinds[p->kind].anthropic_type;
}
