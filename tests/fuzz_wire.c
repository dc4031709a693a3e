/* Fuzzes the decoders: any bytes are refused or are a message that packs again and comes back with
 * the same bytes. Build with `make CC=clang FUZZ=1 SAN=fuzzer-no-link,address fuzz`.
 */
#include "ipc/chan.h"
#include "ipc/wire.h"
#include "tests/support/fuzz_seeds.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* --- seeds: frames with many fields, which bytes alone take long to find -----------------------
 */

static uint8_t seed[CHAN_FRAME_MAX];
static struct wire_scratch seeds;

static void put_req(const char *dir, const char *name, struct wire_req req)
{
    size_t len;

    req.id = 7;
    if (wire_req_pack(&seeds, &req, seed, sizeof(seed), &len) < 0)
        abort();
    fuzz_seeds_put(dir, name, seed, len);
}

static void put_rep(const char *dir, const char *name, struct wire_rep rep)
{
    size_t len;

    rep.id = 7;
    rep.last = true;
    if (wire_rep_pack(&seeds, &rep, seed, sizeof(seed), &len) < 0)
        abort();
    fuzz_seeds_put(dir, name, seed, len);
}

static void put_requests(const char *dir)
{
    static const char *const documents[] = { "one", "two" };
    struct wire_req open = { .kind = WIRE_OPEN_SESSION }, add = { .kind = WIRE_ADD_DOCUMENT };

    open.u.open_session.documents = documents;
    open.u.open_session.n_documents = 2;
    open.u.open_session.memory = (struct wire_memory){ .has_ratio = true, .ratio = 8 };
    put_req(dir, "open", open);
    add.u.add_document.name = "book";
    add.u.add_document.role = "system";
    add.u.add_document.kind = WIRE_APPEND_CHAT;
    add.u.add_document.memory = (struct wire_memory){ .adapter = "fine", .has_budget = true };
    add.u.add_document.has_segment = add.u.add_document.pin = true;
    add.u.add_document.segment = 64;
    put_req(dir, "add", add);
    put_req(dir, "save", (struct wire_req){ .kind = WIRE_SAVE, .u.save = { 5, "talk", true } });
    put_req(dir, "restore",
            (struct wire_req){ .kind = WIRE_RESTORE, .u.restore = { "talk", "label" } });
    put_req(dir, "keep", (struct wire_req){ .kind = WIRE_KEEP, .u.keep = { 5, 60 } });
    put_req(dir, "attach",
            (struct wire_req){ .kind = WIRE_ATTACH,
                               .u.attach = { (const uint8_t *)"0123456789abcdef", 16, "realm" } });
    put_req(dir, "resume", (struct wire_req){ .kind = WIRE_RESUME, .u.resume = { 5, true, 7 } });
    put_req(dir, "list",
            (struct wire_req){ .kind = WIRE_LIST, .u.list.kind = WIRE_NAMED_DOCUMENT });
    put_req(dir, "delete",
            (struct wire_req){ .kind = WIRE_DELETE, .u.delete = { WIRE_NAMED_DOCUMENT, "book" } });
}

static void put_replies(const char *dir)
{
    static const struct wire_row rows[] = {
        { "one", "label", "model", WIRE_ROW_READING, 10, 5, true, true, 6, 7 },
        { "two", "", "", WIRE_ROW_DAMAGED, 0, 0, false, true, 8, 9 }
    };
    const struct wire_usage usage = { .prompt_tokens = 10, .restored_tokens = 4 };

    put_rep(dir, "listed", (struct wire_rep){ .kind = WIRE_LISTED, .u.listed = { rows, 2 } });
    put_rep(dir, "kept",
            (struct wire_rep){ .kind = WIRE_KEPT,
                               .u.kept = { (const uint8_t *)"0123456789abcdef", 16, 60, 4096 } });
    put_rep(dir, "attached",
            (struct wire_rep){ .kind = WIRE_ATTACHED, .u.attached = { 1, 2, 3, 4, 5, 6, 7, 8 } });
    put_rep(dir, "resumed", (struct wire_rep){ .kind = WIRE_RESUMED, .u.resumed = { 9, 2 } });
    put_rep(dir, "saved", (struct wire_rep){ .kind = WIRE_SAVED, .u.saved = { 3, 4 } });
    put_rep(dir, "restored",
            (struct wire_rep){ .kind = WIRE_RESTORED, .u.restored = { 1, 2, 3, usage } });
    put_rep(dir, "added",
            (struct wire_rep){ .kind = WIRE_DOCUMENT_ADDED,
                               .u.document_added = { 10, 5, usage, true } });
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *dir = fuzz_seeds_dir(*argc, *argv);

    if (!dir)
        return 0;
    if (wire_scratch_open(&seeds, WIRE_SCRATCH_BYTES) < 0)
        abort();
    put_requests(dir);
    put_replies(dir);
    wire_scratch_close(&seeds);
    return 0;
}

/* ---------------------------------------------------------------------------------------------- */

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
