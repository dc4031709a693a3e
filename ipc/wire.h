/* ipc/wire.h - requests and replies as plain structs, packed to and from protobuf frames.
 *
 * The one door to protobuf-c. The meaning of every field is in proto/gistd.proto; this header has
 * the same names. Strings are NUL-terminated.
 *
 * Unpacking takes its memory from a struct wire_scratch that the caller keeps: no malloc a frame,
 * and a frame that would need more than the scratch is refused.
 *
 * Threads    pure, but for the scratch: one thread a scratch.
 * Ownership  what an unpacked message points to lives in the scratch until its next use.
 * Errors     -EBADMSG (not such a message), -EMSGSIZE (a limit: of a string, a list, the frame or
 * the scratch), -ENOTSUP (a request, or a value of an enum, that this version does not know),
 *            -ENOMEM. Of a request that was refused the scratch has the sentence.
 */
#ifndef IPC_WIRE_H
#define IPC_WIRE_H

#include "base/why.h"
#include "ipc/wire_rep.h"
#include "ipc/wire_req.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_SCRATCH_BYTES (256u * 1024)
#define WIRE_STRING_MAX    4096u /* bytes of a string field but Text.text */

struct wire_scratch {
    uint8_t *mem;
    size_t len, used;
    struct why why; /* what is wrong with the last request that was refused, packing or unpacking */
};

int wire_scratch_open(struct wire_scratch *s, size_t len);
void wire_scratch_close(struct wire_scratch *s);

/* Packing: ask the size, reserve it in the channel, pack there. The scratch holds the generated
 * structs for a moment. */
int wire_req_pack(struct wire_scratch *s, const struct wire_req *r, uint8_t *buf, size_t cap,
                  size_t *ret_len); /* buf NULL: the size only */
int wire_rep_pack(struct wire_scratch *s, const struct wire_rep *r, uint8_t *buf, size_t cap,
                  size_t *ret_len);

int wire_req_unpack(struct wire_scratch *s, const uint8_t *frame, size_t len, struct wire_req *ret);

/* Of a frame that was refused, what an answer needs, as far as it can be read: id, bulk_len, kind
 * (WIRE_REQ__N: none that we know) and the session of an Append. All else is 0. */
void wire_req_head(const uint8_t *frame, size_t len, struct wire_req *ret);

int wire_rep_unpack(struct wire_scratch *s, const uint8_t *frame, size_t len, struct wire_rep *ret);

/* A reply that was packed with an id of 0 gets this one by these bytes in front of it. How many. */
#define WIRE_ID_MAX 11u
size_t wire_put_id(uint8_t *to, uint64_t id);

/* Bytes of bulk that fit beside a frame of a few numbers, at best: what one message carries. */
struct chan;
uint32_t wire_bulk_max(const struct chan *c);

const char *wire_error_name(enum wire_error e);   /* "context_length_exceeded" */
const char *wire_reason_name(enum wire_reason r); /* "end_of_text", "stop", "length", ... */

#endif
