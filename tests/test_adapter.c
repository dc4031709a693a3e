/* tests/test_adapter.c - safetensors headers and adapter files. Would catch: a file that is cut,
 * has a tensor outside of it, twice, of another shape or for another model, and is taken all the
 * same; a refusal that does not say what was found. What an adapter computes: tests/test_gists.c.
 */
#include "engine/file/adapter.h"
#include "engine/file/model.h"
#include "engine/file/safetensors.h"
#include "tests/support/file.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL   "tests/data/tiny_qwen2.gguf"
#define ADAPTER "tests/data/gist_qwen2.safetensors"

static struct model *model;

/* A file of this JSON and n bytes of data. free() it. */
static uint8_t *build(const char *json, size_t n, size_t *ret_len)
{
    size_t len = strlen(json);
    uint8_t *file = calloc(1, 8 + len + n);

    for (unsigned i = 0; i < 8; i++)
        file[i] = (uint8_t)(len >> (8 * i));
    memcpy(file + 8, json, len);
    *ret_len = 8 + len + n;
    return file;
}

/* --- headers ---------------------------------------------------------------------------------- */

static void reads_a_header(void **state)
{
    static const char json[] =
        "{ \"__metadata__\": {\"a\\\"b\\u0041\\u00e4\": \"v\\n\", \"empty\":\"\"},\n"
        "  \"two\":{\"shape\":[2,3],\"dtype\":\"F16\",\"data_offsets\":[4,16]},"
        "  \"one\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
        "  \"none\":{\"dtype\":\"I64\",\"shape\":[0,7],\"data_offsets\":[16,16]}}   ";
    const struct safetensors_tensor *t;
    struct why why = { "" };
    struct safetensors *s;
    uint8_t *file, got[12];
    size_t len;

    (void)state;
    file = build(json, 16, &len);
    for (unsigned i = 0; i < 16; i++)
        file[len - 16 + i] = (uint8_t)i;
    if (safetensors_open_mem(file, len, &s, &why) < 0)
        fail_msg("%s", why.text);
    assert_string_equal(safetensors_meta(s, "a\"bA\xc3\xa4"), "v\n");
    assert_string_equal(safetensors_meta(s, "empty"), "");
    assert_null(safetensors_meta(s, "b"));
    assert_int_equal(safetensors_n(s), 3);
    t = safetensors_find(s, "two");
    assert_non_null(t);
    assert_int_equal(t->type, SAFETENSORS_F16);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], 2);
    assert_int_equal(t->dims[1], 3);
    assert_int_equal(t->dims[2], 1);
    assert_int_equal(t->len, 12);
    assert_int_equal(safetensors_read(s, t, got, &why), 0);
    assert_int_equal(got[0], 4);
    assert_int_equal(got[11], 15);
    assert_int_equal(safetensors_find(s, "one")->len, 4);
    assert_null(safetensors_find(s, "three"));
    safetensors_close(s);
    free(file);
}

static void refuses_bad_headers(void **state)
{
    static const struct {
        const char *json;
        size_t n;
        const char *says;
    } bad[] = {
        { "", 0, "an object" },
        { "[]", 0, "an object" },
        { "{\"a\":1}", 0, "an object" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}", 4,
          "the end of an object" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}x", 4,
          "the end of the header" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8,
          "after the last tensor" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "begins at byte" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
          "its shape has 8 bytes" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "the file has 4" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,0]}}",
          0, "its shape has" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
          "a shorter list" },
        { "{\"a\":{\"dtype\":\"Q4\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "found dtype Q4" },
        { "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "has no dtype" },
        { "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "has no shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "has no data_offsets" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "two offsets" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4,
          "a whole number" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]}}", 4,
          "a smaller number" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":\"\"}}", 4,
          "unknown field x" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
          "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
          8, "is there twice" },
        { "{\"a\\x\":{}}", 0, "an escape" },
        { "{\"a\\u00\":{}}", 0, "a hexadecimal digit" },
        { "{\"a\\u0000\":{}}", 0, "without" },
        { "{\"a", 0, "the rest of a string" },
    };
    struct safetensors *s;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct why why = { "" };
        size_t len;
        uint8_t *file = build(bad[i].json, bad[i].n, &len);

        assert_int_equal(safetensors_open_mem(file, len, &s, &why), -EINVAL);
        if (!strstr(why.text, bad[i].says))
            fail_msg("%s: said %s, expected %s", bad[i].json, why.text, bad[i].says);
        free(file);
    }
}

/* Cut anywhere, it is refused. */
static void refuses_cut_files(void **state)
{
    char path[SCRATCH_PATH_MAX];
    struct adapter *a;
    size_t header, len;
    uint8_t *bytes = file_read(ADAPTER, &len);

    (void)state;
    header = 8 + (bytes[0] | (size_t)bytes[1] << 8);
    for (size_t n = 0; n < len; n += n < header + 20 ? 1 : 997) {
        struct why why = { "" };
        struct safetensors *s;

        assert_int_equal(safetensors_open_mem(bytes, n, &s, &why), -EINVAL);
        assert_true(why.text[0] != '\0');
        if (n % 50 == 0) {
            file_write(scratch_path(path, "cut.safetensors"), bytes, n);
            assert_int_equal(adapter_open(path, model, &a, &why), -EINVAL);
        }
    }
    free(bytes);
}

/* --- adapters --------------------------------------------------------------------------------- */

#define META                                                                                       \
    "{\"__metadata__\":{\"format\":\"gist-adapter\",\"version\":\"1\",\"base_model\":\"%s\","      \
    "\"base_name\":\"a name\",\"method\":\"fine-kv\",\"mask\":\"memory-only\","                    \
    "\"embedding\":\"last-token\",\"segment\":\"512\",\"ratios\":\"4 8\",\"sinks\":\"4\"}"

/* Writes META with the model's digest, `more` and n bytes of data; one text in it replaced by
 * another. */
static int open_with(const char *more, size_t n, const char *from, const char *to,
                     struct adapter **ret, struct why *why)
{
    char json[2048], path[SCRATCH_PATH_MAX], *at;
    size_t len = (size_t)snprintf(json, sizeof(json), META "%s}", model->digest, more);
    uint8_t *file;
    int r;

    why->text[0] = '\0';
    if (from) {
        at = strstr(json, from);
        assert_non_null(at);
        memmove(at + strlen(to), at + strlen(from), len + 1 - (size_t)(at - json) - strlen(from));
        memcpy(at, to, strlen(to));
    }
    file = build(json, n, &len);
    file_write(scratch_path(path, "an.adapter.safetensors"), file, len);
    free(file);
    r = adapter_open(path, model, ret, why);
    (void)remove(path);
    return r;
}

static void opens_an_adapter(void **state)
{
    struct why why;
    struct adapter *a;

    (void)state;
    if (open_with("", 0, NULL, NULL, &a, &why) < 0)
        fail_msg("%s", why.text);
    assert_string_equal(a->name, "an.adapter");
    assert_int_equal(strlen(a->digest), 32);
    assert_int_equal(a->method, ADAPTER_FINE_KV);
    assert_int_equal(a->mask, ADAPTER_MEMORY_ONLY);
    assert_int_equal(a->embedding, ADAPTER_EMBED_LAST);
    assert_int_equal(a->segment, 512);
    assert_int_equal(a->sinks, 4);
    assert_int_equal(a->n_ratios, 2);
    assert_int_equal(a->ratios[1], 8);
    assert_int_equal(a->n_better, 0); /* nothing is on record */
    assert_int_equal(a->n_gists, 1);
    for (uint32_t i = 0; i < model->n_embd; i++)
        assert_true(a->embd[i] == 0);
    assert_null(a->layers[1].p[ADAPTER_V].w.data);
    adapter_close(a);
    assert_int_equal(adapter_open(ADAPTER, model, &a, &why), 0);
    assert_int_equal(a->layers[0].p[ADAPTER_Q].a.n_rows, 3);
    assert_int_equal(a->layers[0].p[ADAPTER_Q].b.n_cols, 3);
    assert_non_null(a->layers[1].p[ADAPTER_K].bias);
    assert_null(a->layers[1].p[ADAPTER_V].bias);
    assert_null(a->layers[1].p[ADAPTER_O].w.data);
    adapter_close(a);
    assert_int_equal(adapter_open("tests/data/gist_qwen2_all.safetensors", model, &a, &why), 0);
    assert_int_equal(a->layers[0].p[ADAPTER_UP].w.n_rows, model->n_ff);
    assert_int_equal(a->layers[0].p[ADAPTER_DOWN].a.n_cols, model->n_ff);
    assert_int_equal(a->layers[1].p[ADAPTER_DOWN].w.n_cols, model->n_ff);
    assert_int_equal(a->layers[1].p[ADAPTER_O].b.n_rows, model->n_embd);
    adapter_close(a);
    if (open_with("", 0, "\"sinks\"", "\"better_than_fit\":\"4 16\",\"sinks\"", &a, &why) < 0)
        fail_msg("%s", why.text);
    assert_int_equal(a->n_better, 2);
    assert_int_equal(a->better[1], 16);
    adapter_close(a);
}

static void refuses_bad_adapters(void **state)
{
    static const struct {
        const char *more;
        size_t n;
        const char *from, *to, *says;
    } bad[] = {
        { "", 0, "gist-adapter", "lora", "found format lora" },
        { "", 0, "\"version\":\"1\"", "\"version\":\"2\"", "version 2" },
        { "", 0, "fine-kv", "finest", "method is finest" },
        { "", 0, "memory-only", "none", "mask is none" },
        { "", 0, "last-token", "first", "embedding is first" },
        { "", 0, "\"512\"", "\"many\"", "segment is \"many\"" },
        { "", 0, "\"512\"", "\"\"", "segment is absent" },
        { "", 0, "\"sinks\"", "\"better_than_fit\":\"1\",\"sinks\"", "better_than_fit is \"1\"" },
        { "", 0, "4 8", "4 8 100", "ratios is \"4 8 100\"" },
        { "", 0, "base_model", "base_mode1", "belongs to the model a name" },
        { ",\"gist.embedding\":{\"dtype\":\"F32\",\"shape\":[1,8],\"data_offsets\":[0,32]}", 32,
          NULL, NULL, "shape (1, 8)" },
        { ",\"gist.embedding\":{\"dtype\":\"I32\",\"shape\":[1,96],\"data_offsets\":[0,384]}", 384,
          NULL, NULL, "neither F32" },
        { ",\"layers.0.q.a\":{\"dtype\":\"F32\",\"shape\":[1,96],\"data_offsets\":[0,384]}", 384,
          NULL, NULL, "no layers.0.q.b" },
        { ",\"layers.0.down.weight\":{\"dtype\":\"F16\",\"shape\":[96,95],\"data_offsets\":[0,"
          "18240]}",
          18240, NULL, NULL, "layers.0.down.weight has shape (96, 95), expected (96, 96)" },
        { ",\"layers.0.o.a\":{\"dtype\":\"F32\",\"shape\":[1,96],\"data_offsets\":[0,384]}", 384,
          NULL, NULL, "no layers.0.o.b" },
        { ",\"layers.0.gates.a\":{\"dtype\":\"F32\",\"shape\":[1,96],\"data_offsets\":[0,384]}",
          384, NULL, NULL, "layers.0.gates.a has no meaning" },
        { ",\"layers.2.q.bias\":{\"dtype\":\"F32\",\"shape\":[96],\"data_offsets\":[0,384]}", 384,
          NULL, NULL, "layers.2.q.bias has no meaning" },
        { ",\"layers.0.o.bias\":{\"dtype\":\"F32\",\"shape\":[96],\"data_offsets\":[0,384]}", 384,
          NULL, NULL, "layers.0.o.bias has no meaning" },
        { ",\"layers.00.q.bias\":{\"dtype\":\"F32\",\"shape\":[96],\"data_offsets\":[0,384]}", 384,
          NULL, NULL, "written in another way" },
    };
    struct adapter *a;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct why why;

        assert_int_equal(open_with(bad[i].more, bad[i].n, bad[i].from, bad[i].to, &a, &why),
                         -EINVAL);
        if (!strstr(why.text, bad[i].says))
            fail_msg("case %zu: said %s, expected %s", i, why.text, bad[i].says);
        assert_non_null(strstr(why.text, "an.adapter"));
    }
}

/* What is hashed and what is read are one file, whatever is moved to its path meanwhile: it is
 * opened once (issue 16). */
static void opens_the_file_once(void **state)
{
    char path[SCRATCH_PATH_MAX], digest[DIGEST_LEN];
    _Alignas(struct inotify_event) char events[4096];
    XXH3_state_t *hash = XXH3_createState();
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), n_opens = 0;
    struct why why = { "" };
    struct adapter *a;
    ssize_t n;
    size_t len;
    uint8_t *bytes = file_read(ADAPTER, &len);

    (void)state;
    file_write(scratch_path(path, "once.safetensors"), bytes, len);
    assert_true(fd >= 0 && inotify_add_watch(fd, path, IN_OPEN | IN_ACCESS) >= 0);
    assert_int_equal(adapter_open(path, model, &a, &why), 0);
    n = read(fd, events, sizeof(events));
    assert_true(n > 0);
    for (const char *p = events; p < events + n;) {
        const struct inotify_event *event = (const void *)p;

        n_opens += event->mask & IN_OPEN ? 1 : 0; /* events in a row that are equal are one */
        p += sizeof(*event) + event->len;
    }
    assert_int_equal(n_opens, 1);
    XXH3_128bits_reset(hash);
    XXH3_128bits_update(hash, bytes, len);
    digest_put(hash, digest);
    assert_string_equal(a->digest, digest);
    XXH3_freeState(hash);
    adapter_close(a);
    close(fd);
    free(bytes);
}

/* It becomes shorter after its header was checked: a sentence, and no signal. */
static void says_that_a_file_shrank(void **state)
{
    char path[SCRATCH_PATH_MAX], digest[DIGEST_LEN];
    const struct safetensors_tensor *t;
    struct why why = { "" };
    struct safetensors *s;
    size_t len;
    uint8_t *bytes = file_read(ADAPTER, &len);

    (void)state;
    file_write(scratch_path(path, "shrinks.safetensors"), bytes, len);
    assert_int_equal(safetensors_open(path, &s, &why), 0);
    t = safetensors_at(s, 0);
    assert_int_equal(truncate(path, (off_t)(t->off + t->len / 2)), 0);
    assert_true(safetensors_read(s, t, bytes, &why) < 0);
    assert_non_null(strstr(why.text, "has become shorter while it was read"));
    why.text[0] = '\0';
    assert_true(safetensors_digest(s, digest, &why) < 0);
    assert_non_null(strstr(why.text, "has become shorter while it was read"));
    safetensors_close(s);
    free(bytes);
}

/* And does not wait for somebody who writes to it. */
static void refuses_a_fifo(void **state)
{
    char path[SCRATCH_PATH_MAX];
    struct why why = { "" };
    struct safetensors *s;

    (void)state;
    assert_int_equal(mkfifo(scratch_path(path, "fifo.safetensors"), 0600), 0);
    (void)alarm(120);
    assert_int_equal(safetensors_open(path, &s, &why), -EINVAL);
    (void)alarm(0);
    assert_non_null(strstr(why.text, "not a regular file"));
}

static int open_model(void **state)
{
    struct why why = { "" };

    (void)state;
    return model_open(MODEL, NULL, NULL, &model, &why);
}

static int close_model(void **state)
{
    (void)state;
    model_close(model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_header),          cmocka_unit_test(refuses_bad_headers),
        cmocka_unit_test(refuses_cut_files),       cmocka_unit_test(opens_an_adapter),
        cmocka_unit_test(refuses_bad_adapters),    cmocka_unit_test(opens_the_file_once),
        cmocka_unit_test(says_that_a_file_shrank), cmocka_unit_test(refuses_a_fifo),
    };

    return cmocka_run_group_tests(tests, open_model, close_model);
}
