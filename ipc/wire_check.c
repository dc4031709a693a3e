#include "ipc/wire_pb.h"

#include <errno.h>
#include <string.h>

/* A limit that each reader of a field had to remember would be forgotten for the next field: these
 * hold for all that the schema has, by its own description. */

/* `at` is where the value lies in protobuf-c's struct. No message of the schema contains itself,
 * which bounds the recursion. */
static int check_field(const void *at, const ProtobufCFieldDescriptor *f, const char *message,
                       struct why *why)
{
    const ProtobufCMessage *inner;
    const char *text;
    int value;

    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
        text = *(char *const *)at;
        if (!text || strnlen(text, WIRE_STRING_MAX + 1) <= WIRE_STRING_MAX)
            return 0;
        return why_set(why, -EMSGSIZE, "the field %s of %s is longer than %u bytes", f->name,
                       message, WIRE_STRING_MAX);
    case PROTOBUF_C_TYPE_ENUM:
        value = *(const int *)at;
        if (protobuf_c_enum_descriptor_get_value(f->descriptor, value))
            return 0;
        return why_set(why, -ENOTSUP,
                       "the field %s of %s is %d, a value that this version of "
                       "gistd does not know",
                       f->name, message, value);
    case PROTOBUF_C_TYPE_MESSAGE:
        inner = *(ProtobufCMessage *const *)at;
        return inner ? wire_check(inner, why) : 0;
    default:
        return 0;
    }
}

/* Where a field's value is one of several, or a list of them. */
static int check_all(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, struct why *why)
{
    const uint8_t *base = (const uint8_t *)m, *at = base + f->offset;
    const char *name = m->descriptor->short_name;
    size_t n;
    int r = 0;

    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF &&
        *(const uint32_t *)(const void *)(base + f->quantifier_offset) != f->id)
        return 0;
    if (f->label != PROTOBUF_C_LABEL_REPEATED)
        return check_field(at, f, name, why);
    /* Only lists of pointers: the schema has no list of enums, and numbers have no limit here. */
    if (f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE)
        return 0;
    n = *(const size_t *)(const void *)(base + f->quantifier_offset);
    for (size_t i = 0; i < n && r == 0; i++)
        r = check_field(*(void *const *const *)(const void *)at + i, f, name, why);
    return r;
}

/* The first thing that is wrong is told, by the names that the schema has for it. */
int wire_check(const ProtobufCMessage *m, struct why *why)
{
    int r = 0;

    for (unsigned i = 0; i < m->descriptor->n_fields && r == 0; i++)
        r = check_all(m, &m->descriptor->fields[i], why);
    return r;
}
