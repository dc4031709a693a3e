/* ipc/wire_pb.h - what the two halves of ipc/wire.h share: the scratch as protobuf-c's memory.
 *
 * Included by wire*.c alone, and with it the generated header: nobody else sees a protobuf-c type.
 */
#ifndef IPC_WIRE_PB_H
#define IPC_WIRE_PB_H

#include "gistd.pb-c.h"
#include "ipc/plain.h"
#include "ipc/wire.h"

/* Kinds of enum wire_req_kind and wire_rep_kind are the schema's field numbers from here on. */
#define WIRE_BODY_BASE 10u

static inline uint64_t wire_body_tag(unsigned kind)
{
    return PLAIN_TAG(kind + WIRE_BODY_BASE);
}

/* protobuf-c's structs have no const; packing only reads. */
static inline char *wire_str(const char *s)
{
    return (char *)(uintptr_t)(s ? s : "");
}

/* The scratch is empty again, and has no sentence. */
void wire_scratch_reset(struct wire_scratch *s);

/* NULL: it does not fit, now or ever. */
void *wire_scratch_array(struct wire_scratch *s, size_t n, size_t size);
/* n pointers to n messages, as protobuf-c has what is repeated. Of a message: its size. */
void *wire_scratch_list(struct wire_scratch *s, size_t n, size_t size);

/* Strings of WIRE_STRING_MAX bytes and values of enums, in m and all that hangs on it: -EMSGSIZE,
 * -ENOTSUP. */
int wire_check(const ProtobufCMessage *m, struct why *why);

/* wire_text.c. Of lists that belong together: -EBADMSG, if their lengths do not. */
void wire_build_text(const struct wire_rep *r, Gistd__Text *m);
int wire_read_text(const Gistd__Text *m, struct wire_rep *r);

/* wire_kept.c. */
void wire_build_keep(const struct wire_keep *k, Gistd__Keep *m);
void wire_build_attach(const struct wire_attach *a, Gistd__Attach *m);
void wire_build_resume(const struct wire_resume *r, Gistd__Resume *m);
struct wire_resume wire_read_resume(const Gistd__Resume *m);
void wire_build_kept(const struct wire_kept *k, Gistd__Kept *m);
void wire_build_attached(const struct wire_attached *a, Gistd__Attached *m);
void wire_read_attached(const Gistd__Attached *m, struct wire_attached *ret);

/* buf NULL: the size only. */
int wire_pack_message(const ProtobufCMessage *m, uint8_t *buf, size_t cap, size_t *ret_len);

/* In the scratch; NULL: *ret_err says why. */
ProtobufCMessage *wire_unpack_message(const ProtobufCMessageDescriptor *d, struct wire_scratch *s,
                                      const uint8_t *frame, size_t len, int *ret_err);

/* A string of a reply; false: it has more than WIRE_STRING_MAX bytes. */
bool wire_take_string(const char *s, const char **ret);

/* --- ipc/wire_stats.c ---------------------------------------------------------------------------
 */

int wire_build_stats(struct wire_scratch *s, const struct wire_stats *st, Gistd__Stats *m);
int wire_read_stats(struct wire_scratch *s, const Gistd__Stats *m, struct wire_stats *st);
int wire_build_traced(struct wire_scratch *s, const struct wire_traced *t, Gistd__Traced *m);
int wire_read_traced(struct wire_scratch *s, const Gistd__Traced *m, struct wire_traced *t);
int wire_build_segment_map(struct wire_scratch *s, const struct wire_segment_map *t,
                           Gistd__SegmentMap *m);
int wire_read_segment_map(struct wire_scratch *s, const Gistd__SegmentMap *m,
                          struct wire_segment_map *t);

#endif
