/* The layout is in store/record.h, its reasons in docs/store.md. Headers are built and read in
 * memory as a struct, since the host is little-endian (store/sum.h asserts it), and copied in and
 * out: a buffer needs no alignment for that. */
#include "store/record.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define TAIL 1u /* the one flag */

/* The fixed fields. The ids and the sums of the pages lie behind them, at offsets that follow from
 * n_tokens. */
struct header {
    char magic[8];
    uint32_t version, header_len;
    uint32_t page_bytes, kind, owner, flags;
    uint8_t scope[STORE_SCOPE_LEN];
    uint64_t before[2], own[2];
    uint32_t n_tokens, n_keys, n_pages, zero;
    uint64_t cost_ns, made_s;
    uint64_t sum[2];
};
_Static_assert(offsetof(struct header, version) == 8, "layout");
_Static_assert(offsetof(struct header, header_len) == 12, "layout");
_Static_assert(offsetof(struct header, page_bytes) == 16, "layout");
_Static_assert(offsetof(struct header, kind) == 20, "layout");
_Static_assert(offsetof(struct header, owner) == 24, "layout");
_Static_assert(offsetof(struct header, flags) == 28, "layout");
_Static_assert(offsetof(struct header, scope) == 32, "layout");
_Static_assert(offsetof(struct header, before) == 48, "layout");
_Static_assert(offsetof(struct header, own) == 64, "layout");
_Static_assert(offsetof(struct header, n_tokens) == 80, "layout");
_Static_assert(offsetof(struct header, n_keys) == 84, "layout");
_Static_assert(offsetof(struct header, n_pages) == 88, "layout");
_Static_assert(offsetof(struct header, zero) == 92, "layout");
_Static_assert(offsetof(struct header, cost_ns) == 96, "layout");
_Static_assert(offsetof(struct header, made_s) == 104, "layout");
_Static_assert(offsetof(struct header, sum) == 112, "layout");
_Static_assert(sizeof(struct header) == 128, "layout");
_Static_assert(sizeof(struct store_hash) == 16, "sums are copied as they are");

static const char magic[8] = { 'g', 'i', 's', 't', 'd', '-', 'k', 'v' };

/* Where the sums of pages begin. */
static uint32_t sums_off(uint32_t n_tokens)
{
    return (uint32_t)sizeof(struct header) + (n_tokens * 4 + 15) / 16 * 16;
}

/* No overflow: the callers have n_tokens <= STORE_TOKENS_MAX and n_pages <= RECORD_PAGES_MAX
 * checked, which make RECORD_HEADER_MAX at most. */
uint32_t record_header_len(uint32_t n_tokens, uint32_t n_pages)
{
    uint32_t len = sums_off(n_tokens) + n_pages * (uint32_t)sizeof(struct store_hash);

    return (len + RECORD_BLOCK - 1) / RECORD_BLOCK * RECORD_BLOCK;
}

uint64_t record_len(const struct record *r)
{
    return record_header_len(r->n_tokens, r->n_pages) + (uint64_t)r->n_pages * r->page_bytes;
}

/* Numbers alone, whoever says them: a file, or a caller of store_put. That ids and sums belong
 * together is for hashes to say. */
const char *record_wrong(const struct record *r)
{
    bool raw = r->key.kind == STORE_RAW;

    if (!raw && r->key.kind != STORE_PACKED)
        return "a kind that is none";
    if (r->n_tokens < 1 || r->n_tokens > STORE_TOKENS_MAX)
        return "a number of tokens that no segment has";
    if (r->n_pages < 1 || r->n_pages > RECORD_PAGES_MAX)
        return "a number of pages that no segment has";
    if (r->n_keys < 1 || r->n_keys > RECORD_KEYS_MAX)
        return "a number of keys that no segment has";
    if (r->page_bytes < RECORD_BLOCK || r->page_bytes > RECORD_PAGE_MAX ||
        r->page_bytes % RECORD_BLOCK != 0)
        return "pages that are no whole blocks";
    /* store_find gives parts of such a record away: token i is on page i / 16. */
    if (raw && r->n_keys == r->n_tokens &&
        r->n_pages != (r->n_tokens + STORE_PAGE_TOKENS - 1) / STORE_PAGE_TOKENS)
        return "other pages than its tokens need";
    return NULL;
}

/* The sum's own 16 bytes are left out, not taken as zeros: no copy is needed to check one. */
static struct store_hash sum_of(const void *header, uint32_t len)
{
    const size_t from = offsetof(struct header, sum), to = sizeof(struct header);

    return sum_two(header, from, (const char *)header + to, len - to);
}

void record_encode(const struct record *r, void *ret_header)
{
    uint32_t len = record_header_len(r->n_tokens, r->n_pages);
    struct header h = { .version = RECORD_FORMAT_VERS,
                        .header_len = len,
                        .page_bytes = r->page_bytes,
                        .kind = r->key.kind,
                        .owner = r->key.owner,
                        .flags = r->tail ? TAIL : 0,
                        .before = { r->key.before.lo, r->key.before.hi },
                        .own = { r->own.lo, r->own.hi },
                        .n_tokens = r->n_tokens,
                        .n_keys = r->n_keys,
                        .n_pages = r->n_pages,
                        .cost_ns = r->cost_ns,
                        .made_s = r->made_s };
    struct store_hash sum;
    char *to = ret_header;

    assert(!record_wrong(r));
    memcpy(h.magic, magic, sizeof(h.magic));
    memcpy(h.scope, r->key.scope, sizeof(h.scope));
    /* Also the padding: every byte up to header_len is under the sum (R1). */
    memset(to, 0, len);
    memcpy(to, &h, sizeof(h));
    memcpy(to + sizeof(h), r->ids, (size_t)r->n_tokens * sizeof(*r->ids));
    memcpy(to + sums_off(r->n_tokens), r->sums, (size_t)r->n_pages * sizeof(*r->sums));
    sum = sum_of(to, len);
    memcpy(to + offsetof(struct header, sum), &sum, sizeof(sum));
}

/* Asked before anything is verified, with the first block alone: it says how much is to be read.
 * header_len must be what the other two numbers make of it (R2), so a damaged file can't have us
 * read, or reserve, more than RECORD_HEADER_MAX. */
uint32_t record_claims(const void *bytes)
{
    struct header h;

    memcpy(&h, bytes, sizeof(h));
    if (memcmp(h.magic, magic, sizeof(magic)) != 0 || h.version != RECORD_FORMAT_VERS ||
        h.n_tokens < 1 || h.n_tokens > STORE_TOKENS_MAX || h.n_pages < 1 ||
        h.n_pages > RECORD_PAGES_MAX || h.header_len != record_header_len(h.n_tokens, h.n_pages))
        return 0;
    return h.header_len;
}

static int refuse(const char **ret_what, const char *what)
{
    *ret_what = what;
    return -EBADMSG;
}

/* The sum comes before any number is believed, but for those that record_claims bounded: they say
 * how far it reaches. *ret is written only when all is well. */
int record_decode(const void *header, size_t len, struct record *ret, const char **ret_what)
{
    const char *bytes = header, *wrong;
    struct store_hash sum;
    struct header h;
    struct record r;

    if (len < sizeof(h) || record_claims(bytes) == 0)
        return refuse(ret_what, "no header of this format");
    memcpy(&h, bytes, sizeof(h));
    if (len < h.header_len)
        return refuse(ret_what, "a header that was cut off");
    memcpy(&sum, h.sum, sizeof(sum));
    if (!sum_equal(sum, sum_of(bytes, h.header_len)))
        return refuse(ret_what, "a header that is not as it was written");
    if (h.flags & ~TAIL || h.zero != 0)
        return refuse(ret_what, "flags that this version does not know");
    r = (struct record){ .key = { .owner = h.owner,
                                  .before = { h.before[0], h.before[1] },
                                  .kind = (enum store_kind)h.kind },
                         .own = { h.own[0], h.own[1] },
                         .n_tokens = h.n_tokens,
                         .n_keys = h.n_keys,
                         .n_pages = h.n_pages,
                         .page_bytes = h.page_bytes,
                         .cost_ns = h.cost_ns,
                         .made_s = h.made_s,
                         .tail = (h.flags & TAIL) != 0,
                         .ids = (const uint32_t *)(const void *)(bytes + sizeof(h)),
                         .sums = (const void *)(bytes + sums_off(h.n_tokens)) };
    memcpy(r.key.scope, h.scope, sizeof(h.scope));
    wrong = record_wrong(&r);
    if (wrong)
        return refuse(ret_what, wrong);
    *ret = r;
    return 0;
}

struct store_hash record_hash(const uint8_t secret[SUM_SECRET_LEN], struct store_hash before,
                              const uint32_t *ids, uint32_t n)
{
    return sum_keyed(secret, &before, sizeof(before), ids, (size_t)n * sizeof(*ids));
}

/* Unlike record_hash this has all of the key in it: two owners, scopes or kinds that lead to the
 * same ids are two files. */
void record_name(const uint8_t secret[SUM_SECRET_LEN], const struct store_key *key,
                 const uint32_t *ids, uint32_t n, char ret[RECORD_NAME])
{
    struct {
        uint8_t scope[STORE_SCOPE_LEN];
        struct store_hash before;
        uint32_t owner, kind;
    } k = { .before = key->before, .owner = key->owner, .kind = key->kind };

    _Static_assert(sizeof(k) == 40, "no padding is hashed");
    memcpy(k.scope, key->scope, sizeof(k.scope));
    sum_text(sum_keyed(secret, &k, sizeof(k), ids, (size_t)n * sizeof(*ids)), ret);
}
