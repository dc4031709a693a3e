/* ipc/plain.h - frames whose body has no field: Ping, Pong, GetStats.
 *
 * Such a frame is a few numbers, written and read here. protobuf-c takes 150 to 200 ns each way for
 * what takes 10, and an empty request is the least that any request costs. The bytes are protobuf's
 * all the same. Frames with their fields in another order go the long way, by protobuf-c.
 *
 *     [ 08 id ] [ 10 bulk_len ] [ 18 01 if last ] tag 00      a number that is 0 is left out;
 *                                                             tag: of the body's field
 *
 * Threads    pure.
 * Errors     0, -EMSGSIZE.
 */
#ifndef IPC_PLAIN_H
#define IPC_PLAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLAIN_TAG(field) ((uint64_t)(field) << 3 | 2) /* 2: bytes with a length, here 0 */

struct plain {
    uint64_t id, bulk_len, last, tag;
};

/* buf NULL: the size only. */
int plain_pack(const struct plain *m, uint8_t *buf, size_t cap, size_t *ret_len);

/* False: it is not one, or not in that order. */
bool plain_unpack(const uint8_t *frame, size_t len, struct plain *ret);

#endif
