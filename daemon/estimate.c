/* Nothing is opened that would take memory: this is for who asks whether to buy a GPU, or why a
 * model does not load. So each part is asked for the number that it would take, by the functions
 * that it takes it by.
 */
#include "daemon/estimate.h"

#include "daemon/headroom.h"
#include "daemon/sched.h"
#include "daemon/served.h"
#include "engine/devices.h"
#include "engine/file/model.h"
#include "engine/forward.h"
#include "engine/kv/compress.h"
#include "engine/kv/pool.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

_Static_assert((int)KV_F16 == CONFIG_KV_F16 && (int)KV_F32 == CONFIG_KV_F32 &&
                   (int)KV_Q8_0 == CONFIG_KV_Q8_0,
               "the option's choices are the pool's types");

/* --- making it -------------------------------------------------------------------------------- */

/* To multiply by: e->n_devices is 0 for one. */
static uint32_t n_devices(const struct estimate *e)
{
    return e->n_devices ? e->n_devices : 1;
}

static void set_devices(struct estimate *e, const struct backend_devices *d)
{
    e->n_devices = d->n > 1 ? d->n : 0;
    for (uint32_t i = 0; i < e->n_devices; i++)
        e->devices[i].number = d->at[i];
}

/* What is there now: of a device's memory, or of this machine's. The one place that opens a device:
 * only its driver knows how much of it is free. */
static int ask_memory(struct estimate *e, const struct config *c, const struct backend_options *o,
                      struct why *why)
{
    struct backend_options with = *o;
    const struct backend_ops *ops;
    struct backend_info info;
    struct headroom room;
    struct backend *b;
    int r = backend_find(c->device, &ops, &with.devices, why);

    if (r == 0)
        r = backend_open(ops, &with, &b, why);
    if (r < 0)
        return r;
    b->ops->info(b, &info);
    backend_close(b);
    e->is_device = info.memory != 0;
    if (e->is_device) {
        set_devices(e, &with.devices);
        for (uint32_t i = 0; i < e->n_devices; i++)
            e->devices[i].memory = info.devices[i].memory_free;
        e->memory = info.memory_free;
        (void)snprintf(e->source, sizeof(e->source), "free on %s now", info.name);
        return 0;
    }
    headroom_read("", &room);
    e->memory = room.bytes;
    (void)snprintf(e->source, sizeof(e->source), "available now: %s", room.cause);
    return 0;
}

/* ops: who would compute. */
static int find_memory(struct estimate *e, const struct config *c, const struct backend_ops *ops,
                       const struct backend_options *o, struct why *why)
{
    if (c->plan_memory == 0)
        return ask_memory(e, c, o, why);
    if (o->devices.n == BACKEND_DEVICES_ALL)
        return why_set(why, -EINVAL,
                       "option plan-memory: found device %s, expected the devices by number "
                       "(cuda:0,1): how many there are is not asked of this machine",
                       c->device);
    set_devices(e, &o->devices);
    for (uint32_t i = 0; i < e->n_devices; i++)
        e->devices[i].memory = c->plan_memory;
    e->memory = c->plan_memory * n_devices(e);
    e->is_device = ops != &backend_cpu;
    (void)snprintf(e->source, sizeof(e->source), "as --plan-memory says%s",
                   e->n_devices ? ", of each device" : "");
    return 0;
}

/* Never below 0: what is missing is said elsewhere. */
static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* What is there before the first page. In this machine's memory packing is of what is kept free
 * (HEADROOM_RESERVE), so it is not counted twice. */
static uint64_t fixed(const struct estimate *e)
{
    return e->weights + e->scratch + (e->is_device ? e->packing : 0);
}

/* Sums are of all devices, of which each has as much. */
static uint64_t fixed_on(const struct estimate *e, uint32_t device)
{
    return e->devices[device].weights + (e->scratch + e->packing) / e->n_devices;
}

/* Bytes that are missing for all that, on whichever device. One byte more than fits is the first
 * page's: a model that leaves nothing for it is not served. */
static uint64_t missing(const struct estimate *e)
{
    uint64_t n = e->n_devices ? 0 : less(fixed(e) + 1, e->memory);

    for (uint32_t i = 0; i < e->n_devices; i++)
        n += less(fixed_on(e, i) + 1, e->devices[i].memory);
    return n;
}

/* For pages: of several devices, as much as the one has room for that has the least for its layers.
 */
static uint64_t room_for_pages(const struct estimate *e)
{
    uint64_t room[BACKEND_DEVICES_MAX];

    for (uint32_t i = 0; i < e->n_devices; i++)
        room[i] = less(e->devices[i].memory, fixed_on(e, i));
    return e->n_devices ? divide_pages(&e->divide, room) : less(e->memory, fixed(e));
}

/* As daemon/served.c does it, in the same order. Without --kv-bytes and a device the daemon takes
 * HEADROOM_KV_DEFAULT at most; here it is all that could be, since the question is what fits. */
static void divide(struct estimate *e, const struct config *c)
{
    struct headroom room = { .bytes = room_for_pages(e) };

    if (c->kv_bytes)
        e->context = headroom_kv_bytes(&room, c->kv_bytes);
    else if (e->is_device)
        e->context = headroom_device_kv_bytes(&room);
    else
        e->context = less(room.bytes, HEADROOM_RESERVE);
    e->kept_free = less(e->memory, fixed(e) + e->context);
    for (uint32_t i = 0; i < e->n_devices; i++)
        e->devices[i].context =
            e->divide.split == BACKEND_SPLIT_TENSOR
                ? e->context / e->n_devices
                : e->context / e->n_layer * (e->divide.first[i + 1] - e->divide.first[i]);
}

/* The model among several devices, and what that makes of the weights. Each device has scratch and
 * packing of its own size. */
static int divide_model(struct estimate *e, const struct config *c, const struct model *m,
                        struct why *why)
{
    uint64_t room[BACKEND_DEVICES_MAX];
    int r;

    if (e->n_devices == 0)
        return 0;
    for (uint32_t i = 0; i < e->n_devices; i++)
        room[i] = e->devices[i].memory;
    r = c->split_mode == CONFIG_SPLIT_TENSOR
            ? divide_tensors(m, e->n_devices, &e->divide, why)
            : divide_layers(m, room, e->n_devices, &e->divide, why);
    e->weights = 0;
    for (uint32_t i = 0; i < e->n_devices && r == 0; i++) {
        e->devices[i].weights = divide_weights(&e->divide, m, i);
        e->weights += e->devices[i].weights;
    }
    e->scratch *= e->n_devices;
    e->packing *= e->n_devices;
    return r;
}

/* What this machine has free is not asked where the memory is another one's. */
static void count_copies(struct estimate *e, const struct config *c)
{
    struct headroom room = { .bytes = UINT64_MAX };
    uint64_t asked;

    if (!e->is_device || config_host_bytes(c, &asked, NULL) < 0)
        return;
    if (c->plan_memory == 0)
        headroom_read("", &room);
    e->copies = asked == CONFIG_HOST_AUTO ? headroom_host_bytes(&room, e->context) : asked;
}

/* The tables whose size hangs on the number of pages, and the logits. */
static void count_host(struct estimate *e)
{
    uint32_t n = pool_pages_in(e->context, e->page_bytes[e->kv]);

    e->host = pool_tables_bytes(n) + plan_need(e->batch, FORWARD_POOLS * n) +
              (uint64_t)SCHED_LOGITS_ROWS * e->n_vocab * sizeof(float);
}

/* What follows from the header and the options alone. */
static void describe(struct estimate *e, const struct config *c, const struct model *m)
{
    *e = (struct estimate){ .n_layer = m->n_layer,
                            .n_head_kv = m->n_head_kv,
                            .head_dim = m->head_dim,
                            .n_vocab = m->n_vocab,
                            .window = m->n_ctx_train,
                            .segment = c->segment,
                            .batch = c->batch_tokens,
                            .kv = (enum kv_type)c->kv_type,
                            .weights = m->packed.len,
                            .packing = compress_need(m),
                            .store = strcmp(c->store, "none") == 0 ? 0 : c->store_bytes,
                            .wanted_tokens = c->plan_context,
                            .wanted_ratio = c->plan_ratio };
    if (c->weight_bytes && c->weight_bytes < e->weights)
        e->weights = c->weight_bytes;
    (void)snprintf(e->model, sizeof(e->model), "%s", m->name);
    (void)snprintf(e->device, sizeof(e->device), "%.63s", c->device);
    for (enum kv_type kv = 0; kv < KV__N; kv++)
        e->page_bytes[kv] = pool_page_bytes(m, kv);
}

/* A plan lists the pool's pages, and how many there are is what is left beside it: a few that have
 * no room then are left free. */
static int divide_with_plan(struct estimate *e, const struct config *c,
                            const struct backend_ops *ops, struct backend_options *o,
                            const struct model *m, struct why *why)
{
    int r;

    divide(e, c);
    o->max_pages = FORWARD_POOLS * pool_pages_in(e->context, e->page_bytes[e->kv]);
    r = ops->need(o, m, &e->scratch, why);
    e->scratch *= n_devices(e);
    if (r == 0)
        divide(e, c);
    return r;
}

/* The library is asked for its numbers, and no device is opened where --plan-memory says what it
 * has. */
static int fill(struct estimate *e, const struct config *c, const struct model *m, struct why *why)
{
    const struct backend_ops *ops;
    char cpu[SERVED_CPU_MAX];
    struct backend_options o = served_backend_options(c, cpu);
    int r = devices_library(c->device, &ops, &o.devices, why);

    describe(e, c, m);
    if (r == 0)
        r = find_memory(e, c, ops, &o, why);
    if (e->n_devices)
        o.devices.n = e->n_devices; /* "all" is known now */
    if (r == 0)
        r = ops->need(&o, m, &e->scratch, why);
    if (r == 0)
        r = divide_model(e, c, m, why);
    if (r == 0)
        r = divide_with_plan(e, c, ops, &o, m, why);
    if (r == 0)
        count_host(e);
    if (r == 0)
        count_copies(e, c);
    return r;
}

int estimate_make(const struct config *c, struct estimate *ret, struct why *why)
{
    struct model *m;
    int r = model_shape(c->model, &m, why);

    if (r < 0)
        return r;
    r = fill(ret, c, m, why);
    model_close(m);
    return r;
}

/* --- tokens and pages ------------------------------------------------------------------------- */

static uint64_t pages_of(uint64_t keys)
{
    return (keys + POOL_PAGE_TOKENS - 1) / POOL_PAGE_TOKENS;
}

/* Of a segment that is compressed. The first has its sinks beside that: a page at most. */
static uint64_t packed_pages(const struct estimate *e, uint32_t ratio)
{
    const struct compress_spec spec = { .method = COMPRESS_FIT,
                                        .ratio = ratio,
                                        .sinks = COMPRESS_SINKS };

    return pages_of(ratio > 1 ? compress_n_keys(&spec, e->segment, 1, 0) : e->segment);
}

/* The last segment, full or not, is the one that is read. */
uint64_t estimate_pages(const struct estimate *e, uint64_t tokens, uint32_t ratio)
{
    uint64_t packed = tokens ? (tokens - 1) / e->segment : 0;

    return packed * packed_pages(e, ratio) + pages_of(tokens - packed * e->segment);
}

/* The other way round; what is left of a packed segment's pages has room for none. */
uint64_t estimate_tokens(const struct estimate *e, uint64_t pages, uint32_t ratio)
{
    uint64_t raw = pages_of(e->segment);

    if (pages <= raw)
        return pages * POOL_PAGE_TOKENS;
    return (pages - raw) / packed_pages(e, ratio) * e->segment + e->segment;
}

static uint64_t n_pages(const struct estimate *e, enum kv_type kv)
{
    return pool_pages_in(e->context, e->page_bytes[kv]);
}

bool estimate_fits(const struct estimate *e)
{
    return missing(e) == 0 &&
           estimate_pages(e, e->wanted_tokens, e->wanted_ratio) <= n_pages(e, e->kv);
}

/* --- printing --------------------------------------------------------------------------------- */

static const char *kv_name(enum kv_type kv, char ret[16])
{
    return config_choice("kv-type", kv, ret, 16);
}

/* Exact for scripts, in GiB for people. */
static void print_bytes(FILE *f, const char *what, uint64_t n, const char *note)
{
    (void)fprintf(f, "%-9s %15" PRIu64 "  %9.2f GiB   %s\n", what, n, (double)n / (double)(1 << 30),
                  note);
}

static void print_parts(const struct estimate *e, FILE *f)
{
    char steps[64];

    (void)snprintf(steps, sizeof(steps), "for steps of %u tokens (--batch-tokens)", e->batch);
    print_bytes(f, "memory", e->memory, e->source);
    print_bytes(f, "weights", e->weights, "as they are packed");
    print_bytes(f, "scratch", e->scratch, steps);
    print_bytes(f, "packing", e->packing,
                e->is_device ? "for segments that are being compressed"
                             : "for segments that are being compressed, of what is kept free");
    if (missing(e)) {
        (void)fprintf(f, "The weights do not fit: %" PRIu64 " bytes are missing.\n", missing(e));
        return;
    }
    print_bytes(f, "kept free", e->kept_free, "for what comes while it serves");
    print_bytes(f, "context", e->context, "at most (--kv-bytes)");
    print_bytes(f, "host", e->host, "this machine's memory, for tables and logits");
    if (e->copies)
        print_bytes(f, "copies", e->copies,
                    "and pinned, for context that leaves the device's (--host-bytes)");
}

/* Each has scratch and packing for itself: of the sums above as much as the others. */
static void print_devices(const struct estimate *e, FILE *f)
{
    bool tensors = e->divide.split == BACKEND_SPLIT_TENSOR;
    uint32_t heads = e->n_head_kv / e->n_devices;

    (void)fprintf(
        f, "\nOf that, by device, and beside scratch and packing:\n%9s %15s %15s %15s %15s\n",
        "device", tensors ? "KV heads" : "layers", "memory", "weights", "context");
    for (uint32_t i = 0; i < e->n_devices; i++) {
        const struct estimate_device *d = &e->devices[i];
        uint32_t first = tensors ? i * heads : e->divide.first[i];
        uint32_t end = tensors ? first + heads : e->divide.first[i + 1];
        char layers[32];

        (void)snprintf(layers, sizeof(layers), "%u to %u", first, end - 1);
        (void)fprintf(f, "%9u %15s %15" PRIu64 " %15" PRIu64 " %15" PRIu64 "\n", d->number, layers,
                      d->memory, d->weights, d->context);
    }
}

static void print_tokens(const struct estimate *e, FILE *f)
{
    static const uint32_t ratios[] = { 1, 2, 4, 8, 16, 32, 64 };
    char kv_text[16];

    (void)fprintf(f, "\nTokens that fit, of all sessions together, by ratio and --kv-type:\n%9s",
                  "ratio");
    for (enum kv_type kv = 0; kv < KV__N; kv++)
        (void)fprintf(f, " %15s", kv_name(kv, kv_text));
    for (unsigned i = 0; i < sizeof(ratios) / sizeof(*ratios); i++) {
        if (i == 0)
            (void)fprintf(f, "\n%9s", "raw");
        else
            (void)fprintf(f, "\n%9u", ratios[i]);
        for (enum kv_type kv = 0; kv < KV__N; kv++)
            (void)fprintf(f, " %15" PRIu64, estimate_tokens(e, n_pages(e, kv), ratios[i]));
    }
    (void)fputc('\n', f);
}

static void print_wanted(const struct estimate *e, FILE *f)
{
    uint64_t need = estimate_pages(e, e->wanted_tokens, e->wanted_ratio) * e->page_bytes[e->kv];
    char kv[16];

    if (e->wanted_tokens == 0)
        return;
    (void)fprintf(f, "\n%" PRIu64 " tokens", e->wanted_tokens);
    if (e->wanted_ratio > 1)
        (void)fprintf(f, " at ratio %u", e->wanted_ratio);
    (void)fprintf(f, " in %s take %" PRIu64 " bytes of context: ", kv_name(e->kv, kv), need);
    if (estimate_fits(e))
        (void)fprintf(f, "they fit, and %" PRIu64 " are left.\n", less(e->context, need));
    else
        (void)fprintf(f, "they do not fit, %" PRIu64 " are missing.\n", less(need, e->context));
}

/* what: a place and its option. */
static void print_room(const struct estimate *e, const char *what, uint64_t bytes, FILE *f)
{
    uint64_t pages = bytes / e->page_bytes[e->kv];

    (void)fprintf(f,
                  "%s %" PRIu64 ") has room for %" PRIu64 " tokens raw, %" PRIu64 " at ratio 8.\n",
                  what, bytes, estimate_tokens(e, pages, 1), estimate_tokens(e, pages, 8));
}

void estimate_print(const struct estimate *e, FILE *f)
{
    (void)fprintf(f, "%s on %s: %u layers, %u KV heads of %u, a window of %u tokens\n\n", e->model,
                  e->device, e->n_layer, e->n_head_kv, e->head_dim, e->window);
    print_parts(e, f);
    if (e->n_devices)
        print_devices(e, f);
    if (missing(e))
        return;
    print_tokens(e, f);
    print_wanted(e, f);
    if (e->copies)
        print_room(e, "Host memory (--host-bytes", e->copies, f);
    if (e->store)
        print_room(e, "The store (--store-bytes", e->store, f);
    else
        (void)fputs("The store is switched off (--store none).\n", f);
}
