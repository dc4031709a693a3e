/* train/gist_adapter.c - gist-adapter: makes, imports, marks and shows adapter files
 * (docs/adapter.md). */
#include "base/shown.h"
#include "base/std.h"
#include "engine/file/adapter.h"
#include "engine/file/model.h"
#include "engine/file/safetensors.h"
#include "train/file/adapter_mark.h"
#include "train/file/adapter_write.h"
#include "train/file/import.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Exit codes, as the help says. */
enum { OK, FAILED, USAGE };

static const char help[] =
    "usage: gist-adapter init [OPTIONS] -m MODEL.gguf FILE\n"
    "       gist-adapter import [OPTIONS] -m MODEL.gguf CHECKPOINT FILE\n"
    "       gist-adapter mark --better-than-fit \"N N ...\" -m MODEL.gguf FILE\n"
    "       gist-adapter show FILE\n\n"
    "init writes the untrained adapter of a model: its gists are the keys and values of the last\n"
    "tokens of their snippets. import makes one of a published gist model, an Activation Beacon or "
    "a\n"
    "plain Fine-KV: CHECKPOINT is its folder, or a safetensors file with a config.json beside it. "
    "mark\n"
    "writes into an adapter at which ratios it keeps more than the compressor fit, as gist-eval "
    "ppl\n"
    "measures it: automatic memory uses it there. show prints what is in an adapter file.\n\n"
    "  -m, --model FILE           the GGUF file that the adapter is for\n"
    "      --segment N            tokens of a segment that it was trained with (512; import: as\n"
    "                             config.json says)\n"
    "      --ratios \"N N ...\"     ratios that it was trained with (none; import: as it says)\n"
    "      --sinks N              first tokens that stay raw (4; import: as it says)\n"
    "      --better-than-fit \"N N ...\"\n"
    "                             ratios at which it was measured to be better; \"\": none\n"
    "  -f, --force                overwrite an existing file\n"
    "  -h, --help                 this text\n"
    "  -V, --version              the version\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage.\n";

/* What the command line says; NULL where it says nothing. Strings are argv's. */
struct wish {
    const char *model, *segment, *ratios, *sinks, *better;
    bool force;
};

/* Returns the code, so that callers end with it. */
static int fail(int code, const char *sentence)
{
    shown_line(stderr, "gist-adapter: %s", sentence);
    return code;
}

static int fail_write(int r, const struct why *why)
{
    shown_line(stderr, "gist-adapter: %s%s", why->text,
               r == -EEXIST ? "; --force overwrites it" : "");
    return FAILED;
}

/* What was written is read back as the daemon would read it. */
static int check(void *arg, const char *path, struct why *why)
{
    struct adapter *a = NULL;
    int r = adapter_open(path, arg, &a, why);

    adapter_close(a);
    return r;
}

/* --- init, import ----------------------------------------------------------------------------- */

/* No tensors: where an adapter has none the base model's matrices are meant, and the embedding is
 * that of the snippet's last token. */
static int init(const struct wish *w, struct model *m, const char *out)
{
    const struct adapter_write_pair pairs[] = {
        { "format", "gist-adapter" },
        { "version", "1" },
        { "base_model", m->digest },
        { "base_name", m->name },
        { "method", adapter_method_name(ADAPTER_FINE_KV) },
        { "mask", adapter_mask_name(ADAPTER_MEMORY_ONLY) },
        { "embedding", "last-token" },
        { "segment", w->segment ? w->segment : "512" },
        { "ratios", w->ratios ? w->ratios : "" },
        { "sinks", w->sinks ? w->sinks : "4" },
    };
    struct adapter_write file = { .pairs = pairs,
                                  .n_pairs = sizeof(pairs) / sizeof(*pairs),
                                  .check = check,
                                  .arg = m,
                                  .replace = w->force };
    struct why why = { "" };
    int r = adapter_write(out, &file, &why);

    if (r < 0)
        return fail_write(r, &why);
    shown_line(stdout, "%s: an untrained fine-kv adapter of %s", out, m->name);
    return OK;
}

/* What the command line does not say, the checkpoint's own configuration does. */
static int import(const struct wish *w, struct model *m, const char *from, const char *out)
{
    /* NULLs of the command line are "as the checkpoint says". */
    struct import in = { .from = from,
                         .model = m,
                         .out = out,
                         .replace = w->force,
                         .check = check,
                         .arg = m,
                         .segment = w->segment,
                         .ratios = w->ratios,
                         .sinks = w->sinks };
    struct why why = { "" };
    int r = import_run(&in, &why);

    if (r < 0)
        return fail_write(r, &why);
    shown_line(stdout, "%s: %s as a fine-kv adapter of %s", out, from, m->name);
    return OK;
}

/* An empty list takes the record out. */
static int mark(const struct wish *w, struct model *m, const char *path)
{
    struct why why = { "" };

    if (adapter_mark(path, "better_than_fit", *w->better ? w->better : NULL, check, m, &why) < 0)
        return fail(FAILED, why.text);
    if (*w->better)
        shown_line(stdout, "%s: better than fit at %s", path, w->better);
    else
        shown_line(stdout, "%s: better than fit at no ratio", path);
    return OK;
}

/* What init and mark have in common; import has a source besides. */
typedef int made(const struct wish *w, struct model *m, const char *path);

/* from NULL: by what, which needs no more than the model and the file. The model stays open while
 * the file is written and looked at. */
static int make(const struct wish *w, made *what, const char *from, const char *out)
{
    struct why why = { "" };
    struct model *m;
    int r;

    /* Before anything is opened. */
    if (!w->model)
        return fail(USAGE, "wants --model FILE, the model that the adapter is for.");
    if (model_open(w->model, NULL, NULL, &m, &why) < 0)
        return fail(FAILED, why.text);
    r = from ? import(w, m, from, out) : what(w, m, out);
    model_close(m);
    return r;
}

/* --- show ------------------------------------------------------------------------------------- */

/* 0: there is none. */
static uint64_t rows_of(const struct safetensors *s, unsigned layer, const char *p,
                        const char *kind)
{
    char name[64];
    const struct safetensors_tensor *t;

    (void)snprintf(name, sizeof(name), "layers.%u.%s.%s", layer, p, kind);
    /* NULL where the layer has none of this kind. */
    t = safetensors_find(s, name);
    return t ? t->dims[0] : 0;
}

/* What gists have of their own in place of a projection, in layers [first, end). */
static void show_layers(const struct safetensors *s, const char *p, unsigned first, unsigned end)
{
    uint64_t rank = rows_of(s, first, p, "a"), full = rows_of(s, first, p, "weight");

    printf("%-11s layers %u to %u: ", p, first, end - 1);
    /* full, rank and bias may come together. */
    fputs(full ? "a matrix of its own" : "the base model's matrix", stdout);
    if (rank)
        printf(" + rank %" PRIu64, rank);
    puts(rows_of(s, first, p, "bias") ? ", a bias of its own" : "");
}

/* By their ranks too: an adapter may have another one in each layer. */
static bool same_kind(const struct safetensors *s, const char *p, unsigned a, unsigned b)
{
    return rows_of(s, a, p, "weight") == rows_of(s, b, p, "weight") &&
           rows_of(s, a, p, "a") == rows_of(s, b, p, "a") &&
           rows_of(s, a, p, "bias") == rows_of(s, b, p, "bias");
}

/* Layers by the names of tensors; those that are alike side by side. */
static void show_projections(const struct safetensors *s)
{
    unsigned n_layers = 0, layer;

    for (size_t i = 0; i < safetensors_n(s); i++)
        /* By the names: the file says nowhere how many layers its model has. */
        if (sscanf(safetensors_at(s, i)->name, "layers.%u.", &layer) == 1 && layer >= n_layers)
            n_layers = layer + 1;
    for (unsigned i = 0; n_layers && i < ADAPTER_PROJECTION__N; i++) {
        const char *p = adapter_projection_name(i);

        /* Layers that are alike are one line: of 32 they mostly are. */
        for (unsigned first = 0, end; first < n_layers; first = end) {
            for (end = first + 1; end < n_layers && same_kind(s, p, first, end);)
                end++;
            show_layers(s, p, first, end);
        }
    }
    if (n_layers == 0)
        puts("projections the base model's");
}

/* Of the file alone, so that one can be looked at without its model. */
static int show(const char *path)
{
    static const char *const keys[] = { "format", "version", "base_model", "base_name",
                                        "method", "mask",    "embedding",  "segment",
                                        "ratios", "sinks",   "training",   "better_than_fit" };
    static const char *const types[] = { "F32", "F16", "BF16", "other" };
    struct safetensors *s;
    struct why why = { "" };
    uint64_t bytes = 0, values = 0;

    /* The header alone is read. */
    if (safetensors_open(path, &s, &why) < 0)
        return fail(FAILED, why.text);
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        const char *value = safetensors_meta(s, keys[i]);

        shown_line(stdout, "%-15s %s", keys[i], value ? value : "-");
    }
    show_projections(s);
    for (size_t i = 0; i < safetensors_n(s); i++) {
        const struct safetensors_tensor *t = safetensors_at(s, i);
        uint64_t n = 1;

        shown_write(stdout, SHOWN_LINE, t->name, strlen(t->name));
        /* In columns, as long as names are shorter than these. */
        printf("%*s %-5s", strlen(t->name) < 24 ? (int)(24 - strlen(t->name)) : 0, "",
               types[t->type]);
        for (uint32_t d = 0; d < t->n_dims; d++) {
            printf(" %" PRIu64, t->dims[d]);
            n *= t->dims[d];
        }
        putchar('\n');
        /* Of the tensors, without the header. */
        bytes += t->len;
        values += n;
    }
    printf("%zu tensors, %" PRIu64 " values, %" PRIu64 " bytes\n", safetensors_n(s), values, bytes);
    safetensors_close(s);
    return OK;
}

/* --- the command line ------------------------------------------------------------------------- */

static int run(const struct wish *w, int n, char *const *args)
{
    const char *command = n ? args[0] : "";

    /* By their number of arguments as well: one too many is a mistake. */
    if (strcmp(command, "init") == 0 && n == 2)
        return make(w, init, NULL, args[1]);
    if (strcmp(command, "import") == 0 && n == 3)
        return make(w, NULL, args[1], args[2]);
    if (strcmp(command, "mark") == 0 && n == 2 && w->better)
        return make(w, mark, NULL, args[1]);
    if (strcmp(command, "show") == 0 && n == 2)
        return show(args[1]);
    return fail(USAGE,
                "wants init FILE, import CHECKPOINT FILE, mark --better-than-fit RATIOS FILE "
                "or show FILE; see gist-adapter --help.");
}

/* -1: run the command; else the exit code. */
static int parse(int argc, char **argv, struct wish *w)
{
    static const struct option longs[] = {
        { "model", required_argument, NULL, 'm' },
        { "segment", required_argument, NULL, 's' },
        { "ratios", required_argument, NULL, 'r' },
        { "sinks", required_argument, NULL, 'k' },
        { "better-than-fit", required_argument, NULL, 'b' },
        { "force", no_argument, NULL, 'f' },
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },
        { NULL, 0, NULL, 0 },
    };
    int c;

    /* Sentences are ours. */
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":m:fhV", longs, NULL)) != -1) {
        switch (c) {
        case 'm':
            w->model = optarg;
            break;
        case 's':
            w->segment = optarg;
            break;
        case 'r':
            w->ratios = optarg;
            break;
        case 'k':
            w->sinks = optarg;
            break;
        case 'b':
            w->better = optarg;
            break;
        case 'f':
            w->force = true;
            break;
        case 'h':
            fputs(help, stdout);
            return OK;
        case 'V':
            puts("gist-adapter " GISTD_VERSION);
            return OK;
        default:
            shown_line(stderr,
                       c == ':' ? "gist-adapter: option %s needs a value."
                                : "gist-adapter: unknown option %s; see gist-adapter --help.",
                       argv[optind - 1]);
            return USAGE;
        }
    }
    return -1;
}

int main(int argc, char **argv)
{
    struct wish w = { .model = NULL };
    int r, err;

    /* Before any file: descriptors 0 to 2 are there then. */
    std_open();
    r = parse(argc, argv, &w);
    if (r < 0)
        r = run(&w, argc - optind, argv + optind);
    /* What was printed may not have arrived: a full disk, a closed pipe. */
    err = std_flush();
    if (err < 0)
        shown_line(stderr, "gist-adapter: cannot write the output: %s", strerror(-err));
    return err < 0 && r == OK ? FAILED : r;
}
