/* Fuzzes the decoders: any bytes are refused or are a message that packs again and comes back with
 * the same bytes. Build with `make CC=clang FUZZ=1 SAN=fuzzer-no-link,address fuzz`.
 */
#include "ipc/chan.h"
#include "ipc/wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_again(const uint8_t *first, size_t first_len, const uint8_t *again,
                        size_t again_len)
{
    if (first_len != again_len || memcmp(first, again, first_len) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static uint8_t one[CHAN_FRAME_MAX], two[CHAN_FRAME_MAX];
    static struct wire_scratch in, out;
    struct wire_req req, head;
    struct wire_rep rep;
    size_t n, m;

    if (!in.mem && (wire_scratch_open(&in, WIRE_SCRATCH_BYTES) < 0 ||
                    wire_scratch_open(&out, WIRE_SCRATCH_BYTES) < 0))
        abort();
    /* Packing a message that came in may need a little more than the scratch; then it says so. */
    wire_req_head(data, len, &head);
    if (wire_req_unpack(&in, data, len, &req) == 0) /* both see the same in what can be read */
        if (head.id != req.id || head.bulk_len != req.bulk_len || head.kind != req.kind)
            abort();
    if (wire_req_unpack(&in, data, len, &req) == 0 &&
        wire_req_pack(&out, &req, one, sizeof(one), &n) == 0) {
        if (wire_req_unpack(&in, one, n, &req) < 0 ||
            wire_req_pack(&out, &req, two, sizeof(two), &m) < 0)
            abort();
        check_again(one, n, two, m);
    }
    if (wire_rep_unpack(&in, data, len, &rep) == 0 &&
        wire_rep_pack(&out, &rep, one, sizeof(one), &n) == 0) {
        if (wire_rep_unpack(&in, one, n, &rep) < 0 ||
            wire_rep_pack(&out, &rep, two, sizeof(two), &m) < 0)
            abort();
        check_again(one, n, two, m);
    }
    return 0;
}
