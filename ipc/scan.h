/* ipc/scan.h - the fields of protobuf bytes, one after the other, without a schema.
 *
 * For frames that protobuf-c refuses, as a whole or for what is in them: who sent one waits for an
 * answer with its id.
 *
 * Threads    pure.
 */
#ifndef IPC_SCAN_H
#define IPC_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct scan {
    const uint8_t *at, *end;
};

struct scan_field {
    uint32_t number;
    uint64_t value;       /* of a varint, else 0 */
    const uint8_t *bytes; /* of a string, bytes or a message, else NULL */
    size_t len;
};

/* False: there is none, or what comes next can't be read. */
bool scan_next(struct scan *s, struct scan_field *ret);

#endif
