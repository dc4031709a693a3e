/* Lines of other people's files: a field may be missing, or of another type. text_of and list_of
 * give NULL for both, and parse_object takes a layout only when all that its function needs is
 * there. */
#include "eval/example.h"

#include "eval/metrics.h"
#include "eval/words.h"

#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NDCG_AT 10u

void example_fini(struct example *e)
{
    for (size_t i = 0; i < e->n_wants; i++)
        free(e->wants[i]);
    free(e->wants);
    free(e->labels);
    free(e->text);
    free(e->question);
    *e = (struct example){ 0 };
}

/* --- fields ----------------------------------------------------------------------------------- */

/* NULL: it is not there, or not a text. */
static const char *text_of(struct json_object *o, const char *name)
{
    struct json_object *v;

    if (!json_object_object_get_ex(o, name, &v) || !json_object_is_type(v, json_type_string))
        return NULL;
    return json_object_get_string(v);
}

static struct json_object *list_of(struct json_object *o, const char *name)
{
    struct json_object *v;

    if (!json_object_object_get_ex(o, name, &v) || !json_object_is_type(v, json_type_array))
        return NULL;
    return v;
}

/* An empty want keeps the place, for labels go by it. */
static int add_want(struct example *e, const char *want)
{
    char **more = reallocarray(e->wants, e->n_wants + 1, sizeof(*more));

    if (!more)
        return -ENOMEM;
    e->wants = more;
    e->wants[e->n_wants] = strdup(want ? want : "");
    return e->wants[e->n_wants++] ? 0 : -ENOMEM;
}

/* All texts and numbers of a list. */
static int add_wants(struct example *e, struct json_object *list)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < json_object_array_length(list); i++)
        r = add_want(e, json_object_get_string(json_object_array_get_idx(list, i)));
    return r;
}

/* *ret is NULL on failure, for example_fini. */
__attribute__((format(printf, 2, 3))) static int put(char **ret, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(ret, fmt, ap);
    va_end(ap);
    if (n < 0)
        *ret = NULL;
    return n < 0 ? -ENOMEM : 0;
}

/* --- layouts ---------------------------------------------------------------------------------- */

/* Retrieval tasks of RULER want all outputs; questions about documents, qa_1 and qa_2, any. What
 * the model is to begin its answer with (answer_prefix) stands at the question's end: here the
 * answer is a turn of its own. */
static int parse_ruler(struct json_object *o, const char *name, struct example *e)
{
    const char *input = text_of(o, "input"), *prefix = text_of(o, "answer_prefix");
    const char *last = strrchr(input, '\n');
    int r = add_wants(e, list_of(o, "outputs"));

    e->metric = EXAMPLE_SUBEM;
    e->all = strncmp(name, "qa", 2) != 0 && !strstr(name, "/qa");
    e->max_tokens = 128;
    if (r == 0)
        r = put(&e->text, "%.*s", last ? (int)(last - input) : 0, input);
    if (r == 0)
        r = put(&e->question, "%s%s%s", last ? last + 1 : input, prefix ? " " : "",
                prefix ? prefix : "");
    return r;
}

/* What LongBench's sets are scored by; those that are not named: SubEM. */
static const struct longbench {
    const char *dataset;
    enum example_metric metric;
    const char *ask; /* before the input */
    const char *end; /* behind it */
} longbench[] = {
    { "narrativeqa", EXAMPLE_F1, "Answer in a few words: ", "" },
    { "qasper", EXAMPLE_F1, "Answer in a few words: ", "" },
    { "multifieldqa_en", EXAMPLE_F1, "Answer in a few words: ", "" },
    { "hotpotqa", EXAMPLE_F1, "Answer in a few words: ", "" },
    { "2wikimqa", EXAMPLE_F1, "Answer in a few words: ", "" },
    { "musique", EXAMPLE_F1, "Answer in a few words: ", "" },
    { "triviaqa", EXAMPLE_F1, "Answer in a few words: ", "" },
    { "gov_report", EXAMPLE_ROUGE_L, "Summarize the text above. ", "" },
    { "multi_news", EXAMPLE_ROUGE_L, "Summarize the text above. ", "" },
    { "qmsum", EXAMPLE_ROUGE_L, "", "" },
    { "samsum", EXAMPLE_ROUGE_L, "Summarize this dialogue: ", "" },
    { "lcc", EXAMPLE_EDIT, "", "Write the next line of the code above, and nothing else." },
    { "repobench-p", EXAMPLE_EDIT, "", "\nWrite the next line of this code, and nothing else." },
};

static const struct longbench *find_longbench(const char *dataset)
{
    static const struct longbench other = { "", EXAMPLE_SUBEM, "", "" };
    size_t n = strcspn(dataset, "."); /* "qasper_e" is LongBench-E's, of other lengths */

    if (n > 2 && memcmp(dataset + n - 2, "_e", 2) == 0)
        n -= 2;
    for (size_t i = 0; i < sizeof(longbench) / sizeof(longbench[0]); i++)
        if (words_same(dataset, n, longbench[i].dataset))
            return &longbench[i];
    return &other;
}

static int parse_longbench(struct json_object *o, const char *name, struct example *e)
{
    const char *dataset = text_of(o, "dataset"), *slash = strrchr(name, '/');
    const struct longbench *l = find_longbench(dataset ? dataset : slash ? slash + 1 : name);
    int r = add_wants(e, list_of(o, "answers"));

    e->metric = l->metric;
    e->max_tokens = l->metric == EXAMPLE_ROUGE_L ? 256 : 64;
    if (r == 0)
        r = put(&e->text, "%s", text_of(o, "context"));
    if (r == 0)
        r = put(&e->question, "%s%s%s", l->ask, text_of(o, "input"), l->end);
    return r;
}

/* One text of all documents: "[ID: 3] Title: text". */
static int put_documents(struct json_object *list, bool ids, char **ret)
{
    size_t len;
    FILE *f = open_memstream(ret, &len);

    if (!f)
        return -ENOMEM;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *d = json_object_array_get_idx(list, i);
        const char *title = text_of(d, "title"), *text = text_of(d, "text"),
                   *id = json_object_get_string(json_object_object_get(d, "id"));

        if (ids && id)
            (void)fprintf(f, "[ID: %s] ", id);
        (void)fprintf(f, "%s%s%s\n\n", title ? title : "", title ? ": " : "", text ? text : "");
    }
    return fclose(f) == 0 ? 0 : -ENOMEM;
}

static int parse_documents(struct json_object *o, struct example *e)
{
    int r = add_wants(e, list_of(o, "answers"));

    e->metric = EXAMPLE_SUBEM;
    e->max_tokens = 32;
    if (r == 0)
        r = put_documents(list_of(o, "ctxs"), false, &e->text);
    if (r == 0)
        r = put(&e->question, "Answer in a few words, by the documents above: %s",
                text_of(o, "question"));
    return r;
}

/* wants and labels side by side: the i-th id has the i-th relevance. */
static int parse_ranking(struct json_object *o, struct example *e)
{
    struct json_object *list = list_of(o, "ctxs");
    size_t n = json_object_array_length(list);
    int r = 0;

    e->metric = EXAMPLE_NDCG;
    e->max_tokens = 256;
    e->labels = calloc(n + 1, sizeof(*e->labels));
    if (!e->labels)
        return -ENOMEM;
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct json_object *d = json_object_array_get_idx(list, i);

        e->labels[i] = json_object_get_double(json_object_object_get(d, "label"));
        r = add_want(e, json_object_get_string(json_object_object_get(d, "id")));
    }
    if (r == 0)
        r = put_documents(list, true, &e->text);
    if (r == 0)
        r = put(&e->question,
                "Rank the documents above by how relevant they are to the query, the most relevant "
                "first. Answer with their ids alone, in the form: 3 > 1 > 2. The query: %s",
                text_of(o, "query"));
    return r;
}

static int parse_pairs(struct json_object *o, struct example *e)
{
    int r = add_want(e, text_of(o, "answer"));

    e->metric = EXAMPLE_SUBEM;
    e->max_tokens = 128;
    if (r == 0)
        r = put(&e->text, "%s", text_of(o, "context"));
    if (r == 0)
        r = put(&e->question,
                "Extract the value corresponding to the key \"%s\" in the JSON data above.",
                text_of(o, "question"));
    return r;
}

static int put_snippets(struct json_object *o, char **ret)
{
    struct json_object *list = list_of(o, "context");
    const char *imports = text_of(o, "import_statement");
    size_t len;
    FILE *f = open_memstream(ret, &len);

    if (!f)
        return -ENOMEM;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *s = json_object_array_get_idx(list, i);
        const char *path = text_of(s, "path"), *code = text_of(s, "snippet");

        (void)fprintf(f, "# %s\n%s\n\n", path ? path : "", code ? code : "");
    }
    (void)fprintf(f, "%s\n", imports ? imports : "");
    return fclose(f) == 0 ? 0 : -ENOMEM;
}

static int parse_repobench(struct json_object *o, struct example *e)
{
    int r = add_want(e, text_of(o, "next_line"));

    e->metric = EXAMPLE_EDIT;
    e->max_tokens = 64;
    if (r == 0)
        r = put_snippets(o, &e->text);
    if (r == 0)
        r = put(&e->question, "%s\n\nWrite the next line of this code, and nothing else.",
                text_of(o, "cropped_code"));
    return r;
}

/* The order matters: layouts are told apart by the fields that others lack. */
static int parse_object(struct json_object *o, const char *name, struct example *e)
{
    if (text_of(o, "input") && list_of(o, "outputs"))
        return parse_ruler(o, name, e);
    if (text_of(o, "context") && text_of(o, "input") && list_of(o, "answers"))
        return parse_longbench(o, name, e);
    if (list_of(o, "ctxs") && text_of(o, "question") && list_of(o, "answers"))
        return parse_documents(o, e);
    if (list_of(o, "ctxs") && text_of(o, "query"))
        return parse_ranking(o, e);
    if (text_of(o, "context") && text_of(o, "question") && text_of(o, "answer"))
        return parse_pairs(o, e);
    if (list_of(o, "context") && text_of(o, "cropped_code") && text_of(o, "next_line"))
        return parse_repobench(o, e);
    return -EINVAL;
}

int example_parse(const char *line, const char *name, struct example *ret)
{
    struct json_object *o = json_tokener_parse(line);
    struct example e = { 0 };
    int r = json_object_is_type(o, json_type_object) ? parse_object(o, name, &e) : -EINVAL;

    (void)json_object_put(o);
    if (r == 0 && e.n_wants == 0)
        r = -EINVAL;
    if (r < 0) {
        example_fini(&e);
        return r;
    }
    *ret = e;
    return 0;
}

/* --- scores ----------------------------------------------------------------------------------- */

/* Without fences and comments: models like to put them around. The first line that is code, as the
 * sets' own programs take it. */
static double score_code(const char *answer, const char *want)
{
    const char *line = answer;
    double score;
    char *copy;
    size_t len;

    for (;; line += len + 1) {
        len = strcspn(line, "\n");
        if (len > strspn(line, " \t\r") && !memchr(line, '`', len) && !memchr(line, '#', len) &&
            !memmem(line, len, "//", 2))
            break;
        if (!line[len])
            return metrics_edit("", want);
    }
    copy = strndup(line, len);
    score = copy ? metrics_edit(copy, want) : NAN;
    free(copy);
    return score;
}

static bool is_id(char c)
{
    return c && c != '>' && c != ' ' && c != '\n' && c != ',' && c != '[' && c != ']' && c != ':';
}

/* The ids in the order of the answer, each where it first is. */
static double score_ranking(const struct example *e, const char *answer)
{
    double *ranked = calloc(e->n_wants + 1, sizeof(*ranked)), score;
    bool *seen = calloc(e->n_wants + 1, sizeof(*seen));
    size_t n = 0, len;

    for (const char *at = answer; ranked && seen && *at; at += len ? len : 1) {
        for (len = 0; is_id(at[len]); len++)
            ;
        for (size_t i = 0; len > 0 && i < e->n_wants; i++) {
            if (seen[i] || !words_same(at, len, e->wants[i]))
                continue;
            seen[i] = true;
            ranked[n++] = e->labels[i];
        }
    }
    score = ranked && seen ? metrics_ndcg(ranked, n, e->labels, e->n_wants, NDCG_AT) : NAN;
    free(ranked);
    free(seen);
    return score;
}

static double score_one(const struct example *e, const char *answer, const char *want)
{
    switch (e->metric) {
    case EXAMPLE_F1:
        return metrics_f1(answer, want);
    case EXAMPLE_ROUGE_L:
        return metrics_rouge_l(answer, want).f1;
    case EXAMPLE_EDIT:
        return score_code(answer, want);
    case EXAMPLE_SUBEM:
    case EXAMPLE_NDCG:
        break;
    }
    return metrics_subem(answer, want);
}

double example_score(const struct example *e, const char *answer)
{
    double best = 0, sum = 0;

    if (e->metric == EXAMPLE_NDCG)
        return score_ranking(e, answer);
    for (size_t i = 0; i < e->n_wants; i++) {
        double v = score_one(e, answer, e->wants[i]);

        if (isnan(v))
            return v;
        sum += v;
        best = v > best ? v : best;
    }
    return e->all ? sum / (double)e->n_wants : best;
}
