/* Fuzzes the bodies of HTTP requests: the first byte says whose, the rest is the body. Whatever it
 * is, it is refused by a sentence with a status of 400, or becomes an ask whose texts can be read
 * to their ends and whose numbers are in bounds. And headers: names of hosts, pages and keys. Run
 * by tests/run-fuzz.
 */
#include "http/guard.h"
#include "http/read.h"
#include "tests/support/fuzz_seeds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static read_fn *const readers[] = { read_chat_completions, read_completions,  read_responses,
                                    read_messages,         read_count_tokens, read_ollama_chat,
                                    read_ollama_generate };
#define N_READERS (sizeof(readers) / sizeof(readers[0]))

static void require(bool yes, const char *what)
{
    if (!yes) {
        fprintf(stderr, "not so: %s\n", what);
        abort();
    }
}

/* --- seeds ------------------------------------------------------------------------------------ */

static void put_seed(const char *dir, unsigned n, const char *text)
{
    char name[32], body[2048];
    int len = snprintf(body, sizeof(body), "%c%s", (char)n, text);

    (void)snprintf(name, sizeof(name), "%u-%zu", n, strlen(text));
    fuzz_seeds_put(dir, name, body, (size_t)len);
}

static void put_seeds_of_tools(const char *dir)
{
    put_seed(
        dir, 0,
        "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
        "\"arguments\":\"{\\\"a\\\": 1}\"}}]},{\"role\":\"tool\",\"content\":\"x\"}],\"tools\":"
        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"$ref\":\"#\"}}}],"
        "\"tool_choice\":{\"function\":{\"name\":\"f\"}},\"parallel_tool_calls\":false}");
    put_seed(
        dir, 3,
        "{\"max_tokens\":5,\"tools\":[{\"name\":\"f\",\"input_schema\":{}}],\"tool_choice\":{"
        "\"type\":"
        "\"any\",\"disable_parallel_tool_use\":true},\"messages\":[{\"role\":\"assistant\","
        "\"content\":"
        "[{\"type\":\"tool_use\",\"name\":\"f\",\"input\":{}}]},{\"role\":\"user\",\"content\":[{"
        "\"type\":\"tool_result\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}]}]}");
    put_seed(
        dir, 2,
        "{\"input\":[{\"type\":\"function_call\",\"name\":\"f\",\"arguments\":\"{}\"},{\"type\":"
        "\"function_call_output\",\"output\":\"a\"}],\"tools\":[{\"type\":\"function\",\"name\":"
        "\"f\"}]}");
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *dir = fuzz_seeds_dir(*argc, *argv);

    if (!dir)
        return 0;
    put_seeds_of_tools(dir);
    put_seed(
        dir, 0,
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"x\"},{\"role\":\"user\","
        "\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}],\"n\":2,\"seed\":-1,\"stop\":[\"a\"],"
        "\"stream\":true,\"stream_options\":{\"include_usage\":true},\"temperature\":0.5,"
        "\"max_completion_tokens\":5,\"memory\":\"auto\",\"ratio\":8,\"budget\":1024,\"gistd\":"
        "{\"hydrate\":\"auto\",\"adapter\":\"a\",\"private\":true,\"priority\":\"background\"}}");
    put_seed(dir, 0,
             "{\"messages\":[],\"tools\":[{}],\"response_format\":{\"type\":\"json_schema\"}}");
    put_seed(dir, 1, "{\"prompt\":[\"a\",[1,2]],\"echo\":true,\"best_of\":1,\"top_p\":0.9}");
    put_seed(
        dir, 2,
        "{\"input\":[{\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":"
        "\"input_text\",\"text\":\"a\"}]}],\"instructions\":\"b\",\"text\":{\"format\":{\"type\":"
        "\"text\"}},\"max_output_tokens\":5}");
    put_seed(
        dir, 3,
        "{\"max_tokens\":5,\"system\":[{\"type\":\"text\",\"text\":\"a\"}],\"messages\":[{\"role\":"
        "\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"y\"}],"
        "\"stop_sequences\":[\"z\"],\"thinking\":{\"type\":\"disabled\"},\"tool_choice\":{\"type\":"
        "\"none\"}}");
    put_seed(
        dir, 5,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"options\":{\"num_predict\":-1,"
        "\"seed\":3,\"temperature\":0,\"stop\":[\"x\"],\"num_ctx\":4096},\"keep_alive\":\"5m\"}");
    put_seed(dir, 6, "{\"prompt\":\"x\",\"system\":\"y\",\"raw\":true,\"format\":\"json\"}");
    return 0;
}

/* ---------------------------------------------------------------------------------------------- */

static size_t sum; /* so that what is read is read */

static void walk_prompt(const struct ask_prompt *p)
{
    require(p->chat == (p->msgs != NULL), "a chat has messages");
    require(p->n_msgs <= ASK_MESSAGES_MAX, "messages have a limit");
    require(p->n_msgs + p->n_ids > 0 || p->text, "a prompt has something");
    for (size_t i = 0; i < p->n_msgs; i++) {
        const char *role = p->msgs[i].role;

        require(strcmp(role, "system") == 0 || strcmp(role, "user") == 0 ||
                    strcmp(role, "assistant") == 0 || strcmp(role, "calls") == 0 ||
                    strcmp(role, "tool") == 0 || (strcmp(role, "tools") == 0 && i == 0),
                "a role that templates know");
        sum += strlen(p->msgs[i].text);
    }
    for (size_t i = 0; i < p->n_ids; i++)
        sum += p->ids[i];
    if (p->text)
        require(strlen(p->text) == p->len, "a text's length");
}

static void walk(const struct ask *a)
{
    require(a->n >= 1 && a->n_prompts * a->n <= ASK_CHOICES_MAX, "answers have a limit");
    require(a->sampling.n_stop <= ASK_STOPS_MAX, "stops have a limit");
    require(a->sampling.temperature >= 0 && a->sampling.temperature <= 100, "a temperature");
    require(a->sampling.top_p >= 0 && a->sampling.top_p <= 1, "a share");
    require(!a->policy.memory || a->policy.memory == &a->memory, "memory of the ask's own");
    for (size_t i = 0; i < a->n_prompts; i++)
        walk_prompt(&a->prompts[i]);
    require(!a->must_call || a->n_tools > 0, "what must be called is there");
    require(a->n_tools == 0 || strcmp(a->prompts->msgs->role, "tools") == 0, "tools are offered");
    for (uint32_t i = 0; i < a->sampling.n_stop; i++)
        require(a->sampling.stop[i][0] != '\0', "a stop ends something");
    if (a->model)
        sum += strlen(a->model);
    if (a->memory.adapter)
        sum += strlen(a->memory.adapter);
}

static void check_body(unsigned reader, const char *body, size_t len)
{
    struct problem p = { 0 };
    struct ask a;

    ask_init(&a);
    if (field_parse(body, len, &a.root, &p) == 0 && readers[reader % N_READERS](&a, &p) == 0) {
        require(p.kind == PROBLEM_NONE, "what is taken has no problem");
        walk(&a);
    } else {
        require(p.text[0] && problem_status(&p) == 400, "what is refused has a sentence");
        require(!strpbrk(p.text, "\033\n\r\x7f"), "which is a line that nothing obeys");
    }
    ask_fini(&a);
}

static void check_headers(const char *text)
{
    const struct conf c = { .hosts = "a.test", .origins = "https://a.test", .api_keys = "x" };
    struct guard_key key = { "me", "12345678" };
    const struct guard g = { &c, &key, 1 };
    const char *who = guard_who(&g, text, NULL);

    require(!who || strstr(text, "12345678"), "a key is the key");
    require(!guard_who(&g, NULL, text) || strcmp(text, "12345678") == 0, "in either header");
    sum += guard_host(&g, text);
    require(!guard_origin(&g, text) || strstr(text, "://"), "a page has a scheme");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *text;

    if (len == 0)
        return 0;
    /* A copy of just this length: a byte too far is found. */
    text = malloc(len);
    require(text != NULL, "memory");
    memcpy(text, data + 1, len - 1);
    text[len - 1] = '\0';
    check_body(data[0], text, len - 1);
    check_headers(text);
    free(text);
    return 0;
}
