/* ipc/plain.c - see plain.h. Numbers are varints, seven bits a byte and the lowest first; a set
 * high bit says that another byte follows. */

#include "ipc/plain.h"

#include <errno.h>
#include <string.h>

#define BYTES_MAX 48u /* four tags, four values of ten bytes at most, a length of 0 */
#define TAG_ID    (1u << 3)
#define TAG_BULK  (2u << 3)
#define TAG_LAST  (3u << 3)

static uint8_t *put_number(uint8_t *p, uint64_t v)
{
    for (; v >= 128; v >>= 7)
        *p++ = (uint8_t)(v | 128);
    *p++ = (uint8_t)v;
    return p;
}

/* NULL: it does not end, or has more than 9 bytes: those are rare, and protobuf-c knows what to do
 * with what does not fit. */
static const uint8_t *get_number(const uint8_t *p, const uint8_t *end, uint64_t *ret)
{
    uint64_t v = 0;

    for (unsigned shift = 0; p < end && shift < 63; shift += 7) {
        v |= (uint64_t)(*p & 127) << shift;
        if (*p++ < 128) {
            *ret = v;
            return p;
        }
    }
    return NULL;
}

/* A number of the head, if it is what comes next; 0 if not. */
static const uint8_t *get_field(const uint8_t *p, const uint8_t *end, uint8_t tag, uint64_t *ret)
{
    *ret = 0;
    return p && p < end && *p == tag ? get_number(p + 1, end, ret) : p;
}

/* Packed aside and copied: the destination is shared memory, whose reader must not see it half
 * written and from which nothing may be read back. */
int plain_pack(const struct plain *m, uint8_t *buf, size_t cap, size_t *ret_len)
{
    uint8_t bytes[BYTES_MAX], *p = bytes;
    size_t len;

    if (m->id)
        p = put_number(put_number(p, TAG_ID), m->id);
    if (m->bulk_len)
        p = put_number(put_number(p, TAG_BULK), m->bulk_len);
    if (m->last)
        p = put_number(put_number(p, TAG_LAST), 1);
    p = put_number(put_number(p, m->tag), 0);
    len = (size_t)(p - bytes);
    if (buf && len > cap)
        return -EMSGSIZE;
    if (buf)
        memcpy(buf, bytes, len);
    *ret_len = len;
    return 0;
}

/* The last byte is the length of the body, 0. What stands between the fields that are known must be
 * used up exactly: anything else is left to protobuf-c. *ret may be half filled where it is false.
 */
bool plain_unpack(const uint8_t *p, size_t len, struct plain *ret)
{
    const uint8_t *end;

    if (len == 0 || len > BYTES_MAX || p[len - 1] != 0)
        return false;
    end = p + len;
    p = get_field(p, end, TAG_ID, &ret->id);
    p = get_field(p, end, TAG_BULK, &ret->bulk_len);
    p = get_field(p, end, TAG_LAST, &ret->last);
    p = p ? get_number(p, end, &ret->tag) : NULL;
    return p && p == end - 1;
}
