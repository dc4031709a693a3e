/* examples/asker.c - asks about a document that another program has added, or is still adding.
 *
 *     asker NAME QUESTION
 *
 * The session begins with the document, which costs what nobody has computed yet: nothing but the
 * last few tokens when it was read before, and a wait when it is just being read.
 */
#include <gist.h>

#include <err.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    (void)arg;
    (void)ids;
    (void)n_ids;
    fwrite(text, 1, len, stdout);
    return fflush(stdout);
}

/* The name is there when its indexer's request has arrived: whoever is started beside it may be
 * quicker. */
static gist_session *begin_with(gist_conn *c, const char *name)
{
    const struct gist_policy policy = {
        .size = sizeof(policy), .label = "asker", .documents = &name, .n_documents = 1
    };
    gist_session *s;

    for (int tries = 0; gist_open(c, &policy, &s) < 0; tries++) {
        if (gist_error_code(c) != GIST_E_NOT_FOUND || tries == 600)
            errx(1, "%s", gist_error(c));
        usleep(100 * 1000);
    }
    return s;
}

int main(int argc, char **argv)
{
    const struct gist_sampling sampling = {
        .size = sizeof(sampling), .max_tokens = 40, .repeat_penalty = 1.1f, .repeat_last_n = 256
    };
    struct gist_usage usage, asked;
    struct gist_result result;
    struct gist_info info;
    gist_session *s;
    gist_conn *c;
    int r;

    if (argc != 3)
        errx(2, "usage: asker NAME QUESTION");
    if (gist_connect(NULL, "asker", &c) < 0)
        errx(1, "%s", gist_error(NULL));
    s = begin_with(c, argv[1]);
    gist_session_usage(s, &usage);
    printf("asker: began with %u tokens; %u computed, %u shared, %u restored, in %.2f s\n",
           usage.prompt_tokens, usage.computed_tokens, usage.shared_tokens, usage.restored_tokens,
           (double)usage.prompt_ns / 1e9);
    gist_info(c, &info);
    if (info.chat)
        r = gist_append_chat(s, &(struct gist_message){ "user", argv[2] }, 1, GIST_OPEN_ANSWER,
                             &asked);
    else
        r = gist_append_text(s, argv[2], strlen(argv[2]), 0, &asked);
    if (r < 0 || gist_generate(s, &sampling, on_text, NULL, &result) < 0)
        errx(1, "%s", gist_error(c));
    printf("\nasker: %u tokens written, the first after %.2f s\n", result.usage.generated_tokens,
           (double)(asked.prompt_ns + result.usage.first_token_ns) / 1e9);
    gist_disconnect(c);
    return 0;
}
