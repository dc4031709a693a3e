/* ipc/scan.c - see scan.h. What is read here was refused before: nothing of it is believed, and the
 * first thing that makes no sense ends it. */

#include "ipc/scan.h"

/* Wire types of protobuf. Groups (3, 4) are of proto2 alone, and nobody sends them. */
enum { TYPE_VARINT, TYPE_64, TYPE_BYTES, TYPE_32 = 5 };

/* Ten bytes at most, which is what 64 bits take. */
static bool get_varint(struct scan *s, uint64_t *ret)
{
    uint64_t v = 0;

    for (unsigned shift = 0; s->at < s->end && shift < 64; shift += 7) {
        uint8_t byte = *s->at++;

        v |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *ret = v;
            return true;
        }
    }
    return false;
}

/* A peer's length: compared with what is left, never added to a pointer before that. */
static bool skip(struct scan *s, uint64_t n)
{
    if (n > (uint64_t)(s->end - s->at))
        return false;
    s->at += n;
    return true;
}

bool scan_next(struct scan *s, struct scan_field *ret)
{
    struct scan_field f = { .bytes = NULL };
    uint64_t tag, n;

    /* A number 0 is no field, but protobuf-c skips it, and both have to see the same frame. */
    if (!get_varint(s, &tag) || tag >> 3 > UINT32_MAX)
        return false;
    f.number = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case TYPE_VARINT:
        if (!get_varint(s, &f.value))
            return false;
        break;
    case TYPE_BYTES:
        if (!get_varint(s, &n))
            return false;
        f.bytes = s->at;
        f.len = (size_t)n;
        if (!skip(s, n))
            return false;
        break;
    case TYPE_64:
    case TYPE_32:
        if (!skip(s, (tag & 7) == TYPE_64 ? 8 : 4))
            return false;
        break;
    default:
        return false;
    }
    *ret = f;
    return true;
}
