/* In the order in which one needs another: the backend, which says what memory there is; the model,
 * which goes there; adapters and vocabulary of the model; then the pool, which has what is left,
 * and all that counts in its pages. served_load undoes what it made when it fails, served_start
 * leaves that to served_close, which takes it half-built. */
#include "daemon/served.h"

#include "base/clock.h"
#include "daemon/headroom.h"
#include "daemon/keep.h"
#include "daemon/log.h"
#include "daemon/prefix.h"
#include "daemon/rank.h"
#include "daemon/storage.h"
#include "daemon/tier.h"
#include "daemon/weight_image.h"
#include "engine/divide.h"
#include "engine/file/stream.h"
#include "store/io.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

_Static_assert((int)CONFIG_SPLIT_LAYER == BACKEND_SPLIT_LAYER &&
                   (int)CONFIG_SPLIT_TENSOR == BACKEND_SPLIT_TENSOR,
               "the option's choices are the backend's");

/* cpu: room for the name, which the options point to. */
struct backend_options served_backend_options(const struct config *c, char cpu[SERVED_CPU_MAX])
{
    return (struct backend_options){ .cpu = config_choice("cpu", c->cpu, cpu, SERVED_CPU_MAX),
                                     .threads = c->threads,
                                     .pin = c->pin,
                                     .split = (enum backend_split)c->split_mode,
                                     .max_rows = c->batch_tokens,
                                     .segment = c->segment };
}

/* `found` is a note where there is no error: "auto" has found no device, and why. */
static int open_backend(struct served *b, const struct config *c, struct why *why)
{
    const struct backend_ops *ops;
    char cpu[SERVED_CPU_MAX];
    struct backend_options o = served_backend_options(c, cpu);
    struct why found = { "" };
    int r = backend_find(c->device, &ops, &o.devices, &found);

    if (r < 0)
        return why_set(why, r, "%s", found.text);
    if (found.text[0])
        log_info("computing on the CPU: %s", found.text);
    return backend_open(ops, &o, &b->backend, why);
}

/* A window that the model was not trained for is refused; one that no sequence can have is cut. */
static int choose_context(struct served *b, const struct config *c, struct why *why)
{
    uint32_t window = b->model->n_ctx_train;

    if (c->context > window)
        return why_set(why, -EINVAL,
                       "option context: found %u, allowed: up to %u, the window of this model",
                       c->context, window);
    b->context_max = c->context ? c->context : window;
    if (b->context_max > SEQ_TOKENS_MAX)
        b->context_max = SEQ_TOKENS_MAX;
    return 0;
}

/* What an answer has to have room for at each token. */
static size_t longest_token(const struct vocab *v)
{
    size_t most = 0, len;

    for (uint32_t i = 0; i < vocab_size(v); i++) {
        (void)vocab_bytes(v, i, &len);
        if (len > most)
            most = len;
    }
    return most;
}

uint32_t served_pages_free(const struct served *b)
{
    return b->pool.n_free + b->pool.n_cached;
}

/* By the account as well as by the pool: pages that come back for everybody may still not be this
 * one's. */
bool served_pages_come(const struct served *b, const struct pool_account *a, uint64_t n)
{
    uint32_t n_coming = tier_coming(b->tier);

    return n_coming > 0 && n <= pool_room(&b->pool, a, n_coming) &&
           n <= (uint64_t)served_pages_free(b) + n_coming;
}

/* A handful, looked through when a session is opened. */
const struct adapter *served_adapter(const struct served *b, const char *name)
{
    for (uint32_t i = 0; i < b->n_adapters; i++)
        if (strcmp(b->adapters[i]->name, name) == 0)
            return b->adapters[i];
    return NULL;
}

size_t served_adapter_bytes(const struct served *b)
{
    size_t n = 0;

    for (uint32_t i = 0; i < b->n_adapters; i++)
        n += b->adapters[i]->mem_len;
    return n;
}

/* Names are listed between spaces, and asked for by clients. */
static int open_adapter(struct served *b, const char *path, struct why *why)
{
    struct adapter *a;
    int r;

    if (b->n_adapters == SERVED_ADAPTERS_MAX)
        return why_set(why, -EINVAL, "option adapter: more files than the %u that can be loaded",
                       SERVED_ADAPTERS_MAX);
    r = adapter_open(path, b->model, &a, why);
    if (r < 0)
        return r;
    if (served_adapter(b, a->name) || strchr(a->name, ' '))
        r = why_set(why, -EINVAL,
                    "%s: found the name \"%s\", expected one without spaces that no other "
                    "adapter has",
                    path, a->name);
    if (r < 0) {
        adapter_close(a);
        return r;
    }
    (void)snprintf(b->adapter_names + strlen(b->adapter_names),
                   sizeof(b->adapter_names) - strlen(b->adapter_names), "%s%s",
                   b->n_adapters ? " " : "", a->name);
    b->adapters[b->n_adapters++] = a;
    return 0;
}

/* The next of paths between colons, as far as it has room: its length, which may be 0. */
static size_t take_path(const char **paths, char ret[PATH_MAX])
{
    size_t n = strcspn(*paths, ":");

    (void)snprintf(ret, PATH_MAX, "%.*s", (int)n, *paths);
    *paths += n + ((*paths)[n] == ':');
    return n;
}

/* Empty ones, as of a colon at the end, are passed over. */
static int open_adapters(struct served *b, const char *paths, struct why *why)
{
    char path[PATH_MAX];
    int r = 0;

    while (r == 0 && *paths) {
        size_t n = take_path(&paths, path);

        if (n >= sizeof(path))
            return why_set(why, -ENAMETOOLONG, "option adapter: a path of %zu bytes is too long",
                           n);
        r = n ? open_adapter(b, path, why) : 0;
    }
    return r;
}

/* What the memory that weights and context go to has left: a device's own, or this machine's.
 * Returns whether it is a device's. */
static bool read_room(const struct served *b, struct headroom *ret)
{
    struct backend_info info;

    b->backend->ops->info(b->backend, &info);
    if (!info.memory) {
        headroom_read("", ret);
        return false;
    }
    *ret = (struct headroom){ .bytes = info.memory_free };
    (void)snprintf(ret->cause, sizeof(ret->cause),
                   "%s has %" PRIu64 " bytes of memory and %" PRIu64 " are free", info.name,
                   info.memory, info.memory_free);
    return true;
}

/* The weights lie in memory once more beside the page cache, about as long as the file is. Asked
 * before they are read: a kernel that runs out of memory on the way does not say so, it kills. */
static int check_weights(const struct served *b, const struct config *c, struct why *why)
{
    struct headroom room;
    struct stat st;
    uint64_t need;

    (void)read_room(b, &room);
    if (stat(c->model, &st) < 0 || !S_ISREG(st.st_mode))
        return 0; /* model_open says what is wrong with it */
    need = (uint64_t)st.st_size;
    /* Layers pass through that much memory, and no more is needed. */
    if (c->weight_bytes && c->weight_bytes < need)
        need = c->weight_bytes;
    if (need <= room.bytes)
        return 0;
    return why_set(
        why, -ENOMEM,
        "%s: its weights need about %" PRIu64 " bytes of memory and %" PRIu64
        " are available: %s; serve a smaller or a more narrowly quantised model, let it pass "
        "through less memory (weight-bytes), or raise the limit",
        c->model, need, room.bytes, room.cause);
}

/* What make_room is called with, in the middle of model_open_as. */
struct loading {
    const struct served *served;
    const struct config *config;
    struct keep *keep;
};

/* Before memory is taken: weights of an earlier process that are of no use leave it first. */
static int make_room(void *arg, struct why *why)
{
    struct loading *l = arg;

    if (l->keep)
        keep_drop(l->keep);
    return check_weights(l->served, l->config, why);
}

/* Not where it is as ever: read from the model's file. */
static void say_source(const struct model *m)
{
    struct stream_stats st;

    if (m->image_why.text[0])
        log_warning("the model is read from its file: %s", m->image_why.text);
    if (!m->stream && m->from == MODEL_FROM_IMAGE)
        log_info("the weights are mapped from their image");
    if (!m->stream)
        return;
    stream_stats(m->stream, &st);
    log_info("weights pass through %" PRIu64 " bytes of memory: %" PRIu64 " stay, %" PRIu64
             " are read for each token",
             st.memory, st.resident, st.streamed);
}

/* From where it is there soonest. */
static int open_model(const struct served *b, const struct config *c, struct keep *keep,
                      const struct model_progress *progress, struct model **ret, struct why *why)
{
    const struct io_options io = { .kind = (enum io_kind)c->io };
    struct loading l = { b, c, keep };
    struct model_options o = { .progress = progress,
                               .kept = keep ? &keep->kept : NULL,
                               .room = make_room,
                               .room_arg = &l,
                               .weight_bytes = c->weight_bytes,
                               .io = &io };
    char images[CACHE_DIR_MAX];

    o.images = weight_image_folder(c, images) ? images : NULL;
    return model_open_as(c->model, b->backend, &o, ret, why);
}

/* Behind that, which took since start_ns: what the next one will have. */
static void settle_model(struct served *b, const struct config *c, struct keep *keep,
                         uint64_t start_ns)
{
    if (keep)
        keep_settle(keep, b->model);
    say_source(b->model);
    weight_image_start(c, b->model, clock_ns() - start_ns, &b->image);
}

static int load_model(struct served *b, const struct config *c, struct keep *keep,
                      const struct model_progress *progress, struct why *why)
{
    uint64_t start = clock_ns();
    int r = open_model(b, c, keep, progress, &b->model, why);

    if (r == 0)
        settle_model(b, c, keep, start);
    return r;
}

/* The system's limit of locked memory may be too low: served all the same. */
static void lock_weights(const struct served *b)
{
    int r = b->backend->ops->lock(b->backend, b->model->mem, b->model->mem_len);

    if (r < 0)
        log_warning("weights are not locked in memory: %s", strerror(-r));
}

int served_load(struct served *b, const struct config *c, struct keep *keep,
                const struct model_progress *progress, struct why *why)
{
    int r;

    *b = (struct served){ .model = NULL };
    r = open_backend(b, c, why);
    if (r == 0)
        r = load_model(b, c, keep, progress, why);
    if (r == 0)
        r = open_adapters(b, c->adapters, why);
    if (r == 0)
        r = vocab_open(b->model->file, &b->vocab, why);
    if (r == 0 && vocab_size(b->vocab) != b->model->n_vocab)
        r = why_set(why, -EINVAL,
                    "%s: found %u tokens in the vocabulary, expected the %u of the embedding",
                    c->model, vocab_size(b->vocab), b->model->n_vocab);
    if (r == 0)
        r = choose_context(b, c, why);
    if (r < 0) {
        served_close(b);
        return r;
    }
    b->token_max = longest_token(b->vocab);
    if (rank_open(b->vocab, &b->rank) < 0) {
        served_close(b);
        return why_set(why, -ENOMEM, "no memory for the words of the vocabulary");
    }
    /* A model without a template serves all but chats; who asks for one is told why. */
    r = chat_open(b->model->file, &b->chat, &b->chat_why);
    if (r == -ENOENT)
        (void)why_set(&b->chat_why, r, "the model has no chat template");
    if (c->mlock)
        lock_weights(b);
    return 0;
}

/* What a device with so many pages has of scratch at most, once all was of use: more than so far.
 */
static uint64_t scratch_of(const struct served *b, const struct config *c, uint32_t n_pages)
{
    char cpu[SERVED_CPU_MAX];
    struct backend_options o = served_backend_options(c, cpu);
    struct backend_info info;
    struct why why = { "" };
    uint64_t need;

    b->backend->ops->info(b->backend, &info);
    o.max_pages = FORWARD_POOLS * n_pages;
    o.devices.n = info.n_devices; /* how many is what counts */
    return b->backend->ops->need(&o, b->model, &need, &why) < 0 ? 0 : need;
}

/* Of several devices, the one that has the least for its part says how much. need: what each has
 * beside weights and pages at most. */
static uint64_t pages_room(const struct served *b, const struct backend_info *info, uint64_t need)
{
    struct divide d = { .split = info->split, .n = info->n_devices };
    uint64_t room[BACKEND_DEVICES_MAX];

    for (uint32_t i = 0; i < (d.n ? d.n : 1); i++) {
        const struct backend_device *at = &info->devices[i];
        uint64_t free = d.n ? at->memory_free : info->memory_free;
        /* What is still to be taken of it. */
        uint64_t later = need - (d.n ? at->scratch_bytes : info->scratch_bytes);

        room[i] = free > later ? free - later : 0;
        d.first[i] = at->first_layer;
    }
    d.first[d.n] = b->model->n_layer;
    return d.n ? divide_pages(&d, room) : room[0];
}

/* Bytes for the pool, of those that are free; 0: --kv-bytes can't be had. What is taken behind the
 * pool is left to it, or a small device would have nothing for that. How much it is hangs on the
 * pages a little (engine/plan.h). */
static uint64_t device_kv_bytes(const struct served *b, const struct config *c, enum kv_type kv,
                                struct headroom *room)
{
    uint64_t packing = compress_need(b->model), bytes = 0;
    struct backend_info info;
    uint32_t n_pages = 0;

    b->backend->ops->info(b->backend, &info);
    /* Twice: scratch depends on the number of pages, and pages on what scratch leaves. The second
     * look is near enough. */
    for (int i = 0; i < 2; i++) {
        room->bytes = pages_room(b, &info, packing + scratch_of(b, c, n_pages));
        bytes = c->kv_bytes ? headroom_kv_bytes(room, c->kv_bytes) : headroom_device_kv_bytes(room);
        n_pages = pool_pages_in(bytes, pool_page_bytes(b->model, kv));
    }
    return bytes;
}

/* Of this machine's memory: what scratch will still take of it is not the pool's. */
static void keep_scratch(const struct served *b, const struct config *c, struct headroom *room)
{
    uint64_t need = scratch_of(b, c, 0), later;
    struct backend_info info;

    b->backend->ops->info(b->backend, &info);
    later = need > info.scratch_bytes ? need - info.scratch_bytes : 0;
    room->bytes = room->bytes > later ? room->bytes - later : 0;
}

/* The pool touches all of it at once: a kernel that is out of memory then does not say so either.
 */
static int open_pool(struct served *b, const struct config *c, enum kv_type kv, struct why *why)
{
    struct headroom room;
    bool is_device = read_room(b, &room);
    uint64_t bytes;

    if (!is_device)
        keep_scratch(b, c, &room);
    bytes = is_device ? device_kv_bytes(b, c, kv, &room) : headroom_kv_bytes(&room, c->kv_bytes);
    /* Who named a size gets it or hears why not; who named none gets what there is, and a line of
     * the log where that is little. */
    if (bytes == 0 && c->kv_bytes)
        return why_set(why, -ENOMEM,
                       "option kv-bytes: found %" PRIu64 ", with %" PRIu64
                       " more kept for everything else, but %" PRIu64
                       " are available: %s; lower kv-bytes or raise the limit",
                       (uint64_t)c->kv_bytes, HEADROOM_RESERVE, room.bytes, room.cause);
    if (!c->kv_bytes && bytes < HEADROOM_KV_DEFAULT)
        log_warning("context memory is %" PRIu64 " bytes, the default is %" PRIu64
                    ": %s (--kv-bytes)",
                    bytes, HEADROOM_KV_DEFAULT, room.cause);
    return pool_open(&b->pool, b->backend, b->model, kv, bytes, why);
}

/* In a user namespace of ours all users who have no number there come with this one. */
static uid_t read_stand_in(void)
{
    FILE *f = fopen("/proc/sys/kernel/overflowuid", "re");
    unsigned uid;
    bool found = f && fscanf(f, "%u", &uid) == 1;

    if (f)
        (void)fclose(f);
    return found ? uid : 65534; /* the kernel's default */
}

int served_start(struct served *b, const struct config *c, struct why *why)
{
    static const enum kv_type kinds[] = {
        [CONFIG_KV_F16] = KV_F16, [CONFIG_KV_F32] = KV_F32, [CONFIG_KV_Q8_0] = KV_Q8_0
    };
    enum kv_type kv = kinds[c->kv_type];
    uint64_t pages;
    int r;

    b->stand_in = read_stand_in();
    r = b->backend->ops->set_model(b->backend, b->model, why);
    if (r == 0)
        r = open_pool(b, c, kv, why);
    if (r == 0 &&
        forward_open(&b->forward, b->model, b->backend, c->batch_tokens, b->pool.n_pages) < 0)
        r = why_set(why, -ENOMEM, "no memory for batches of %u tokens", c->batch_tokens);
    if (r == 0 && compress_open(b->model, b->backend, &b->compressor) < 0)
        r = why_set(why, -ENOMEM, "no memory for compressing");
    if (r == 0 && c->prefix_cache && prefix_open(&b->pool, &b->prefix) < 0)
        r = why_set(why, -ENOMEM, "no memory for the prefixes of %u pages", b->pool.n_pages);
    if (r < 0)
        return r;
    if (c->mlock && b->backend->ops->lock(b->backend, b->pool.mem, b->pool.mem_len) < 0)
        log_warning("context memory is not locked: the limit of locked memory is too low");
    b->backend->ops->info(b->backend, &b->info);
    if (b->info.memory)
        b->info.scratch_bytes =
            scratch_of(b, c, b->pool.n_pages) * (b->info.n_devices ? b->info.n_devices : 1);
    pages = c->client_kv_bytes ? c->client_kv_bytes / b->pool.page_bytes : b->pool.n_pages;
    b->client_pages = pages < b->pool.n_pages ? (uint32_t)pages : b->pool.n_pages;
    return storage_open(b, c, why);
}

/* --- a device that was lost ------------------------------------------------------------------- */

bool served_lost(const struct served *b)
{
    return b->backend->ops->lost && b->backend->ops->lost(b->backend);
}

/* From the top down; what points to the device forgets it. Host memory stays, and b is served again
 * by served_again. */
void served_leave(struct served *b)
{
    forward_leave(&b->forward);
    compress_leave(b->compressor);
    pool_leave(&b->pool);
    for (uint32_t i = 0; i < b->n_adapters; i++)
        adapter_leave(b->adapters[i]);
    model_leave(b->model);
}

/* The same file, whatever was written to it since: sessions go on with what it computed. */
static int take_model(struct served *b, const struct config *c, struct model *m, struct why *why)
{
    if (memcmp(m->digest, b->model->digest, sizeof(m->digest)) != 0) {
        model_close(m);
        return why_set(why, -ESTALE, "%s: it is another model now: restart gistd", c->model);
    }
    model_take(b->model, m);
    return 0;
}

static int read_model_again(struct served *b, const struct config *c,
                            const struct model_progress *progress, struct why *why)
{
    struct model_options o = { .progress = progress };
    struct model *m;
    int r = model_open_as(c->model, b->backend, &o, &m, why);

    return r < 0 ? r : take_model(b, c, m, why);
}

/* In the order that they were opened in; -EINVAL of open_adapter: its name is there already, so
 * they are opened by hand. */
static int read_adapters_again(struct served *b, const char *paths, struct why *why)
{
    char path[PATH_MAX];
    struct adapter *a;
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < b->n_adapters;) {
        if (take_path(&paths, path) == 0)
            continue;
        r = adapter_open(path, b->model, &a, why);
        if (r == 0)
            adapter_take(b->adapters[i++], a);
    }
    return r;
}

int served_again(struct served *b, const struct config *c, const struct model_progress *progress,
                 struct why *why)
{
    int r = b->backend->ops->reopen(b->backend, why);

    if (r == 0)
        r = read_model_again(b, c, progress, why);
    if (r == 0)
        r = read_adapters_again(b, c->adapters, why);
    if (r == 0)
        r = b->backend->ops->set_model(b->backend, b->model, why);
    if (r == 0)
        r = pool_again(&b->pool, why);
    if (r == 0 && b->tier)
        tier_again(b->tier);
    if (r < 0)
        served_leave(b);
    return r;
}

/* --- nobody wants the model for a while ------------------------------------------------------- */

/* Memory can be given back in parts (discard), or all of it with the device (reopen). */
bool served_can_rest(const struct served *b)
{
    return b->backend->ops->discard || b->backend->ops->reopen;
}

/* The image's writer reads the weights that are about to go. */
uint64_t served_rest(struct served *b, struct keep *keep)
{
    uint64_t bytes = b->model->mem_len;

    weight_image_close(b->image);
    b->image = NULL;
    if (!b->backend->ops->discard) {
        bytes += b->pool.mem_len;
        served_leave(b);
        return bytes;
    }
    model_leave(b->model);
    if (keep)
        keep_leave(keep);
    return bytes + pool_discard(&b->pool);
}

/* Pages that the machine has no room for now are taken when they are used. */
static void refill_pool(struct served *b)
{
    uint64_t need = (uint64_t)b->pool.n_away * b->pool.page_bytes + HEADROOM_RESERVE;
    struct headroom room;

    headroom_read("", &room);
    if (room.bytes < need || pool_refill(&b->pool) < 0)
        log_warning("context memory is not all there yet, %s: it is taken as it is used",
                    room.cause);
}

/* The model is opened beside the old shell, whose file and shapes others point to, and then takes
 * its place (model_take). */
int served_wake(struct served *b, const struct config *c, struct keep *keep,
                const struct model_progress *progress, struct why *why)
{
    uint64_t start = clock_ns();
    struct model *m;
    int r;

    if (!b->backend->ops->discard)
        return served_again(b, c, progress, why);
    r = open_model(b, c, keep, progress, &m, why);
    if (r == 0)
        r = take_model(b, c, m, why);
    if (r < 0)
        return r;
    settle_model(b, c, keep, start);
    if (c->mlock)
        lock_weights(b);
    refill_pool(b);
    return 0;
}

void served_close(struct served *b)
{
    /* The store first: its reads and writes use pages of the pool. */
    storage_close(b);
    prefix_close(b->prefix);
    compress_close(b->compressor);
    pool_close(&b->pool);
    forward_close(&b->forward);
    chat_close(b->chat);
    rank_close(b->rank);
    vocab_close(b->vocab);
    for (uint32_t i = 0; i < b->n_adapters; i++)
        adapter_close(b->adapters[i]);
    weight_image_close(b->image);
    model_close(b->model);
    backend_close(b->backend);
    *b = (struct served){ .model = NULL };
}
