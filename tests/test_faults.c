/* tests/test_faults.c - every allocation and every call that can fail, failing at each of its turns
 * in the life of each object of base, engine, ipc and daemon. Would catch: a result that is not
 * looked at, a half-built object whose close frees what it has not, a descriptor or a mapping that
 * is left, another errno than the call's. */
#include "daemon/answer.h"
#include "daemon/config.h"
#include "daemon/document.h"
#include "daemon/encode.h"
#include "daemon/held.h"
#include "daemon/listener.h"
#include "daemon/mailbox.h"
#include "daemon/prefix.h"
#include "engine/backend.h"
#include "engine/cpu/workers.h"
#include "engine/file/kept.h"
#include "engine/file/safetensors.h"
#include "engine/text/bpe.h"
#include "engine/text/chat.h"
#include "engine/text/detok.h"
#include "engine/text/vocab.h"
#include "ipc/arena.h"
#include "ipc/chan.h"
#include "tests/support/fault_life.h"
#include "tests/support/gguf_build.h"
#include "tests/support/memory_rig.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL   "tests/data/tiny_smollm2.gguf"
#define ADAPTER "tests/data/gist_smollm2.safetensors"

static char model[SCRATCH_PATH_MAX];
static struct gguf *file; /* of model */
static struct vocab *vocab;
static struct memory_rig rig; /* of MODEL */

static int setup(void **state)
{
    struct gguf_build_shape shape = gguf_build_tiny();
    struct gguf_build *b = gguf_build_model(&shape);
    struct rig_opts opts = { .model = MODEL,
                             .cpu = "auto",
                             .kv = KV_F32,
                             .threads = 2,
                             .max_batch = 64,
                             .max_tokens = 1024 };

    (void)state;
    gguf_build_write(b, scratch_path(model, "tiny.gguf"));
    gguf_build_free(b);
    assert_int_equal(gguf_open(model, &file, NULL), 0);
    assert_int_equal(vocab_open(file, &vocab, NULL), 0);
    return memory_rig_open(&rig, &opts, NULL);
}

static int teardown(void **state)
{
    (void)state;
    memory_rig_close(&rig);
    vocab_close(vocab);
    gguf_close(file);
    return 0;
}

/* --- files ------------------------------------------------------------------------------------ */

static int live_gguf(void *arg, struct why *why)
{
    struct gguf *g = NULL;
    int r = gguf_open(model, &g, why);

    (void)arg;
    gguf_close(g);
    return r;
}

static int live_safetensors(void *arg, struct why *why)
{
    struct safetensors *s = NULL;
    int r = safetensors_open(ADAPTER, &s, why);
    float *to = NULL;

    (void)arg;
    if (r == 0) {
        const struct safetensors_tensor *t = safetensors_at(s, 0);

        to = malloc(t->len);
        r = to ? safetensors_read(s, t, to, why) : why_set(why, -ENOMEM, "the test's own");
    }
    free(to);
    safetensors_close(s);
    return r;
}

static int live_model(void *arg, struct why *why)
{
    struct model *m = NULL;
    int r = model_open(MODEL, rig.rig.backend, NULL, &m, why);

    (void)arg;
    model_close(m);
    return r;
}

/* For a daemon to come: whether that gets them or not, there is something to compute with. */
static int live_kept(void *arg, struct why *why)
{
    struct kept k = { .wanted = true, .used = -1, .fd = -1 };
    struct model *m = NULL;
    int r = model_open_as(MODEL, rig.rig.backend, &(struct model_options){ .kept = &k }, &m, why);

    (void)arg;
    if (r == 0 && backend_host(m->backend, m->mem) == m->mem)
        (void)packed_hash(m->mem, m->mem_len);
    model_close(m);
    if (k.fd >= 0)
        (void)close(k.fd);
    return r;
}

static int live_adapter(void *arg, struct why *why)
{
    struct adapter *a = NULL;
    int r = adapter_open(ADAPTER, rig.rig.model, &a, why);

    (void)arg;
    adapter_close(a);
    return r;
}

static void files(void **state)
{
    (void)state;
    fault_life(&(struct fault_life){ .name = "gguf", .live = live_gguf, .says = true });
    fault_life(
        &(struct fault_life){ .name = "safetensors", .live = live_safetensors, .says = true });
    fault_life(&(struct fault_life){ .name = "model", .live = live_model, .says = true });
    fault_life(&(struct fault_life){ .name = "kept weights", .live = live_kept, .says = true });
    fault_life(&(struct fault_life){ .name = "adapter", .live = live_adapter, .says = true });
}

/* --- text ------------------------------------------------------------------------------------- */

static int live_vocab(void *arg, struct why *why)
{
    static const char text[] = "Some words, 123 of them, the the the <|im_end|>";
    struct vocab *v = NULL;
    struct vocab_encoder *e = NULL;
    int r = vocab_open(file, &v, why);
    uint32_t ids[256];
    size_t n;

    (void)arg;
    if (r == 0)
        r = vocab_encoder_new(v, &e);
    if (r == 0)
        vocab_encoder_start(e, text, sizeof(text) - 1, true);
    while (r == 0)
        r = vocab_encoder_next(e, ids, 256, &n);
    vocab_encoder_free(e);
    vocab_close(v);
    return r < 0 ? r : 0;
}

static int live_bpe(void *arg, struct why *why)
{
    struct bpe b = { 0 };
    struct bpe_scratch s = { 0 };
    uint32_t ids[3 * BPE_SHORT];
    size_t n;
    int r = bpe_init(&b, 4);

    (void)arg;
    (void)why;
    for (size_t i = 0; i < 3 * BPE_SHORT; i++)
        ids[i] = (uint32_t)i % 2;
    if (r == 0)
        r = bpe_add(&b, 0, 1, 0, 2);
    if (r == 0)
        r = bpe_merge(&b, &s, ids, 3 * BPE_SHORT, &n);
    bpe_scratch_fini(&s);
    bpe_fini(&b);
    return r;
}

static int no_piece(void *arg, const struct chat_piece *p)
{
    (void)arg;
    (void)p;
    return 0;
}

static int live_chat(void *arg, struct why *why)
{
    struct chat_message m = { "user", "hello", 5 };
    struct chat *c = NULL;
    int r = chat_open(file, &c, why);

    (void)arg;
    if (r == 0)
        r = chat_render(c, &m, 1, CHAT_AT_START, true, no_piece, NULL);
    chat_close(c);
    return r;
}

static void text(void **state)
{
    (void)state;
    fault_life(&(struct fault_life){ .name = "vocab", .live = live_vocab });
    fault_life(&(struct fault_life){ .name = "bpe", .live = live_bpe });
    fault_life(&(struct fault_life){ .name = "chat", .live = live_chat, .says = true });
}

/* --- keys and values -------------------------------------------------------------------------- */

static int live_workers(void *arg, struct why *why)
{
    struct workers *w = NULL;
    int r = workers_open(3, false, &w);

    (void)arg;
    (void)why;
    workers_close(w);
    return r;
}

static int live_pool(void *arg, struct why *why)
{
    struct pool p = { .mem = NULL };
    int r = pool_open(&p, rig.rig.backend, rig.rig.model, KV_Q8_0,
                      64 * pool_page_bytes(rig.rig.model, KV_Q8_0), why);

    (void)arg;
    pool_close(&p);
    return r;
}

static int live_forward(void *arg, struct why *why)
{
    struct forward f;
    int r = forward_open(&f, rig.rig.model, rig.rig.backend, 32, 64);

    (void)arg;
    (void)why;
    if (r == 0)
        forward_close(&f);
    return r;
}

static int live_seq(void *arg, struct why *why)
{
    struct seq s = { .pool = NULL }, other = { .pool = NULL };
    int r = rig_seq(&rig.rig, 256, 64, 0, &s);

    (void)arg;
    (void)why;
    if (r == 0)
        r = seq_reserve(&s, 100);
    if (r == 0)
        r = seq_fork(&s, &other);
    seq_close(&other);
    seq_close(&s);
    return r;
}

static int live_backend(void *arg, struct why *why)
{
    const struct backend_options o = { .cpu = "auto", .threads = 2, .max_rows = 32 };
    struct backend *b = NULL;
    struct compressor *c = NULL;
    int r = backend_open(&backend_cpu, &o, &b, why);

    (void)arg;
    if (r == 0)
        r = b->ops->set_model(b, rig.rig.model, why);
    if (r == 0 && compress_open(rig.rig.model, b, &c) < 0)
        r = why_set(why, -ENOMEM, "no memory for compressing");
    compress_close(c);
    backend_close(b);
    return r;
}

/* A whole session of its own compressor, which reads a segment again. */
static int live_memory(void *arg, struct why *why)
{
    struct policy p = { .spec = { COMPRESS_SELECT_REREAD, 4, 4, NULL },
                        .seg_len = 64,
                        .budget = 4096 };
    struct prefix *prefix = NULL;
    struct memory m = { .seq = NULL }, other = { .seq = NULL };
    struct seq s = { .pool = NULL }, s2 = { .pool = NULL };
    static float logits[200 * 1024];
    uint32_t ids[200];
    int r = prefix_open(&rig.rig.pool, &prefix);

    (void)arg;
    (void)why;
    assert_true(rig.rig.model->n_vocab <= 1024);
    for (uint32_t i = 0; i < 200; i++)
        ids[i] = i % 50;
    if (r == 0)
        r = rig_seq(&rig.rig, 256, 64, 0, &s);
    if (r == 0)
        r = memory_init(&m, &p, &rig.served, &s);
    if (r == 0) {
        memory_share(&m, prefix, 7, false);
        r = memory_rig_feed(&rig, &m, ids, 200, 50, logits);
    }
    if (r == 0) {
        prefix_learn(&m.shared, m.seq, &m.ladder, &m.policy);
        r = seq_fork(&s, &s2);
    }
    if (r == 0)
        r = memory_fork(&m, &other, &s2);
    memory_fini(&other);
    memory_fini(&m);
    seq_close(&s2);
    seq_close(&s);
    prefix_close(prefix);
    return r;
}

static void keys(void **state)
{
    uint32_t n_free = rig.rig.pool.n_free;

    (void)state;
    fault_life(&(struct fault_life){ .name = "workers", .live = live_workers });
    fault_life(&(struct fault_life){ .name = "pool", .live = live_pool, .says = true });
    fault_life(&(struct fault_life){ .name = "forward", .live = live_forward });
    fault_life(&(struct fault_life){ .name = "seq", .live = live_seq });
    fault_life(
        &(struct fault_life){ .name = "backend, compressor", .live = live_backend, .says = true });
    fault_life(&(struct fault_life){ .name = "memory, prefix", .live = live_memory });
    assert_int_equal(rig.rig.pool.n_free, n_free);
    assert_int_equal(rig.rig.account.used, 0);
}

/* --- both ends of the wire -------------------------------------------------------------------- */

static int live_chan(void *arg, struct why *why)
{
    static const struct chan_geometry g = { 16, CHAN_ARENA_MIN, CHAN_ARENA_MIN };
    struct chan *server = NULL, *client = NULL;
    struct chan_fds fds = { -1, -1, -1 };
    int r = chan_create(&g, &server);

    (void)arg;
    (void)why;
    if (r == 0) {
        struct chan_fds own = chan_fds(server);

        fds = (struct chan_fds){ dup(own.memfd), dup(own.to_server), dup(own.to_client) };
        r = chan_attach(&g, fds, &client);
    }
    chan_close(client);
    chan_close(server);
    return r;
}

static int live_arena(void *arg, struct why *why)
{
    struct arena a = { .end = NULL };
    int r = arena_init(&a, 4096, 16);

    (void)arg;
    (void)why;
    arena_fini(&a);
    return r;
}

static void wire(void **state)
{
    (void)state;
    fault_life(&(struct fault_life){ .name = "chan", .live = live_chan });
    fault_life(&(struct fault_life){ .name = "arena", .live = live_arena });
}

/* --- the daemon's ----------------------------------------------------------------------------- */

static int live_answer(void *arg, struct why *why)
{
    static const char *const stops[] = { "stop", "no more" };
    struct answer a = { .text = NULL };
    int r = answer_init(&a, 32, stops, 2);

    (void)arg;
    (void)why;
    if (r == 0) {
        answer_push(&a, 5, (const uint8_t *)"sto", 3);
        answer_end(&a);
    }
    answer_fini(&a);
    return r;
}

static int live_encode(void *arg, struct why *why)
{
    static const char words[] = "Some words of a text that is encoded, and then some more of them.";
    struct held_account held = { .limit = 1 << 20 };
    struct encode e = { .text = { .s = NULL } };
    int r = encode_init(&e, &held, vocab, 1000);

    (void)arg;
    (void)why;
    for (int i = 0; i < 20 && r == 0; i++)
        r = encode_add(&e, words, sizeof(words) - 1, i % 2);
    while (r == 0)
        r = encode_step(&e);
    encode_fini(&e);
    assert_int_equal(held.used, 0);
    return r < 0 ? r : 0;
}

/* Ids that are more than the last ones. */
static int live_document(void *arg, struct why *why)
{
    static const uint32_t text[64];
    const struct owner_limits limits = { .held = 1 << 20, .held_all = 1 << 20 };
    struct documents all;
    struct document_need need;
    struct document *d;
    struct owners owners;
    int r;

    (void)arg;
    (void)why;
    owners_init(&owners, &limits);
    documents_init(&all, &rig.rig.pool, &owners, 0, 1 << 20);
    r = document_new(&all, 1000, "a", &d, &need);
    if (r == 0)
        r = document_take_ids(d, text, 32, &need);
    if (r == 0)
        r = document_take_ids(d, text, 64, &need);
    documents_close(&all);
    owners_fini(&owners);
    return r;
}

static int live_held(void *arg, struct why *why)
{
    struct held_account a = { .limit = 1000 };
    void *mem = NULL;
    size_t len = 0;
    int r = held_resize(&a, &mem, &len, 100), r2;

    (void)arg;
    (void)why;
    if (r == 0)
        r = held_resize(&a, &mem, &len, 900);
    assert_int_equal(a.used, len);
    r2 = held_resize(&a, &mem, &len, 0);
    assert_int_equal(r2, 0);
    return r;
}

static int live_mailbox(void *arg, struct why *why)
{
    struct mailbox m = { .bell = -1 };
    int r = mailbox_open(&m, 100);

    (void)arg;
    (void)why;
    mailbox_close(&m);
    return r;
}

static int live_config(void *arg, struct why *why)
{
    char *argv[] = { (char *)"gistd", (char *)"--config", arg, (char *)"--threads=2", NULL };
    char *env[] = { NULL };
    struct config c;
    int r = config_load(&c, 4, argv, env, why);

    /* What is at the end of the file was read, or there is an error. */
    assert_true(r < 0 || c.batch_tokens == 77);
    return r;
}

static int live_listener(void *arg, struct why *why)
{
    struct config c;
    struct listener l;
    int r;

    config_defaults(&c);
    (void)snprintf(c.socket, sizeof(c.socket), "%s", (char *)arg);
    r = listener_open(&l, &c, why);
    if (r == 0)
        listener_close(&l);
    return r;
}

static void daemon_parts(void **state)
{
    char conf[SCRATCH_PATH_MAX], sock[SCRATCH_PATH_MAX];
    FILE *f = fopen(scratch_path(conf, "gistd.conf"), "we");

    (void)state;
    assert_non_null(f);
    assert_true(fputs("# a comment\nthreads = 3\nbatch-tokens = 77\n", f) >= 0);
    assert_int_equal(fclose(f), 0);
    scratch_path(sock, "s");
    fault_life(&(struct fault_life){ .name = "answer", .live = live_answer });
    fault_life(&(struct fault_life){ .name = "encode", .live = live_encode });
    fault_life(&(struct fault_life){ .name = "document", .live = live_document });
    fault_life(&(struct fault_life){ .name = "held", .live = live_held });
    fault_life(&(struct fault_life){ .name = "mailbox", .live = live_mailbox });
    fault_life(
        &(struct fault_life){ .name = "config", .live = live_config, .arg = conf, .says = true });
    fault_life(&(struct fault_life){
        .name = "listener", .live = live_listener, .arg = sock, .says = true });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files), cmocka_unit_test(text),         cmocka_unit_test(keys),
        cmocka_unit_test(wire),  cmocka_unit_test(daemon_parts),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
