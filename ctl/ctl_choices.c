#include "ctl/ctl_choices.h"

#include "ctl/ctl_json.h"
#include "ctl/ctl_spans.h"

/* Those of the options, then a file's lines, which lie in `lines`. */
struct list {
    struct ctl_spans spans;
    struct ctl_text lines;
};

bool ctl_choices_wanted(const struct ctl_choices_opts *o)
{
    return o->choices.n > 0 || o->file;
}

static int gather(const struct ctl_choices_opts *o, struct list *l)
{
    int r = ctl_spans_add_list(&l->spans, &o->choices);

    if (r == 0 && o->file)
        r = ctl_text_read(&l->lines, o->file);
    if (r == 0)
        r = ctl_spans_add_lines(&l->spans, &l->lines);
    if (r == 0 && l->spans.n == 0)
        r = ctl_fail(CTL_FAILED, "%s has no line to choose.", o->file);
    return r;
}

static double mean_of(const struct gist_choice *c)
{
    return c->sum / (double)c->n;
}

static void print_json(const struct gist_choices *all, const struct list *l)
{
    struct ctl_json j = { .out = stdout };

    ctl_json_open(&j, NULL, '{');
    ctl_json_open(&j, "choices", '[');
    for (size_t i = 0; i < all->n; i++) {
        const struct gist_choice *c = &all->choices[i];

        ctl_json_open(&j, NULL, '{');
        ctl_json_text(&j, "text", l->spans.v[i].at, l->spans.v[i].n);
        ctl_json_double(&j, "sum", c->sum);
        ctl_json_double(&j, "mean", mean_of(c));
        ctl_json_open(&j, "tokens", '[');
        for (size_t k = 0; k < c->n; k++)
            ctl_json_u64(&j, NULL, c->ids[k]);
        ctl_json_close(&j, ']');
        ctl_json_open(&j, "logprobs", '[');
        for (size_t k = 0; k < c->n; k++)
            ctl_json_float(&j, NULL, c->logprobs[k]);
        ctl_json_close(&j, ']');
        ctl_json_close(&j, '}');
    }
    ctl_json_close(&j, ']');
    ctl_json_u64(&j, "best", all->best);
    ctl_json_u64(&j, "best_mean", all->best_mean);
    ctl_json_usage(&j, "usage", &all->usage);
    ctl_json_close(&j, '}');
    fputc('\n', stdout);
}

/* The best by sum has a star, and by mean, where that is another one, a plus. */
static void print_text(const struct gist_choices *all, const struct list *l)
{
    printf("    %12s %12s %7s\n", "sum", "a token", "tokens");
    for (size_t i = 0; i < all->n; i++) {
        const struct gist_choice *c = &all->choices[i];
        char mark = i == all->best ? '*' : i == all->best_mean ? '+' : ' ';

        printf("  %c %12.6f %12.6f %7zu  ", mark, c->sum, mean_of(c), c->n);
        ctl_text_print(l->spans.v[i].at, l->spans.v[i].n);
        fputc('\n', stdout);
    }
}

/* As the beginning of an answer a choice stands behind the head of the assistant's turn. */
static int append(gist_session *s, const struct ctl_text *text, bool chat)
{
    const struct gist_message question = { "user", text->bytes };

    if (chat)
        return gist_append_chat(s, &question, 1, GIST_OPEN_ANSWER, NULL);
    return gist_append_text(s, text->bytes, text->len, 0, NULL);
}

static int score(gist_conn *c, const struct ctl_text *text, const struct ctl_choices_opts *o,
                 const struct list *l)
{
    const struct gist_policy policy = {
        .size = sizeof(policy), .segment = o->segment, .label = "score", .memory = o->memory
    };
    struct gist_choices *all = NULL;
    gist_session *s;
    int r = gist_open(c, &policy, &s);

    if (r < 0)
        return ctl_fail_gist(c, r);
    r = append(s, text, o->chat);
    if (r == 0)
        r = gist_score_choices(s, l->spans.v, l->spans.n, 0, &all);
    if (r < 0)
        r = ctl_fail_gist(c, r);
    else if (o->json)
        print_json(all, l);
    else
        print_text(all, l);
    gist_choices_free(all);
    gist_close(s);
    return r;
}

int ctl_choices_run(gist_conn *c, const struct ctl_text *text, const struct ctl_choices_opts *o)
{
    struct list l = { 0 };
    int r = gather(o, &l);

    if (r == 0 && text->len == 0)
        r = ctl_fail(CTL_FAILED, "there is no text that the choices could follow.");
    if (r == 0)
        r = score(c, text, o, &l);
    ctl_text_fini(&l.lines);
    ctl_spans_fini(&l.spans);
    return r;
}
