/* daemon/req_named.c - sessions and documents by name: Save, Restore, List, Delete, AddDocument. */
#include "daemon/sched.h"

static int named_start(struct sched *s, struct request *r, const struct wire_req *m,
                       const uint8_t *bulk)
{
    (void)m;
    (void)bulk;
    request_fail(s, r, WIRE_E_UNSUPPORTED, REQUEST_NO_NUMBERS,
                 "this daemon keeps no sessions and documents by name");
    return 0;
}

const struct request_ops request_save = { .name = "save", .start = named_start };
const struct request_ops request_restore = { .name = "restore", .start = named_start };
const struct request_ops request_list = { .name = "list", .start = named_start };
const struct request_ops request_delete = { .name = "delete", .start = named_start };
const struct request_ops request_add_document = { .name = "add document", .start = named_start };
