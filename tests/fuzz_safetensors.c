/* Fuzzes the header of safetensors files: any bytes are refused with a sentence, or are a header
 * all of whose tensors lie inside the file, one after the other, each found by its name. Run by
 * tests/run-fuzz.
 *
 * An input is the header alone: its length and its data, of as many bytes as the first byte says,
 * are put around it, so that the fuzzer need not find out how long it is.
 */
#include "engine/file/safetensors.h"
#include "tests/support/fuzz_seeds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(int yes, const char *what)
{
    if (!yes) {
        fprintf(stderr, "not so: %s\n", what);
        abort();
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const seeds[] = {
        "\x10{\"__metadata__\":{\"format\":\"gist-adapter\",\"a\\u00e4\\n\":\"\"},"
        "\"layers.0.q.a\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[8,16]}}  ",
        "\x01{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}",
        "\x04{\"a\":{\"dtype\":\"F16\",\"shape\":[2,1,1,1],\"data_offsets\":[0,4]}}",
    };
    const char *dir = fuzz_seeds_dir(*argc, *argv);

    for (size_t i = 0; dir && i < sizeof(seeds) / sizeof(*seeds); i++) {
        char name[16];

        (void)snprintf(name, sizeof(name), "seed%zu", i);
        fuzz_seeds_put(dir, name, seeds[i], strlen(seeds[i]));
    }
    return 0;
}

static void walk(const struct safetensors *s, size_t file_len)
{
    static uint8_t bytes[256];
    uint64_t sum = 0;

    for (size_t i = 0; i < safetensors_n(s); i++) {
        const struct safetensors_tensor *t = safetensors_at(s, i);

        require(t->off <= file_len && t->len <= file_len - t->off, "a tensor in the file");
        require(safetensors_find(s, t->name) == t, "a tensor by its name");
        require(safetensors_read(s, t, bytes, NULL) == 0, "a tensor's bytes");
        sum += t->len;
    }
    require(sum <= sizeof(bytes), "no byte of two tensors");
    (void)safetensors_meta(s, "format");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    size_t n_data = len ? data[0] : 0, n = len ? len - 1 : 0;
    uint8_t *file = calloc(1, 8 + n + n_data);
    struct why why = { "" };
    struct safetensors *s;

    if (!file)
        return 0;
    for (unsigned i = 0; i < 8; i++)
        file[i] = (uint8_t)((uint64_t)n >> (8 * i));
    memcpy(file + 8, data + (len > 0), n);
    if (safetensors_open_mem(file, 8 + n + n_data, &s, &why) == 0) {
        require(why.text[0] == '\0', "no sentence without a refusal");
        walk(s, 8 + n + n_data);
        safetensors_close(s);
    } else {
        require(why.text[0] != '\0', "a sentence with every refusal");
    }
    if (safetensors_open_mem(data, len, &s, NULL) == 0) /* the bytes as they are, too */
        safetensors_close(s);
    free(file);
    return 0;
}
