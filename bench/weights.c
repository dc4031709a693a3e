/* bench/weights.c - how long weights take to be there, by each way, and how fast they are then.
 *
 *     weights [-n N] [-b BYTES]... MODEL FOLDER
 *
 * Packs MODEL, writes its image into FOLDER (once; an image that is there is used), and prints a
 * JSON object a line:
 *
 *     {"way": ..., "cold": ..., "load_ns": ..., "check_ns": ..., "decode": tokens/s}
 *
 * pack: from the GGUF file. direct: the image by O_DIRECT into huge pages, many reads at once.
 * buffered: the same through the page cache, by two threads. mapped: the image's own pages, asked
 * for at once; mapped-huge: with huge pages where the file system gives them. check_ns is the
 * comparison with all digests. Cold: the file was dropped from the page cache first. -b: the model
 * streams under that budget, with bytes read a second and what a step waits for the disk.
 */
#include "base/clock.h"
#include "engine/backend.h"
#include "engine/file/hparams.h"
#include "engine/file/image_make.h"
#include "engine/file/stream.h"
#include "engine/forward.h"
#include "store/io.h"

#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BUDGETS_MAX 16
#define PIECE       ((size_t)4 << 20)

static uint32_t n_tokens = 16;
static const struct io_options io_any = { .kind = IO_AUTO };

static void die(const char *what)
{
    (void)fprintf(stderr, "bench/weights: %s\n", what);
    exit(1);
}

static struct backend *open_backend(void)
{
    const struct backend_options o = { .cpu = "auto", .pin = true, .max_rows = 32 };
    struct why why = { "" };
    struct backend *b;

    if (backend_open(&backend_cpu, &o, &b, &why) < 0)
        die(why.text);
    return b;
}

/* Tokens a second behind a short context, of the best token: others may work here, too. Of a stream
 * of all of them. */
static double decode(struct backend *b, const struct model *m)
{
    struct pool_account account = { .limit = 1000 };
    float *logits = malloc(m->n_vocab * sizeof(*logits));
    struct why why = { "" };
    struct forward f;
    struct pool pool;
    struct seq seq;
    uint64_t start = 0, best = UINT64_MAX, last = 0;

    if (b->ops->set_model(b, m, &why) < 0 ||
        pool_open(&pool, b, m, KV_F16, 32 * pool_page_bytes(m, KV_F16), &why) < 0)
        die(why.text);
    if (forward_open(&f, m, b, 32, pool.n_pages) < 0 ||
        seq_open(&seq, &pool, &account, 512, SEQ_SEGMENT_DEFAULT, 0) < 0)
        die("out of memory");
    for (uint32_t i = 0; i <= n_tokens; i++) {
        uint32_t id = (uint32_t)(i * 2654435761u >> 8) % m->n_vocab, n_out;
        struct forward_run run = {
            .seq = &seq, .tokens = &id, .n_tokens = 1, .want = FORWARD_WANT_LAST
        };

        if (i == 1)
            start = clock_ns(); /* the first one meets fresh memory */
        if (seq_reserve(&seq, 1) < 0 || forward_step(&f, &run, 1, NULL, &n_out) < 0 ||
            forward_logits(&f, 0, 1, logits) < 0)
            die(m->stream ? stream_why(m->stream) : "a step failed");
        if (i > 0 && clock_ns() - last < best)
            best = clock_ns() - last;
        last = clock_ns();
    }
    start = clock_ns() - start;
    seq_close(&seq);
    forward_close(&f);
    pool_close(&pool);
    free(logits);
    return m->stream ? n_tokens * 1e9 / (double)start : 1e9 / (double)best;
}

static void drop(int fd)
{
    (void)fdatasync(fd);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

static void print(const char *way, bool cold, uint64_t load, uint64_t check, double speed)
{
    printf("{\"way\": \"%s\", \"cold\": %s, \"load_ns\": %llu, \"check_ns\": %llu, "
           "\"decode\": %.2f}\n",
           way, cold ? "true" : "false", (unsigned long long)load, (unsigned long long)check,
           speed);
    (void)fflush(stdout);
}

/* --- ways ------------------------------------------------------------------------------------- */

static void by_packing(const char *path, bool cold)
{
    struct backend *b = open_backend();
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct why why = { "" };
    struct model *m;
    uint64_t start;

    if (cold)
        drop(fd);
    start = clock_ns();
    if (model_open(path, b, NULL, &m, &why) < 0)
        die(why.text);
    start = clock_ns() - start;
    print("pack", cold, start, 0, decode(b, m));
    model_close(m);
    backend_close(b);
    (void)close(fd);
}

/* A planned model, and its image. */
struct planned {
    struct model m;
    struct weights w;
    struct image_of of;
    const float *factors;
};

static void open_plan(struct planned *p, const char *path, struct backend *b)
{
    struct why why = { "" };
    float scale;

    *p = (struct planned){ .m.backend = b };
    if (gguf_open(path, &p->m.file, &why) < 0 || hparams_read(p->m.file, &p->m, &scale, &why) < 0 ||
        weights_plan(p->m.file, &p->m, &p->factors, &p->w, &why) < 0)
        die(why.text);
    if (image_identify(&p->m.packed, p->m.file, &p->of) < 0)
        die("no identity");
    p->m.rope_freq = calloc(p->m.head_dim / 2, sizeof(float)); /* speed is all that counts here */
}

static void close_plan(struct planned *p)
{
    weights_fini(&p->w);
    packed_close(&p->m.packed);
    free(p->m.rope_freq);
    free(p->m.layers);
    gguf_close(p->m.file);
}

static void read_direct(const struct image_file *f, uint8_t *mem, size_t len)
{
    struct io_options o = io_any;
    struct why why = { "" };
    struct io_done done[32];
    size_t at = 0;
    uint32_t out = 0;
    struct io *io;

    o.depth = 16;
    if (io_open(&o, &io, &why) < 0)
        die(why.text);
    while (at < len || out > 0) {
        uint32_t n;

        while (at < len && out < o.depth) {
            struct io_op op = { .code = IO_READ, .fd = f->fd, .mem = mem + at, .cookie = at };

            op.len = len - at < PIECE ? len - at : PIECE;
            op.off = f->arena_off + at;
            if (io_queue(io, &op) < 0)
                break;
            at += op.len;
            out++;
        }
        (void)io_wait(io);
        n = io_reap(io, done, 32);
        for (uint32_t i = 0; i < n; i++)
            if (done[i].result <= 0)
                die("reading the image");
        out -= n;
    }
    io_close(io);
}

struct half {
    int fd;
    uint8_t *mem;
    size_t from, to;
    uint64_t off;
};

static void *read_half(void *arg)
{
    struct half *h = arg;

    for (size_t at = h->from; at < h->to;) {
        size_t n = h->to - at < PIECE ? h->to - at : PIECE;
        ssize_t r = pread(h->fd, h->mem + at, n, (off_t)(h->off + at));

        if (r <= 0)
            die("reading the image");
        at += (size_t)r;
    }
    return NULL;
}

static void read_buffered(const struct image_file *f, uint8_t *mem, size_t len)
{
    struct half a = { f->fd, mem, 0, len / 2, f->arena_off }, b = a;
    pthread_t t;

    b.from = a.to;
    b.to = len;
    if (pthread_create(&t, NULL, read_half, &b) != 0)
        die("no thread");
    (void)read_half(&a);
    (void)pthread_join(t, NULL);
}

static uint8_t *map(const struct image_file *f, size_t len, bool huge, uint8_t **ret_map)
{
    size_t all = f->arena_off + len, room = all + IMAGE_ALIGN;
    uint8_t *at = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    at = (uint8_t *)(((uintptr_t)at + IMAGE_ALIGN - 1) / IMAGE_ALIGN * IMAGE_ALIGN);
    at = mmap(at, all, PROT_READ, MAP_PRIVATE | MAP_FIXED, f->fd, 0);
    if (at == MAP_FAILED)
        die("the image can't be mapped");
    if (huge)
        (void)madvise(at, all, MADV_HUGEPAGE);
    (void)madvise(at, all, 22 /* MADV_POPULATE_READ */);
    *ret_map = at;
    return at + f->arena_off;
}

static void by_image(const char *path, const char *folder, const char *way, bool cold)
{
    struct backend *b = open_backend();
    bool mapped = strncmp(way, "mapped", 6) == 0;
    struct why why = { "" };
    struct image_file f;
    struct planned p;
    uint64_t load, check;
    uint8_t *mapping = NULL;
    void *mem;

    open_plan(&p, path, b);
    if (image_file_open(folder, &p.of, &f, &why) < 0 &&
        (image_make(folder, &p.of, &p.w, b, NULL, &why) < 0 ||
         image_file_open(folder, &p.of, &f, &why) < 0))
        die(why.text);
    if (cold)
        drop(f.fd);
    if (strcmp(way, "direct") != 0)
        (void)fcntl(f.fd, F_SETFL, fcntl(f.fd, F_GETFL) & ~O_DIRECT);
    load = clock_ns();
    if (mapped) {
        mem = map(&f, p.m.packed.len, strcmp(way, "mapped-huge") == 0, &mapping);
    } else {
        if (backend_alloc(b, p.m.packed.len, &mem) < 0)
            die("out of memory");
        (strcmp(way, "direct") == 0 ? read_direct : read_buffered)(&f, mem, p.m.packed.len);
    }
    check = clock_ns();
    load = check - load;
    if (packed_check(&p.m.packed, b, mem, 0, p.m.packed.n_sums, image_sums(f.head)) < 0)
        die("the image is damaged");
    check = clock_ns() - check;
    weights_bind(&p.w, mem);
    if (!p.m.output.data)
        p.m.output = p.m.embd;
    print(way, cold, load, check, decode(b, &p.m));
    if (mapped)
        (void)munmap(mapping, f.arena_off + p.m.packed.len);
    else
        backend_free(b, mem, p.m.packed.len);
    close_plan(&p);
    image_file_close(&f);
    backend_close(b);
}

static void by_stream(const char *path, const char *folder, uint64_t budget)
{
    struct model_options o = { .images = folder, .weight_bytes = budget, .io = &io_any };
    struct stream_stats before, s;
    struct backend *b = open_backend();
    struct why why = { "" };
    struct model *m;
    uint64_t load = clock_ns();
    double speed;

    if (model_open_as(path, b, &o, &m, &why) < 0)
        die(why.text);
    load = clock_ns() - load;
    if (!m->stream)
        die("the budget is enough for all weights");
    stream_stats(m->stream, &before);
    speed = decode(b, m);
    stream_stats(m->stream, &s);
    printf("{\"way\": \"stream\", \"budget\": %llu, \"memory\": %llu, \"resident\": %llu, "
           "\"streamed\": %llu, \"load_ns\": %llu, \"decode\": %.2f, \"read_mb_s\": %.0f, "
           "\"waited\": %.2f, \"io\": \"%s\"}\n",
           (unsigned long long)budget, (unsigned long long)s.memory, (unsigned long long)s.resident,
           (unsigned long long)s.streamed, (unsigned long long)load, speed,
           (double)(s.read - before.read) * 1e3 / (double)(s.step_ns - before.step_ns),
           (double)(s.waited_ns - before.waited_ns) / (double)(s.step_ns - before.step_ns), s.io);
    model_close(m);
    backend_close(b);
}

int main(int argc, char **argv)
{
    uint64_t budgets[BUDGETS_MAX];
    int c, n = 0;

    while ((c = getopt(argc, argv, "n:b:")) != -1) {
        if (c == 'n')
            n_tokens = (uint32_t)strtoul(optarg, NULL, 10);
        else if (c == 'b' && n < BUDGETS_MAX)
            budgets[n++] = strtoull(optarg, NULL, 10);
        else
            die("usage: weights [-n N] [-b BYTES]... MODEL FOLDER");
    }
    if (argc - optind != 2 || n_tokens == 0)
        die("usage: weights [-n N] [-b BYTES]... MODEL FOLDER");
    if (n == 0) {
        static const char *const ways[] = { "direct", "buffered", "mapped", "mapped-huge" };

        for (int cold = 1; cold >= 0; cold--)
            by_packing(argv[optind], cold);
        for (unsigned i = 0; i < sizeof(ways) / sizeof(*ways); i++)
            for (int cold = 1; cold >= 0; cold--)
                by_image(argv[optind], argv[optind + 1], ways[i], cold);
    }
    for (int i = 0; i < n; i++)
        by_stream(argv[optind], argv[optind + 1], budgets[i]);
    return 0;
}
