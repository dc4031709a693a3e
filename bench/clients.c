/* bench/clients.c - clients that ask at the same moment, over the ring or over HTTP.
 *
 *     clients ring [-t] [-n TOKENS] [-g SCHEMA] PROMPT...
 *     clients http PORT PATH BODY...
 *
 * A file a client: over the ring its prompt, a text or with -t a user's message; over HTTP the body
 * of its request, which asks for a stream with its usage. -g: answers are JSON of that schema. The
 * daemon is that of $GISTD_SOCKET. All are connected before any asks. One JSON object:
 *
 *     {"first_ms": [..], "each_ms": [..], "prompt": [..], "tokens": [..],
 *      "window_tokens": N, "window_ms": N, "all_ms": N}
 *
 * first: from the request to the first text; each: from there on, a token. window: while all of
 * them write, from the last one's first text to the first one's end; all: to the last one's end.
 * Over HTTP events with a text are marked. The first one has one token, for what is guessed ahead
 * comes with a step of the model's, and the others share what the usage says is left: were the
 * first to have its share, an answer of few and long events would seem slow.
 */
#include "client/gist.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS_MAX 64
#define MARKS_MAX   65536u

struct mark {
    uint64_t ns;
    uint32_t n; /* tokens, or events, until then */
};

struct bench {
    bool ring, chat;
    uint16_t port;
    const char *path;
    struct gist_sampling sampling;
    pthread_barrier_t begin;
};

struct client {
    struct bench *bench;
    pthread_t thread;
    char *text; /* prompt or body */
    size_t len;
    uint64_t begin_ns, end_ns;
    struct mark *marks;
    size_t n_marks;
    uint32_t n, tokens, prompt; /* n: of the last mark */
};

static char *read_file(const char *path, size_t *ret_len)
{
    FILE *f = fopen(path, "r");
    char *text = NULL;
    ssize_t n;
    size_t cap = 0;

    if (!f)
        err(1, "clients: %s", path);
    n = getdelim(&text, &cap, '\0', f);
    if (n < 0)
        errx(1, "clients: %s is empty", path);
    (void)fclose(f);
    *ret_len = (size_t)n;
    return text;
}

static void mark(struct client *c, uint64_t ns, uint32_t n)
{
    if (n == 0 || c->n_marks == MARKS_MAX)
        return;
    c->n += n;
    c->marks[c->n_marks++] = (struct mark){ ns, c->n };
}

/* --- the ring --------------------------------------------------------------------------------- */

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    (void)text, (void)len, (void)ids;
    mark(arg, clock_ns(), (uint32_t)n_ids);
    return 0;
}

static void ask_ring(struct client *c)
{
    struct gist_message m = { "user", c->text };
    struct gist_policy policy = { .size = sizeof(policy) };
    struct gist_result result;
    struct gist_usage usage;
    gist_session *s;
    gist_conn *conn;
    int r;

    if (gist_connect(NULL, "clients", &conn) < 0)
        errx(1, "clients: %s", gist_error(NULL));
    (void)pthread_barrier_wait(&c->bench->begin);
    c->begin_ns = clock_ns();
    r = gist_open(conn, &policy, &s);
    if (r == 0)
        r = c->bench->chat ? gist_append_chat(s, &m, 1, GIST_OPEN_ANSWER, &usage)
                           : gist_append_text(s, c->text, c->len, GIST_SPECIAL, &usage);
    if (r == 0)
        r = gist_generate(s, &c->bench->sampling, on_text, c, &result);
    if (r < 0)
        errx(1, "clients: %s", gist_error(conn));
    c->end_ns = clock_ns();
    c->prompt = usage.prompt_tokens;
    c->tokens = result.usage.generated_tokens;
    gist_disconnect(conn);
}

/* --- HTTP ------------------------------------------------------------------------------------- */

struct stream {
    int fd;
    uint64_t ns; /* when what is in it came */
    char bytes[65536];
    size_t at, n;
};

static char next_byte(struct stream *s)
{
    ssize_t n;

    if (s->at == s->n) {
        n = read(s->fd, s->bytes, sizeof(s->bytes));
        if (n <= 0)
            errx(1, "clients: the answer ends in the middle");
        s->ns = clock_ns();
        s->at = 0;
        s->n = (size_t)n;
    }
    return s->bytes[s->at++];
}

/* Up to a '\n', which is left out, as is a '\r' before it. */
static size_t next_line(struct stream *s, char *line, size_t cap)
{
    size_t n = 0;
    char b;

    while ((b = next_byte(s)) != '\n')
        if (n + 1 < cap)
            line[n++] = b;
    if (n > 0 && line[n - 1] == '\r')
        n--;
    line[n] = '\0';
    return n;
}

static uint32_t number_of(const char *line, const char *name, uint32_t otherwise)
{
    const char *at = strstr(line, name);

    return at ? (uint32_t)strtoul(at + strlen(name), NULL, 10) : otherwise;
}

static bool has_text(const char *line)
{
    const char *at = strstr(line, "\"text\":\"");

    at = at ? at + 8 : strstr(line, "\"content\":\"");
    if (at && *at == '"')
        at += 11;
    return at && *at != '"';
}

/* An event of the stream; false: it was the last. */
static bool take_event(struct client *c, const char *line, uint64_t ns)
{
    if (strcmp(line, "data: [DONE]") == 0)
        return false;
    if (strncmp(line, "data: {\"error\"", 14) == 0)
        errx(1, "clients: %s", line);
    if (strncmp(line, "data: ", 6) != 0)
        return true;
    if (has_text(line))
        mark(c, ns, 1);
    c->tokens = number_of(line, "\"completion_tokens\":", c->tokens);
    c->prompt = number_of(line, "\"prompt_tokens\":", c->prompt);
    return true;
}

/* Chunks end where they like, so lines are put together across them. */
static void read_events(struct client *c, struct stream *s)
{
    static _Thread_local char line[1 << 16], size[64];
    size_t n = 0;

    for (;;) {
        (void)next_line(s, size, sizeof(size));
        for (size_t left = strtoul(size, NULL, 16); left > 0; left--) {
            char b = next_byte(s);

            if (b != '\n' && n + 1 < sizeof(line))
                line[n++] = b;
            if (b != '\n')
                continue;
            line[n] = '\0';
            n = 0;
            if (!take_event(c, line, s->ns))
                return;
        }
        (void)next_line(s, size, sizeof(size));
    }
}

static void read_head(struct stream *s)
{
    char line[4096];
    bool chunked = false;

    (void)next_line(s, line, sizeof(line));
    if (!strstr(line, " 200"))
        errx(1, "clients: %s", line);
    while (next_line(s, line, sizeof(line)) > 0)
        chunked |= strcasecmp(line, "Transfer-Encoding: chunked") == 0;
    if (!chunked)
        errx(1, "clients: the answer is no stream");
}

static void send_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);

        if (n <= 0)
            err(1, "clients: sending");
        bytes += n;
        len -= (size_t)n;
    }
}

static int connect_http(uint16_t port)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    const int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        err(1, "clients: port %u", port);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

static void ask_http(struct client *c)
{
    struct stream *s = calloc(1, sizeof(*s));
    char *request;
    int n;

    if (!s)
        err(1, "clients");
    s->fd = connect_http(c->bench->port);
    n = asprintf(&request,
                 "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 "Content-Length: %zu\r\n\r\n%s",
                 c->bench->path, c->len, c->text);
    if (n < 0)
        err(1, "clients");
    (void)pthread_barrier_wait(&c->bench->begin);
    c->begin_ns = clock_ns();
    send_all(s->fd, request, (size_t)n);
    read_head(s);
    read_events(c, s);
    c->end_ns = clock_ns();
    (void)close(s->fd);
    free(request);
    free(s);
}

/* --- all of them ------------------------------------------------------------------------------ */

static void *run(void *arg)
{
    struct client *c = arg;

    if (c->bench->ring)
        ask_ring(c);
    else
        ask_http(c);
    if (c->n_marks < 2)
        errx(1, "clients: an answer came in one piece");
    return NULL;
}

static uint64_t first_ns(const struct client *c)
{
    return c->marks[0].ns;
}

static uint64_t last_ns(const struct client *c)
{
    return c->marks[c->n_marks - 1].ns;
}

/* Tokens until a mark of this n. */
static double tokens_until(const struct client *c, uint32_t n)
{
    if (c->bench->ring || n == 0)
        return n;
    return 1 + (double)(c->tokens - 1) * (n - 1) / (c->n - 1);
}

static double each_ms(const struct client *c)
{
    double tokens = tokens_until(c, c->n) - tokens_until(c, c->marks[0].n);

    return (double)(last_ns(c) - first_ns(c)) / 1e6 / tokens;
}

/* Tokens that came behind `from`, until `to`. */
static double tokens_between(const struct client *c, uint64_t from, uint64_t to)
{
    uint32_t before = 0, until = 0;

    for (size_t i = 0; i < c->n_marks; i++) {
        if (c->marks[i].ns <= from)
            before = c->marks[i].n;
        if (c->marks[i].ns <= to)
            until = c->marks[i].n;
    }
    return tokens_until(c, until) - tokens_until(c, before);
}

static void print_list(const struct client *c, int n, const char *name,
                       double (*get)(const struct client *))
{
    printf("\"%s\": [", name);
    for (int i = 0; i < n; i++)
        printf("%s%.6g", i ? ", " : "", get(&c[i]));
    printf("], ");
}

static double first_ms(const struct client *c)
{
    return (double)(first_ns(c) - c->begin_ns) / 1e6;
}

static double prompt_of(const struct client *c)
{
    return c->prompt;
}

static double tokens_of(const struct client *c)
{
    return c->tokens;
}

static void report(const struct client *c, int n)
{
    uint64_t begin = UINT64_MAX, from = 0, to = UINT64_MAX, end = 0;
    double tokens = 0;

    for (int i = 0; i < n; i++) {
        begin = c[i].begin_ns < begin ? c[i].begin_ns : begin;
        from = first_ns(&c[i]) > from ? first_ns(&c[i]) : from;
        to = last_ns(&c[i]) < to ? last_ns(&c[i]) : to;
        end = c[i].end_ns > end ? c[i].end_ns : end;
    }
    for (int i = 0; i < n && from < to; i++)
        tokens += tokens_between(&c[i], from, to);
    printf("{");
    print_list(c, n, "first_ms", first_ms);
    print_list(c, n, "each_ms", each_ms);
    print_list(c, n, "prompt", prompt_of);
    print_list(c, n, "tokens", tokens_of);
    printf("\"window_tokens\": %.1f, \"window_ms\": %.3f, \"all_ms\": %.3f}\n", tokens,
           from < to ? (double)(to - from) / 1e6 : 0, (double)(end - begin) / 1e6);
}

static int usage(void)
{
    (void)fprintf(stderr, "usage: clients ring [-t] [-n TOKENS] [-g SCHEMA] PROMPT...\n"
                          "       clients http PORT PATH BODY...\n");
    return 2;
}

static int read_options(struct bench *b, int argc, char **argv)
{
    struct gist_sampling *s = &b->sampling;
    int o;

    *s = (struct gist_sampling){ .size = sizeof(*s), .ignore_eog = 1 };
    while ((o = getopt(argc, argv, "+tn:g:")) != -1) {
        if (o == 't') {
            b->chat = true;
        } else if (o == 'n') {
            s->max_tokens = (uint32_t)strtoul(optarg, NULL, 10);
        } else if (o == 'g') {
            s->grammar = GIST_JSON_SCHEMA;
            s->grammar_text = read_file(optarg, &s->grammar_len);
            s->ignore_eog = 0; /* the grammar says where it ends */
        } else {
            return -1;
        }
    }
    return optind;
}

int main(int argc, char **argv)
{
    static struct client c[CLIENTS_MAX];
    struct bench b = { .ring = argc > 1 && strcmp(argv[1], "ring") == 0 };
    int first = 3, n;

    if (argc < 3 || (!b.ring && (argc < 4 || strcmp(argv[1], "http") != 0)))
        return usage();
    if (b.ring) {
        first = read_options(&b, argc - 1, argv + 1);
    } else {
        b.port = (uint16_t)strtoul(argv[2], NULL, 10);
        b.path = argv[3];
    }
    if (first < 0 || argc - 1 - first < 1 || argc - 1 - first > CLIENTS_MAX)
        return usage();
    argv += 1 + first;
    n = argc - 1 - first;
    if (pthread_barrier_init(&b.begin, NULL, (unsigned)n) != 0)
        err(1, "clients");
    for (int i = 0; i < n; i++) {
        c[i].bench = &b;
        c[i].text = read_file(argv[i], &c[i].len);
        c[i].marks = calloc(MARKS_MAX, sizeof(*c[i].marks));
        if (!c[i].marks || pthread_create(&c[i].thread, NULL, run, &c[i]) != 0)
            err(1, "clients");
    }
    for (int i = 0; i < n; i++)
        (void)pthread_join(c[i].thread, NULL);
    report(c, n);
    return 0;
}
