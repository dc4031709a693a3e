/* store/record.h - a record as bytes: what stands in front of its pages, and what may be believed.
 *
 *     0                   header_len                                     file's end
 *     +-------------------+-----------+-----------+--- .. --+-----------+
 *     | header            | page 0    | page 1    |         | page n-1  |
 *     +-------------------+-----------+-----------+--- .. --+-----------+
 *       n 4096-byte blocks  page_bytes each, a multiple of 4096
 *
 * The header, little-endian (asserted in record.c, drawn in docs/store.md):
 *
 *     0    8    12          16          20    24     28     32     48      64
 *     +----+----+-----------+-----------+-----+------+------+------+-------+--------
 *     |mag.|ver.|header_len | page_bytes|kind |owner |flags |scope | before| own ...
 *     +----+----+-----------+-----------+-----+------+------+------+-------+--------
 *     64  80        84      88       92    96       104     112   128            header_len
 *     +---+---------+-------+--------+-----+--------+-------+-----+-----+------+-----+
 *     |own| n_tokens| n_keys| n_pages|  0  | cost_ns| made_s| sum | ids | sums | 0.. |
 *     +---+---------+-------+--------+-----+--------+-------+-----+-----+------+-----+
 *
 *     sum   xxh3-128 of all of the header but these 16 bytes
 *     ids   n_tokens of 4 bytes, then zeros up to a multiple of 16
 *     sums  xxh3-128 of each page
 *
 * Invariants
 *   R1  Every byte of the header is under its sum, and every byte of a page under the page's.
 *   R2  A header has one length, which follows from n_tokens and n_pages: none can claim another.
 *
 * Threads    any.
 * Ownership  a decoded record's ids and sums lie in the bytes that it was decoded from.
 * Errors     record_decode: -EBADMSG, and what it found in a few words.
 */
#ifndef STORE_RECORD_H
#define STORE_RECORD_H

#include "store/sum.h"

#define RECORD_BLOCK       4096u
#define RECORD_PAGES_MAX   1024u
#define RECORD_KEYS_MAX    (1u << 20)
#define RECORD_PAGE_MAX    (64u << 20) /* bytes */
#define RECORD_HEADER_MAX  53248u      /* bytes, of STORE_TOKENS_MAX and RECORD_PAGES_MAX */
#define RECORD_HEADER_MIN  4096u
#define RECORD_NAME        SUM_TEXT
#define RECORD_FORMAT_VERS 1u

struct record {
    struct store_key key;
    struct store_hash own; /* of before and all ids */
    uint32_t n_tokens, n_keys, n_pages, page_bytes;
    uint64_t cost_ns, made_s;
    bool tail;
    const uint32_t *ids;           /* (n_tokens) */
    const struct store_hash *sums; /* (n_pages) */
};

/* NULL: such a record may be. Else what is wrong with its numbers. */
const char *record_wrong(const struct record *r);

uint32_t record_header_len(uint32_t n_tokens, uint32_t n_pages);
uint64_t record_len(const struct record *r); /* the file's */

/* Writes record_header_len bytes. */
void record_encode(const struct record *r, void *ret_header);

/* How long the header is that begins with these RECORD_HEADER_MIN bytes; 0: it is none. */
uint32_t record_claims(const void *bytes);
/* len: what is there of the header, at least all of it. */
int record_decode(const void *header, size_t len, struct record *ret, const char **ret_what);

struct store_hash record_hash(const uint8_t secret[SUM_SECRET_LEN], struct store_hash before,
                              const uint32_t *ids, uint32_t n);
/* The file's name: a record of the same key and ids has the same. */
void record_name(const uint8_t secret[SUM_SECRET_LEN], const struct store_key *key,
                 const uint32_t *ids, uint32_t n, char ret[RECORD_NAME]);

#endif
