/* train/gist_adapter.c - gist-adapter: makes and shows adapter files (docs/adapter.md). */
#include "engine/adapter.h"
#include "engine/model.h"
#include "engine/safetensors.h"
#include "train/adapter_write.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { OK, FAILED, USAGE };

static const char help[] =
    "usage: gist-adapter init [OPTIONS] -m MODEL.gguf FILE\n"
    "       gist-adapter show FILE\n\n"
    "init writes the untrained adapter of a model: its gists are the keys and values of the last\n"
    "tokens of their snippets. show prints what is in an adapter file.\n\n"
    "  -m, --model FILE           the GGUF file that the adapter is for\n"
    "      --segment N            tokens of a segment that it will be trained with (512)\n"
    "      --ratios \"N N ...\"     ratios that it was trained with (none)\n"
    "  -f, --force                write over a file that is there\n"
    "  -h, --help                 this text\n"
    "  -V, --version              the version\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage.\n";

static int fail(int code, const char *sentence)
{
    fprintf(stderr, "gist-adapter: %s\n", sentence);
    return code;
}

/* --- init --------------------------------------------------------------------------------------- */

struct init {
    const char *model, *out, *segment, *ratios;
    bool force;
};

static int write_init(const struct init *in, const struct model *m)
{
    const struct adapter_write_pair pairs[] = {
        { "format", "gist-adapter" },
        { "version", "1" },
        { "base_model", m->digest },
        { "base_name", m->name },
        { "method", adapter_method_name(ADAPTER_FINE_KV) },
        { "mask", adapter_mask_name(ADAPTER_MEMORY_ONLY) },
        { "embedding", "last-token" },
        { "segment", in->segment },
        { "ratios", in->ratios },
        { "sinks", "4" },
    };
    struct adapter_write w = { .pairs = pairs,
                               .n_pairs = sizeof(pairs) / sizeof(*pairs),
                               .replace = in->force };
    struct why why = { "" };
    int r = adapter_write(in->out, &w, &why);

    if (r < 0)
        fprintf(stderr, "gist-adapter: %s%s\n", why.text,
                r == -EEXIST ? "; --force writes over it" : "");
    return r < 0 ? FAILED : OK;
}

/* What was written is read back as the daemon would read it. */
static int init_adapter(const struct init *in)
{
    struct adapter *a = NULL;
    struct why why = { "" };
    struct model *m;
    int r;

    if (!in->model)
        return fail(USAGE, "init wants --model FILE.");
    if (model_open(in->model, NULL, NULL, &m, &why) < 0)
        return fail(FAILED, why.text);
    r = write_init(in, m);
    if (r == OK && adapter_open(in->out, m, &a, &why) < 0) {
        (void)unlink(in->out);
        r = fail(FAILED, why.text);
    }
    if (r == OK)
        printf("%s: an untrained %s adapter of %s\n", in->out, adapter_method_name(a->method),
               m->name);
    adapter_close(a);
    model_close(m);
    return r;
}

/* --- show --------------------------------------------------------------------------------------- */

static int show(const char *path)
{
    static const char *const keys[] = { "format", "version",   "base_model", "base_name", "method",
                                        "mask",   "embedding", "segment",    "ratios",    "sinks" };
    static const char *const types[] = { "F32", "F16", "BF16", "other" };
    struct safetensors *s;
    struct why why = { "" };
    uint64_t bytes = 0;

    if (safetensors_open(path, &s, &why) < 0)
        return fail(FAILED, why.text);
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        const char *value = safetensors_meta(s, keys[i]);

        printf("%-11s %s\n", keys[i], value ? value : "-");
    }
    for (size_t i = 0; i < safetensors_n(s); i++) {
        const struct safetensors_tensor *t = safetensors_at(s, i);

        printf("%-24s %-5s", t->name, types[t->type]);
        for (uint32_t d = 0; d < t->n_dims; d++)
            printf(" %" PRIu64, t->dims[d]);
        putchar('\n');
        bytes += t->len;
    }
    printf("%zu tensors, %" PRIu64 " bytes\n", safetensors_n(s), bytes);
    safetensors_close(s);
    return OK;
}

/* --- the command line --------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        { "model", required_argument, NULL, 'm' },
        { "segment", required_argument, NULL, 's' },
        { "ratios", required_argument, NULL, 'r' },
        { "force", no_argument, NULL, 'f' },
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },
        { NULL, 0, NULL, 0 },
    };
    struct init in = { .segment = "512", .ratios = "" };
    const char *command;
    int c;

    while ((c = getopt_long(argc, argv, "m:fhV", longs, NULL)) != -1) {
        switch (c) {
        case 'm':
            in.model = optarg;
            break;
        case 's':
            in.segment = optarg;
            break;
        case 'r':
            in.ratios = optarg;
            break;
        case 'f':
            in.force = true;
            break;
        case 'h':
            fputs(help, stdout);
            return OK;
        case 'V':
            puts("gist-adapter " GISTD_VERSION);
            return OK;
        default:
            return USAGE;
        }
    }
    command = optind < argc ? argv[optind] : "";
    if (argc - optind != 2)
        return fail(USAGE, "wants a command and a FILE; see gist-adapter --help.");
    in.out = argv[optind + 1];
    if (strcmp(command, "init") == 0)
        return init_adapter(&in);
    if (strcmp(command, "show") == 0)
        return show(in.out);
    return fail(USAGE, "there are the commands init and show; see gist-adapter --help.");
}
