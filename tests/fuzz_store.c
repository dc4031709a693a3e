/* Fuzzes what the store reads from its files: any bytes are no record, or are one whose ids and
 * sums lie inside them, whose numbers can be, and which encodes to the same bytes again. Run by
 * tests/run-fuzz.
 *
 * An input is a header; its checksum is made right first (a fuzzer finds none), so that what stands
 * behind that check is reached. The file of what was written in a day is read from the same bytes.
 */
#include "store/budget.h"
#include "store/record.h"
#include "tests/support/fuzz_seeds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUM_OFF 112u
#define FIXED   128u

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(int yes, const char *what)
{
    if (!yes) {
        fprintf(stderr, "not so: %s\n", what);
        abort();
    }
}

static void put_seed(const char *dir, const char *name, uint32_t n, enum store_kind kind)
{
    static uint32_t ids[STORE_TOKENS_MAX];
    static struct store_hash sums[RECORD_PAGES_MAX];
    static uint8_t header[RECORD_HEADER_MAX];
    struct record r = { .key = { .kind = kind, .owner = 1000 },
                        .n_tokens = n,
                        .n_keys = n,
                        .n_pages = (n + 15) / 16,
                        .page_bytes = 4096,
                        .ids = ids,
                        .sums = sums };

    record_encode(&r, header);
    fuzz_seeds_put(dir, name, header, record_header_len(r.n_tokens, r.n_pages));
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *dir = fuzz_seeds_dir(*argc, *argv);

    if (dir) {
        put_seed(dir, "small", 20, STORE_RAW);
        put_seed(dir, "packed", 256, STORE_PACKED);
        put_seed(dir, "large", STORE_TOKENS_MAX, STORE_RAW);
    }
    return 0;
}

static uint32_t total(const struct record *r)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < r->n_tokens; i++)
        sum += r->ids[i];
    for (uint32_t i = 0; i < r->n_pages; i++)
        sum += (uint32_t)r->sums[i].lo;
    return sum;
}

static void try_record(uint8_t *bytes, size_t len)
{
    struct record r;
    const char *what = NULL;
    int err = record_decode(bytes, len, &r, &what);
    uint8_t *again;

    require(err == 0 || what, "what is refused has a reason");
    if (err < 0)
        return;
    require(record_wrong(&r) == NULL, "its numbers can be");
    require(record_claims(bytes) <= len && record_claims(bytes) <= RECORD_HEADER_MAX,
            "the header is there");
    require(record_len(&r) > RECORD_HEADER_MIN, "it has pages");
    (void)!total(&r);
    again = aligned_alloc(RECORD_BLOCK, RECORD_HEADER_MAX);
    record_encode(&r, again);
    require(memcmp(again, bytes, FIXED - 16) == 0, "it encodes to what it was");
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    /* In a block of its size, so that a read behind it is seen. */
    uint8_t *bytes = malloc(len ? len : 1);
    struct store_hash sum;
    struct budget b;

    memcpy(bytes, data, len);
    try_record(bytes, len);
    if (len >= RECORD_HEADER_MIN && record_claims(bytes) > 0 && record_claims(bytes) <= len) {
        sum = sum_two(bytes, SUM_OFF, bytes + FIXED, record_claims(bytes) - FIXED);
        memcpy(bytes + SUM_OFF, &sum, sizeof(sum));
        try_record(bytes, len);
    }
    free(bytes);
    if (len >= BUDGET_FILE) {
        (void)budget_load(&b, data);
        (void)budget_sum(&b, UINT64_MAX / 3600);
    }
    return 0;
}
