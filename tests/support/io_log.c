#include "tests/support/io_log.h"

#include "tests/support/file.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512u
#define NEVER  SIZE_MAX /* has not ended */
#define NONE   UINT32_MAX

struct name {
    char path[256]; /* from the folder on */
    uint32_t file;  /* NONE: a name that is gone */
};

struct names {
    struct name *v;
    size_t n;
};

struct file {
    ino_t ino;
    uint8_t *bytes; /* as it was when the log began */
    size_t len;
};

struct entry {
    struct io_op op; /* mem: a copy; paths: none */
    uint64_t chain;
    size_t handed_over, begin, end;
    int64_t result;
    uint32_t file; /* of a transfer, a sync, an open, or that is renamed or unlinked */
    bool makes;    /* an IO_OPEN that made its file */
    char path[256], to[256];
};

struct io_log {
    char *folder;
    struct names start, now; /* now: as the running program sees them */
    char (*folders)[256];
    size_t n_folders;
    struct file *files;
    uint32_t n_files;
    struct entry *entries;
    size_t n_entries, n_points;
    uint32_t of_fd[1024]; /* files of open descriptors */
};

static void *grown(void *v, size_t n, size_t size)
{
    if ((n & (n - 1)) == 0) /* full at each power of two */
        v = realloc(v, (n ? 2 * n : 1) * size);
    assert(v);
    return v;
}

/* --- names and files -------------------------------------------------------------------------- */

static struct name *find_name(struct names *l, const char *path)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->v[i].path, path) == 0)
            return &l->v[i];
    return NULL;
}

static uint32_t file_of(struct names *l, const char *path)
{
    const struct name *n = find_name(l, path);

    return n ? n->file : NONE;
}

static void set_name(struct names *l, const char *path, uint32_t file)
{
    struct name *n = find_name(l, path);

    if (!n) {
        l->v = grown(l->v, l->n, sizeof(*l->v));
        n = &l->v[l->n++];
        (void)snprintf(n->path, sizeof(n->path), "%s", path);
    }
    n->file = file;
}

static uint32_t add_file(struct io_log *l, ino_t ino)
{
    l->files = grown(l->files, l->n_files, sizeof(*l->files));
    l->files[l->n_files] = (struct file){ .ino = ino };
    return l->n_files++;
}

/* Where an open descriptor is, from the folder on. False: somewhere else. */
static bool path_of_fd(const struct io_log *l, int fd, char ret[256])
{
    char link[64], path[4096];
    size_t n = strlen(l->folder);
    ssize_t len;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    len = readlink(link, path, sizeof(path) - 1);
    if (len < 0)
        return false;
    path[len] = '\0';
    if (strncmp(path, l->folder, n) != 0 || (path[n] && path[n] != '/'))
        return false;
    (void)snprintf(ret, 256, "%s", path[n] ? path + n + 1 : "");
    return true;
}

static void join(char ret[256], const char *folder, const char *name)
{
    int n = snprintf(ret, 256, "%s%s%s", folder, folder[0] ? "/" : "", name);

    assert(n < 256);
    (void)n;
}

static void add_folder(struct io_log *l, const char *path)
{
    for (size_t i = 0; i < l->n_folders; i++)
        if (strcmp(l->folders[i], path) == 0)
            return;
    l->folders = grown(l->folders, l->n_folders, sizeof(*l->folders));
    (void)snprintf(l->folders[l->n_folders++], 256, "%s", path);
}

static void scan(struct io_log *l, const char *folder)
{
    char path[4096 + 512], inside[256];
    struct dirent *e;
    DIR *d;

    add_folder(l, folder);
    (void)snprintf(path, sizeof(path), "%s/%s", l->folder, folder);
    d = opendir(path);
    assert(d);
    while ((e = readdir(d))) {
        struct stat st;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        join(inside, folder, e->d_name);
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            abort();
        if (S_ISDIR(st.st_mode))
            scan(l, inside);
        if (S_ISREG(st.st_mode)) {
            uint32_t f = add_file(l, st.st_ino);

            (void)snprintf(path, sizeof(path), "%s/%s", l->folder, inside);
            l->files[f].bytes = file_read(path, &l->files[f].len);
            set_name(&l->now, inside, f);
        }
    }
    (void)closedir(d);
}

struct io_log *io_log_new(const char *folder)
{
    struct io_log *l = calloc(1, sizeof(*l));

    assert(l);
    l->folder = realpath(folder, NULL);
    assert(l->folder);
    memset(l->of_fd, 0xff, sizeof(l->of_fd));
    scan(l, "");
    for (size_t i = 0; i < l->now.n; i++)
        set_name(&l->start, l->now.v[i].path, l->now.v[i].file);
    return l;
}

void io_log_free(struct io_log *l)
{
    if (!l)
        return;
    for (uint32_t i = 0; i < l->n_files; i++)
        free(l->files[i].bytes);
    for (size_t i = 0; i < l->n_entries; i++)
        free(l->entries[i].op.mem);
    free(l->folder);
    free(l->start.v);
    free(l->now.v);
    free(l->folders);
    free(l->files);
    free(l->entries);
    free(l);
}

size_t io_log_points(const struct io_log *l)
{
    return l->n_points;
}

/* --- writing it ------------------------------------------------------------------------------- */

/* The file behind a descriptor, also when the program opened it past the io. */
static uint32_t file_of_fd(struct io_log *l, int fd)
{
    char path[256];
    struct stat st;
    uint32_t f;

    if (fd < 0 || fd >= 1024 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return NONE;
    f = l->of_fd[fd];
    if (f != NONE && l->files[f].ino == st.st_ino)
        return f;
    f = path_of_fd(l, fd, path) ? file_of(&l->now, path) : NONE;
    l->of_fd[fd] = f;
    return f;
}

static void *copy_of(const void *p, size_t n)
{
    void *copy = malloc(n ? n : 1);

    assert(copy);
    return memcpy(copy, p, n);
}

size_t io_log_begin(struct io_log *l, const struct io_op *op, uint64_t chain, size_t handed_over)
{
    struct entry *e;
    char folder[256];

    l->entries = grown(l->entries, l->n_entries, sizeof(*l->entries));
    e = &l->entries[l->n_entries];
    *e = (struct entry){ .op = *op,
                         .chain = chain,
                         .handed_over = handed_over,
                         .begin = l->n_points++,
                         .end = NEVER,
                         .file = NONE };
    e->op.mem = op->code == IO_WRITE ? copy_of(op->mem, op->len) : NULL;
    e->op.path = e->op.to = NULL;
    if (op->path && path_of_fd(l, op->fd, folder)) {
        add_folder(l, folder);
        join(e->path, folder, op->path);
        if (op->to)
            join(e->to, folder, op->to);
        e->file = file_of(&l->now, e->path);
    } else if (op->code == IO_SYNC && file_of_fd(l, op->fd) == NONE) {
        if (path_of_fd(l, op->fd, e->path))
            add_folder(l, e->path);
        else
            (void)snprintf(e->path, sizeof(e->path), "elsewhere");
    } else {
        e->file = file_of_fd(l, op->fd);
    }
    if (op->code == IO_CLOSE && op->fd >= 0 && op->fd < 1024)
        l->of_fd[op->fd] = NONE;
    return l->n_entries++;
}

static void opened(struct io_log *l, struct entry *e, int fd)
{
    struct stat st;

    if (!e->path[0] || fd >= 1024 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return;
    e->file = file_of(&l->now, e->path);
    if (e->file == NONE || l->files[e->file].ino != st.st_ino) {
        e->file = add_file(l, st.st_ino);
        e->makes = true;
        set_name(&l->now, e->path, e->file);
    }
    l->of_fd[fd] = e->file;
}

void io_log_end(struct io_log *l, size_t entry, int64_t result)
{
    struct entry *e = &l->entries[entry];

    e->end = l->n_points++;
    e->result = result;
    if (result < 0)
        return;
    if (e->op.code == IO_OPEN)
        opened(l, e, (int)result);
    if (e->op.code == IO_UNLINK && e->path[0])
        set_name(&l->now, e->path, NONE);
    if (e->op.code == IO_RENAME && e->path[0]) {
        set_name(&l->now, e->path, NONE);
        set_name(&l->now, e->to, e->file);
    }
}

const char *io_log_say(const struct io_log *l, size_t point, char ret[256])
{
    static const char *const words[IO_CODE__N] = { "read", "write", "sync",   "alloc",
                                                   "open", "close", "rename", "unlink" };

    (void)snprintf(ret, 256, "after all");
    for (size_t i = 0; i < l->n_entries; i++) {
        const struct entry *e = &l->entries[i];

        if (e->begin == point || e->end == point)
            (void)snprintf(ret, 256,
                           "before the %s of: %s %.60s %.60s of file %d, chain %llu: %lld",
                           e->begin == point ? "begin" : "end", words[e->op.code], e->path, e->to,
                           (int)e->file, (unsigned long long)e->chain, (long long)e->result);
    }
    return ret;
}

/* --- what a cut leaves ------------------------------------------------------------------------ */

struct cut {
    const struct io_log *l;
    size_t point;
    uint64_t seed, random;
};

static uint64_t next_random(struct cut *c)
{
    uint64_t z = c->random += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* Whether something that is not durable is there all the same. */
static bool perhaps(struct cut *c)
{
    return c->seed > 1 ? next_random(c) & 1 : c->seed == 1;
}

static bool has_begun(const struct cut *c, const struct entry *e)
{
    return e->begin < c->point && e->result >= 0;
}

/* D1, D2: s is a sync that had ended, of what e is about, and began after e had ended. */
static bool covers(const struct cut *c, const struct entry *s, const struct entry *e)
{
    return s->op.code == IO_SYNC && s->end < c->point && s->result >= 0 && e->end < s->begin &&
           (e->end < s->handed_over || e->chain == s->chain);
}

static bool is_of_folder(const struct entry *sync, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;

    return sync->file == NONE && strncmp(sync->path, path, n) == 0 && sync->path[n] == '\0';
}

static bool bytes_durable(const struct cut *c, const struct entry *e)
{
    for (size_t i = 0; i < c->l->n_entries; i++)
        if (c->l->entries[i].file == e->file && covers(c, &c->l->entries[i], e))
            return true;
    return false;
}

static bool name_durable(const struct cut *c, const struct entry *e)
{
    for (size_t i = 0; i < c->l->n_entries; i++)
        if (is_of_folder(&c->l->entries[i], e->path) && covers(c, &c->l->entries[i], e))
            return true;
    return false;
}

static bool changes_name(const struct entry *e)
{
    return e->path[0] && e->file != NONE &&
           (e->makes || e->op.code == IO_RENAME || e->op.code == IO_UNLINK);
}

static void apply_name(struct names *names, const struct entry *e)
{
    if (e->makes)
        set_name(names, e->path, e->file);
    /* Another file may have that name now: its making was kept and the removal of this one lost. */
    else if (file_of(names, e->path) == e->file)
        set_name(names, e->path, NONE);
    if (e->op.code == IO_RENAME)
        set_name(names, e->to, e->file);
}

/* Which of the changes of names there are: what is durable, and of the rest any, or all up to some
 * moment. */
static void cut_names(struct cut *c, struct names *names)
{
    const struct io_log *l = c->l;
    bool journal = c->seed > 1 && c->seed % 2;
    size_t n = 0, after = 0, stop;

    for (size_t i = 0; i < l->n_entries; i++)
        if (changes_name(&l->entries[i]) && has_begun(c, &l->entries[i])) {
            n++;
            after = name_durable(c, &l->entries[i]) ? n : after;
        }
    stop = after + (journal ? next_random(c) % (n - after + 1) : 0);
    n = 0;
    for (size_t i = 0; i < l->n_entries; i++) {
        const struct entry *e = &l->entries[i];

        if (!changes_name(e) || !has_begun(c, e))
            continue;
        n++;
        if (journal ? n <= stop : name_durable(c, e) || perhaps(c))
            apply_name(names, e);
    }
}

struct content {
    uint8_t *bytes;
    size_t len;
};

static void grow_to(struct content *f, size_t len)
{
    if (len <= f->len)
        return;
    f->bytes = realloc(f->bytes, len);
    assert(f->bytes);
    memset(f->bytes + f->len, 0, len - f->len);
    f->len = len;
}

static void apply_write(struct cut *c, struct content *f, const struct entry *e, bool durable)
{
    const uint8_t *from = e->op.mem;
    size_t off = e->op.off, end = off + e->op.len;
    uint64_t what = c->seed > 1 ? next_random(c) % 3 : c->seed;

    if (!durable && what == 0) {
        if (c->seed > 1 && perhaps(c))
            grow_to(f, end); /* the length alone */
        return;
    }
    if (durable || what == 1) {
        grow_to(f, end);
        memcpy(f->bytes + off, from, end - off);
        return;
    }
    for (size_t at = off; at < end;) {
        size_t next = at - at % SECTOR + SECTOR;

        next = next < end ? next : end;
        if (perhaps(c)) {
            grow_to(f, next);
            memcpy(f->bytes + at, from + (at - off), next - at);
        }
        at = next;
    }
    if (perhaps(c))
        grow_to(f, end);
}

static void cut_file(struct cut *c, uint32_t file, const char *path)
{
    const struct io_log *l = c->l;
    const struct file *start = &l->files[file];
    struct content f = { copy_of(start->bytes ? start->bytes : (const void *)"", start->len),
                         start->len };

    for (size_t i = 0; i < l->n_entries; i++) {
        const struct entry *e = &l->entries[i];
        bool durable;

        if (e->file != file || !has_begun(c, e))
            continue;
        durable = bytes_durable(c, e);
        if (e->op.code == IO_WRITE)
            apply_write(c, &f, e, durable);
        else if (e->op.code == IO_ALLOC && (durable || perhaps(c)))
            grow_to(&f, e->op.off + e->op.len);
        else if (e->op.code == IO_OPEN && e->op.flags & O_TRUNC && (durable || perhaps(c)))
            f.len = 0;
    }
    file_write(path, f.bytes, f.len);
    free(f.bytes);
}

void io_log_cut(const struct io_log *l, size_t point, uint64_t seed, const char *to)
{
    struct cut c = { .l = l, .point = point, .seed = seed, .random = seed * 7919 + point };
    struct names names = { NULL, 0 };
    char path[4096];

    for (size_t i = 0; i < l->n_folders; i++) { /* each behind the one that it is in */
        (void)snprintf(path, sizeof(path), "%s/%s", to, l->folders[i]);
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
            abort();
    }
    for (size_t i = 0; i < l->start.n; i++)
        set_name(&names, l->start.v[i].path, l->start.v[i].file);
    cut_names(&c, &names);
    for (size_t i = 0; i < names.n; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", to, names.v[i].path);
        if (names.v[i].file != NONE)
            cut_file(&c, names.v[i].file, path);
    }
    free(names.v);
}
