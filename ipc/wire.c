/* ipc/wire.c - what all messages share: the scratch, packing and unpacking by protobuf-c, names.
 *
 * A message exists three times: as the plain struct that the rest of the program knows, as
 * protobuf-c's struct, and as bytes. wire_req.c, wire_rep.c and wire_stats.c go between the first
 * two, this file between the last two. protobuf-c's structs live in the scratch, so that no
 * message, however many fields a peer has packed into it, takes memory from the heap. */

#include "ipc/wire_pb.h"

#include "ipc/chan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((int)WIRE_E_BUSY == (int)GISTD__ERROR__CODE__BUSY, "enum");
_Static_assert((int)WIRE_E_LIMIT == (int)GISTD__ERROR__CODE__LIMIT, "enum");
_Static_assert((int)WIRE_E_NO_MEMORY == (int)GISTD__ERROR__CODE__NO_MEMORY, "enum");
_Static_assert((int)WIRE_E_DEADLINE == (int)GISTD__ERROR__CODE__DEADLINE_EXCEEDED, "enum");
_Static_assert((int)WIRE_E_STORAGE == (int)GISTD__ERROR__CODE__STORAGE, "enum");
_Static_assert((int)WIRE_REASON_POOL_FULL == (int)GISTD__DONE__REASON__POOL_FULL, "enum");

/* --- scratch ---------------------------------------------------------------------------------- */

#define SCRATCH_ALIGN 16u
#define OVERFLOWED    SIZE_MAX /* of wire_scratch.used: something did not fit */

int wire_scratch_open(struct wire_scratch *s, size_t len)
{
    *s = (struct wire_scratch){ .mem = malloc(len) };
    if (!s->mem)
        return -ENOMEM;
    s->len = len;
    return 0;
}

void wire_scratch_close(struct wire_scratch *s)
{
    if (!s)
        return;
    free(s->mem);
    *s = (struct wire_scratch){ 0 };
}

/* ProtobufCAllocator's two calls. Once something did not fit nothing more does: protobuf-c says
 * "no" in the same way to what is malformed and to what is too large, and `used` tells the two
 * apart. */
static void *scratch_alloc(void *data, size_t len)
{
    struct wire_scratch *s = data;
    void *p;

    if (s->used == OVERFLOWED || len > s->len - s->used) {
        s->used = OVERFLOWED;
        return NULL;
    }
    p = s->mem + s->used;
    len = (len + SCRATCH_ALIGN - 1) & ~(size_t)(SCRATCH_ALIGN - 1);
    s->used = len > s->len - s->used ? s->len : s->used + len;
    return p;
}

/* The next message's reset frees all. */
static void scratch_free(void *data, void *p)
{
    (void)data;
    (void)p;
}

static ProtobufCAllocator scratch_allocator(struct wire_scratch *s)
{
    return (ProtobufCAllocator){ scratch_alloc, scratch_free, s };
}

void wire_scratch_reset(struct wire_scratch *s)
{
    s->used = 0;
    s->why.text[0] = '\0';
}

/* n may be a peer's: divided, so that the product cannot wrap. */
void *wire_scratch_array(struct wire_scratch *s, size_t n, size_t size)
{
    return n > s->len / size ? NULL : scratch_alloc(s, n * size);
}

void *wire_scratch_list(struct wire_scratch *s, size_t n, size_t size)
{
    char *all = wire_scratch_array(s, n, size);
    void **list = wire_scratch_array(s, n, sizeof(*list));

    if (!all || !list)
        return NULL;
    for (size_t i = 0; i < n; i++)
        list[i] = all + i * size;
    return list;
}

/* The size first, since the caller reserves room by it; the same message has the same size in the
 * second call. */
int wire_pack_message(const ProtobufCMessage *m, uint8_t *buf, size_t cap, size_t *ret_len)
{
    size_t len = protobuf_c_message_get_packed_size(m);

    if (len > CHAN_FRAME_MAX || (buf && len > cap))
        return -EMSGSIZE;
    if (buf)
        protobuf_c_message_pack(m, buf);
    *ret_len = len;
    return 0;
}

/* protobuf-c has copied the strings; what a frame may contain is bounded by its length, what the
 * copies take by the scratch. */
ProtobufCMessage *wire_unpack_message(const ProtobufCMessageDescriptor *d, struct wire_scratch *s,
                                      const uint8_t *frame, size_t len, int *ret_err)
{
    ProtobufCAllocator alloc = scratch_allocator(s);
    ProtobufCMessage *m;

    wire_scratch_reset(s);
    if (len > CHAN_FRAME_MAX) {
        *ret_err = -EMSGSIZE;
        return NULL;
    }
    m = protobuf_c_message_unpack(d, &alloc, len, frame);
    if (!m)
        *ret_err = s->used == OVERFLOWED ? -EMSGSIZE : -EBADMSG;
    return m;
}

/* More than a frame of a few numbers takes. A chat's frame is longer, but its sender cuts the bulk
 * to a part of this. */
#define BULK_FRAME_MAX 256u

uint32_t wire_bulk_max(const struct chan *c)
{
    return chan_bulk_max(c, BULK_FRAME_MAX);
}

/* protobuf takes the last one that it finds of a field: there is none behind this one. */
size_t wire_put_id(uint8_t *to, uint64_t id)
{
    size_t n = 0;

    to[n++] = 1 << 3; /* the field's number, and that a varint follows */
    for (; id >= 128; id >>= 7)
        to[n++] = (uint8_t)(id | 128);
    to[n++] = (uint8_t)id;
    return n;
}

/* --- names ------------------------------------------------------------------------------------ */

const char *wire_error_name(enum wire_error e)
{
    static const char *const names[] = {
        [WIRE_E_INTERNAL] = "internal",
        [WIRE_E_BAD_REQUEST] = "bad_request",
        [WIRE_E_NOT_FOUND] = "not_found",
        [WIRE_E_BUSY] = "busy",
        [WIRE_E_CONTEXT_LENGTH_EXCEEDED] = "context_length_exceeded",
        [WIRE_E_POOL_FULL] = "pool_full",
        [WIRE_E_LIMIT] = "limit",
        [WIRE_E_CANCELLED] = "cancelled",
        [WIRE_E_UNSUPPORTED] = "unsupported",
        [WIRE_E_SHUTTING_DOWN] = "shutting_down",
        [WIRE_E_NO_MEMORY] = "no_memory",
        [WIRE_E_NAME_EXISTS] = "name_exists",
        [WIRE_E_WRONG_MODEL] = "wrong_model",
        [WIRE_E_STORAGE] = "storage",
        [WIRE_E_DEADLINE] = "deadline_exceeded",
    };

    return (unsigned)e < WIRE_E__N ? names[e] : "unknown";
}

const char *wire_reason_name(enum wire_reason r)
{
    static const char *const names[] = {
        [WIRE_REASON_END_OF_TEXT] = "end_of_text", [WIRE_REASON_STOP] = "stop",
        [WIRE_REASON_LENGTH] = "length",           [WIRE_REASON_CONTEXT_FULL] = "context_full",
        [WIRE_REASON_POOL_FULL] = "pool_full",
    };

    return (unsigned)r <= WIRE_REASON_POOL_FULL ? names[r] : "unknown";
}
