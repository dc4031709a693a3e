/* ctl/ctl_embed.c - gistctl embed: a row of numbers for each text. */
#include "ctl/ctl.h"
#include "ctl/ctl_json.h"
#include "ctl/ctl_opt.h"
#include "ctl/ctl_spans.h"

#include <stdlib.h>
#include <string.h>

static const struct ctl_opt_usage usage = {
    "embed [OPTIONS] [FILE...]",
    "Prints the embedding of each FILE's text (or of standard input's): one line of numbers, the\n"
    "mean of the model's hidden states behind its final norm. Texts that mean alike have a large\n"
    "cosine.\n"
};

struct embed {
    struct ctl_opt_list texts;
    bool lines, normalise, background, json;
    const char *pooling;
    struct ctl_text *files; /* (n_files) */
    size_t n_files;
    struct ctl_spans spans;
};

/* The file's text stays until all is embedded: spans point into it. */
static int add_file(struct embed *e, const char *path)
{
    struct ctl_text *t = &e->files[e->n_files++];
    int r = ctl_text_read(t, path);

    if (r == 0)
        r = e->lines ? ctl_spans_add_lines(&e->spans, t)
                     : ctl_spans_add(&e->spans, t->bytes, t->len);
    return r;
}

/* Those of --text, then files; standard input when there are neither. */
static int gather(struct embed *e, int argc, char **argv, int first)
{
    int r;

    e->files = calloc((size_t)(argc - first) + 1, sizeof(*e->files));
    if (!e->files)
        return ctl_fail(CTL_FAILED, "out of memory.");
    r = ctl_spans_add_list(&e->spans, &e->texts);
    for (int i = first; r == 0 && i < argc; i++)
        r = add_file(e, argv[i]);
    if (r == 0 && e->texts.n == 0 && first == argc)
        r = add_file(e, "-");
    return r;
}

static void print_json(const struct gist_embeddings *all)
{
    struct ctl_json j = { .out = stdout };

    ctl_json_open(&j, NULL, '{');
    ctl_json_open(&j, "embeddings", '[');
    for (size_t i = 0; i < all->n; i++) {
        ctl_json_open(&j, NULL, '{');
        ctl_json_u64(&j, "tokens", all->n_tokens[i]);
        ctl_json_open(&j, "embedding", '[');
        for (size_t k = 0; k < all->n_embd; k++)
            ctl_json_float(&j, NULL, all->vectors[i * all->n_embd + k]);
        ctl_json_close(&j, ']');
        ctl_json_close(&j, '}');
    }
    ctl_json_close(&j, ']');
    ctl_json_usage(&j, "usage", &all->usage);
    ctl_json_close(&j, '}');
    fputc('\n', stdout);
}

static void print_text(const struct gist_embeddings *all)
{
    for (size_t i = 0; i < all->n; i++)
        for (size_t k = 0; k < all->n_embd; k++)
            printf("%.9g%c", (double)all->vectors[i * all->n_embd + k],
                   k + 1 < all->n_embd ? ' ' : '\n');
}

static int embed(gist_conn *c, const struct embed *e, enum gist_pooling pooling)
{
    const struct gist_embed_opts o = { .size = sizeof(o),
                                       .pooling = pooling,
                                       .priority =
                                           e->background ? GIST_BACKGROUND : GIST_INTERACTIVE,
                                       .flags = e->normalise ? GIST_NORMALISE : 0 };
    struct gist_embeddings *all = NULL;
    int r = gist_embed(c, e->spans.v, e->spans.n, &o, &all);

    if (r < 0)
        return ctl_fail_gist(c, r);
    if (e->json)
        print_json(all);
    else
        print_text(all);
    gist_embeddings_free(all);
    return 0;
}

static void fini(struct embed *e)
{
    for (size_t i = 0; i < e->n_files; i++)
        ctl_text_fini(&e->files[i]);
    free(e->files);
    ctl_spans_fini(&e->spans);
}

int ctl_embed(int argc, char **argv)
{
    struct embed e = { .pooling = "mean" };
    const struct ctl_opt opts[] = {
        { "text", 't', CTL_OPT_LIST, "TEXT", &e.texts, 0, 0, "embed this text; repeatable" },
        { "lines", 'l', CTL_OPT_FLAG, NULL, &e.lines, 0, 0,
          "each line of a FILE is a text of its own" },
        { "pooling", 'p', CTL_OPT_STRING, "KIND", &e.pooling, 0, 0,
          "mean of all tokens, or the last one's (mean)" },
        { "normalise", 'n', CTL_OPT_FLAG, NULL, &e.normalise, 0, 0, "scale to length 1" },
        { "background", 0, CTL_OPT_FLAG, NULL, &e.background, 0, 0,
          "let interactive requests go first" },
        { "json", 'j', CTL_OPT_FLAG, NULL, &e.json, 0, 0, "one object: embeddings, usage" },
    };
    gist_conn *c;
    int r, first;
    bool last;

    first = ctl_opt_parse(&usage, opts, sizeof(opts) / sizeof(opts[0]), argc, argv, &r);
    if (first < 0)
        return r;
    last = strcmp(e.pooling, "last") == 0;
    if (!last && strcmp(e.pooling, "mean") != 0)
        return ctl_fail(CTL_USAGE, "--pooling is mean or last, not \"%s\".", e.pooling);
    r = gather(&e, argc, argv, first);
    if (r == 0 && e.spans.n == 0)
        r = ctl_fail(CTL_FAILED, "there is no text to embed.");
    if (r == 0)
        r = ctl_connect(&c);
    if (r == 0) {
        ctl_interrupt_catch(c, true);
        r = embed(c, &e, last ? GIST_POOL_LAST : GIST_POOL_MEAN);
        ctl_interrupt_catch(NULL, false);
        gist_disconnect(c);
    }
    fini(&e);
    return r;
}
