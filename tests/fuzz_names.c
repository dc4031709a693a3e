/* Fuzzes the files of saved sessions and documents: any bytes are refused with a sentence, or are a
 * file that is written again as the same bytes, and whose policy is possible here or refused with a
 * sentence. And names: what names_check lets through is UTF-8 without what a terminal obeys, and no
 * path. Run by tests/run-fuzz.
 */
#include "daemon/names.h"
#include "daemon/served.h"
#include "tests/support/fuzz_seeds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(bool yes, const char *what)
{
    if (!yes) {
        fprintf(stderr, "not so: %s\n", what);
        abort();
    }
}

/* --- seeds ------------------------------------------------------------------------------------ */

static void put_seed(const char *dir, const char *name, const struct names_file *f)
{
    void *bytes;
    size_t len;

    require(names_encode(f, &bytes, &len) == 0, "a seed");
    fuzz_seeds_put(dir, name, bytes, len);
    free(bytes);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const uint32_t ids[] = { 1, 2, 3 };
    static const struct session_mark marks[] = { { 1, CHAT_AT_NEXT }, { 3, CHAT_AT_OPEN_TURN } };
    struct names_file f = { .segment = 64,
                            .memory = { .has_ratio = true, .ratio = 8, .has_sinks = true },
                            .model = "a model",
                            .model_digest = "0123456789abcdef0123456789abcdef",
                            .label = "label",
                            .ids = ids,
                            .n_ids = 3,
                            .marks = marks,
                            .n_marks = 2 };
    const char *dir = fuzz_seeds_dir(*argc, *argv);

    if (!dir)
        return 0;
    put_seed(dir, "session", &f);
    f.memory.compressor = WIRE_FINE_KV;
    f.memory.has_budget = true;
    f.memory.budget = 500;
    f.has_pending = f.is_public = f.pin = true;
    f.n_marks = 0;
    put_seed(dir, "document", &f);
    f.n_ids = 0;
    put_seed(dir, "empty", &f);
    return 0;
}

/* ---------------------------------------------------------------------------------------------- */

static void check_policy(const struct names_file *f)
{
    struct model m = { .name = "fuzz" };
    struct served b = { .model = &m, .context_max = 1000 };
    struct policy p, again;
    struct why why = { "" };
    struct names_file g;

    memcpy(m.digest, f->model_digest, sizeof(m.digest));
    if (names_policy(f, &b, &p, &why) < 0) {
        require(why.text[0] != '\0', "a policy that is refused has a sentence");
        return;
    }
    names_describe(&b, &p, &g);
    require(names_policy(&g, &b, &again, &why) == 0, "a policy that was read can be read again");
    require(memcmp(&p, &again, sizeof(p)) == 0, "and is the same");
}

static void check_name(const uint8_t *data, size_t len)
{
    char name[NAMES_MAX + 3];
    struct why why = { "" };

    len = len < sizeof(name) - 1 ? len : sizeof(name) - 1;
    memcpy(name, data, len);
    name[len] = '\0';
    if (names_check(name, &why) < 0) {
        require(why.text[0] != '\0', "a name that is refused has a sentence");
        return;
    }
    require(strlen(name) >= 1 && strlen(name) <= NAMES_MAX && !strchr(name, '/'), "a name");
    for (const char *p = name; *p; p++)
        require((unsigned char)*p >= 0x20 && *p != 0x7f, "a name has no control characters");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct why why = { "" };
    struct names_file f;
    void *copy = malloc(len ? len : 1), *again;
    size_t n;

    require(copy != NULL, "memory");
    memcpy(copy, data, len); /* aligned, and its end is the end */
    if (names_decode(copy, len, &f, &why) == 0) {
        require(names_encode(&f, &again, &n) == 0, "memory");
        require(n == len && memcmp(again, data, len) == 0, "the same bytes");
        free(again);
        check_policy(&f);
    } else {
        require(why.text[0] != '\0', "a file that is refused has a sentence");
    }
    free(copy);
    check_name(data, len);
    return 0;
}
