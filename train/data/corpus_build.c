/* train/data/corpus_build.c - inputs, one after the other, to a corpus file: documents are read,
 * encoded and written one at a time, so memory is that of the longest.
 */
#include "train/data/corpus_build.h"

#include "base/files.h"
#include "engine/file/gguf.h"
#include "train/data/corpus_file.h"
#include "train/data/corpus_text.h"

#include <errno.h>
#include <fts.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* why: of whoever asked for the corpus; the first error's. */
struct building {
    const struct corpus_build *b;
    struct corpus_text *text;
    struct corpus_writer *writer;
    struct corpus_built done;
    struct why *why;
    uint32_t source; /* of the input at hand */
};

/* Without a token it is none, and no error: empty files are in many folders. */
static int add_document(struct building *g, const char *path, const struct corpus_ids *d)
{
    const struct corpus_build *b = g->b;
    float weight = b->long_weight > 0 && d->n >= b->long_tokens ? b->long_weight : 1;
    int r;

    if (d->n == 0)
        return 0;
    r = corpus_writer_document(g->writer, d->ids, d->loss, d->n, g->source, weight, g->why);
    if (r < 0)
        return r;
    g->done.n_documents++;
    g->done.n_tokens += d->n;
    for (size_t i = 0; i < d->n; i++)
        g->done.n_loss += d->loss[i];
    /* After each: it is also how a build is stopped. */
    if (b->progress && b->progress(b->arg, path, g->done.n_documents, g->done.n_tokens))
        return why_set(g->why, -ECANCELED, "%s: stopped", b->out);
    return 0;
}

static int fail_io(struct building *g, const char *path, int err)
{
    return why_set(g->why, -err, "%s: %s", path, strerror(err));
}

/* --- one file --------------------------------------------------------------------------------- */

/* An empty line is no document, and no mistake. */
static bool is_blank(const char *line, size_t len)
{
    while (len > 0 && line[len - 1] && strchr(" \t\r\n", line[len - 1]))
        len--;
    return len == 0;
}

static int add_jsonl(struct building *g, const char *path)
{
    FILE *f = fopen(path, "re");
    char *line = NULL, *where = NULL;
    size_t cap = 0, number = 0;
    ssize_t len;
    int r = 0;

    if (!f)
        return fail_io(g, path, errno);
    /* where: said only when something is wrong, but made for each line, since the encoder below
     * says it. */
    while (r == 0 && (len = getline(&line, &cap, f)) >= 0) {
        struct corpus_ids d;

        number++;
        g->done.bytes_in += (size_t)len;
        if (is_blank(line, (size_t)len))
            continue;
        /* The last line may have none. */
        len -= line[len - 1] == '\n';
        if (asprintf(&where, "%s:%zu", path, number) < 0) {
            where = NULL;
            r = why_set(g->why, -ENOMEM, "%s: no memory", path);
            break;
        }
        r = corpus_text_line(g->text, line, (size_t)len, where, &d, g->why);
        if (r == 0)
            r = add_document(g, path, &d);
        free(where);
        where = NULL;
    }
    if (r == 0 && (r = files_lines_end(f)) < 0)
        r = fail_io(g, path, -r);
    free(line);
    (void)fclose(f);
    return r;
}

/* The whole file. It may be cut or grow while it is read: what is there is taken. *ret is the
 * caller's, also behind an error. */
static int read_whole(struct building *g, const char *path, char **ret, size_t *ret_len)
{
    FILE *f = fopen(path, "re");
    struct stat st;
    int r;

    if (!f || fstat(fileno(f), &st) < 0) {
        r = fail_io(g, path, errno);
        /* One more: an empty file is no failure. */
    } else if (!(*ret = malloc((size_t)st.st_size + 1))) {
        r = fail_io(g, path, ENOMEM);
    } else {
        *ret_len = fread(*ret, 1, (size_t)st.st_size, f);
        r = ferror(f) ? fail_io(g, path, errno) : 0;
    }
    if (f)
        (void)fclose(f);
    return r;
}

static int add_text(struct building *g, const char *path)
{
    struct corpus_ids d;
    char *text = NULL;
    size_t len = 0;
    int r = read_whole(g, path, &text, &len);

    g->done.bytes_in += len;
    if (r == 0)
        r = corpus_text_plain(g->text, text, len, path, &d, g->why);
    if (r == 0)
        r = add_document(g, path, &d);
    free(text);
    return r;
}

/* By its name: a folder has both kinds. */
static int add_file(struct building *g, const char *path)
{
    size_t len = strlen(path);

    return len > 6 && strcmp(path + len - 6, ".jsonl") == 0 ? add_jsonl(g, path)
                                                            : add_text(g, path);
}

/* --- inputs ----------------------------------------------------------------------------------- */

/* So that a folder gives the same corpus on every machine. */
static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* A file or a folder. */
static int add_tree(struct building *g, char *path)
{
    char *roots[] = { path, NULL };
    /* Links inside of a folder are left out, lest one points back. */
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
    FTSENT *e;
    int r = 0;

    if (!walk)
        return fail_io(g, path, errno);
    errno = 0;
    while (r == 0 && (e = fts_read(walk))) {
        if (e->fts_level > 0 && e->fts_name[0] == '.')
            /* Hidden files and folders; the root itself may be one. */
            (void)fts_set(walk, e, FTS_SKIP);
        /* Links, sockets and the like are left out. */
        else if (e->fts_info == FTS_F)
            r = add_file(g, e->fts_path);
        else if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS)
            r = fail_io(g, e->fts_path, e->fts_errno);
    }
    /* fts_read returns NULL at the end and for an error. */
    if (r == 0 && errno)
        r = fail_io(g, path, errno);
    (void)fts_close(walk);
    return r;
}

/* "NAME=PATH", or "PATH", whose last part gives the name. free() both. */
static int split_input(const char *input, char **ret_name, char **ret_path)
{
    /* A = behind a slash is part of a path. */
    size_t len = strcspn(input, "=/");
    const char *path = input[len] == '=' ? input + len + 1 : input, *name = input;

    if (path == input) {
        /* A folder's name with a slash behind it. */
        for (len = strlen(path); len > 1 && path[len - 1] == '/'; len--)
            ;
        for (const char *p = path; p < path + len - 1; p++)
            if (*p == '/')
                name = p + 1;
        len -= (size_t)(name - path);
        if (len > 6 && memcmp(name + len - 6, ".jsonl", 6) == 0)
            len -= 6;
    }
    /* One of both may be there when the other is not: the caller frees what there is. */
    *ret_name = strndup(name, len);
    *ret_path = strdup(path);
    return *ret_name && *ret_path ? 0 : -ENOMEM;
}

static int add_input(struct building *g, const char *input)
{
    uint64_t before = g->done.n_tokens;
    char *name, *path;
    int r = split_input(input, &name, &path);

    if (r < 0)
        (void)why_set(g->why, r, "%s: no memory", input);
    if (r == 0)
        r = corpus_writer_source(g->writer, name, &g->source, g->why);
    if (r == 0)
        r = add_tree(g, path);
    /* Most often a path that is not meant: better said now than found in a run. */
    if (r == 0 && g->done.n_tokens == before)
        r = why_set(g->why, -EINVAL, "%s: found no text in it", path);
    free(name);
    free(path);
    return r;
}

/* Before the model is opened. */
static int check(const struct corpus_build *b, struct why *why)
{
    if (b->n_inputs == 0)
        return why_set(why, -EINVAL, "%s: a corpus needs at least one input", b->out);
    if (!isfinite(b->long_weight) || b->long_weight < 0)
        return why_set(why, -EINVAL,
                       "%s: found the weight %g for long documents, allowed: 0 or more", b->out,
                       (double)b->long_weight);
    return 0;
}

/* What of the file's header is known before the tokens are. */
static int open_model(struct building *g, struct corpus_file_header *head)
{
    char digest[CORPUS_DIGEST_LEN];
    struct gguf *file = NULL;
    int r = gguf_open(g->b->model, &file, g->why);

    if (r == 0)
        r = corpus_digest(file, digest, g->why);
    if (r == 0)
        r = corpus_text_open(file, &g->text, g->why);
    /* The encoder has what it needs of it. */
    gguf_close(file);
    if (r < 0)
        return r;
    corpus_text_marks(g->text, &head->n_vocab, &head->eos, &head->bos);
    memcpy(head->digest, digest, sizeof(head->digest));
    return 0;
}

int corpus_build(const struct corpus_build *b, struct corpus_built *ret, struct why *why)
{
    struct building g = { .b = b, .why = why };
    struct corpus_file_header head = { .version = 0 };
    int r = check(b, why);

    if (r == 0)
        r = open_model(&g, &head);
    if (r == 0)
        r = corpus_writer_open(b->out, &head, &g.writer, why);
    for (size_t i = 0; i < b->n_inputs && r == 0; i++)
        r = add_input(&g, b->inputs[i]);
    if (r == 0)
        r = corpus_writer_commit(g.writer, why);
    /* Of a corpus that has its name. */
    if (r == 0 && ret) {
        g.done.bytes_lost = corpus_text_lost(g.text);
        *ret = g.done;
    }
    /* After a commit it only frees; else the file that was begun goes. */
    corpus_writer_close(g.writer);
    corpus_text_close(g.text);
    return r;
}
