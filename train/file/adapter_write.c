/* train/file/adapter_write.c - a safetensors file: the header's length, the header, the tensors as
 * it names them. It is written under another name and takes its own when it is whole, on the disk
 * and, where the caller can tell, right.
 */
#include "train/file/adapter_write.h"

#include "base/files.h"
#include "engine/file/quant.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK 65536u /* values converted at a time */

/* As safetensors has them. */
static const char *const types[] = {
    [SAFETENSORS_F32] = "F32", [SAFETENSORS_F16] = "F16", [SAFETENSORS_BF16] = "BF16"
};

static size_t type_bytes(enum safetensors_type t)
{
    return t == SAFETENSORS_F32 ? 4 : 2;
}

/* 1 of a tensor without dimensions: a number. */
static uint64_t n_values(const struct adapter_write_tensor *t)
{
    uint64_t n = 1;

    for (uint32_t d = 0; d < t->n_dims; d++)
        n *= t->dims[d];
    return n;
}

/* --- the header ------------------------------------------------------------------------------- */

/* Bytes above 0x7f are UTF-8 already. */
static void put_string(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            fprintf(f, "\\%c", *s);
        else if ((unsigned char)*s < ' ')
            fprintf(f, "\\u%04x", *s);
        else
            fputc(*s, f);
    }
    fputc('"', f);
}

/* *at: where its bytes begin behind the header; then where they end. */
static void put_tensor(FILE *f, const struct adapter_write_tensor *t, uint64_t *at)
{
    uint64_t end = *at + n_values(t) * type_bytes(t->type);

    put_string(f, t->name);
    fprintf(f, ":{\"dtype\":\"%s\",\"shape\":[", types[t->type]);
    for (uint32_t d = 0; d < t->n_dims; d++)
        fprintf(f, "%s%" PRIu64, d ? "," : "", t->dims[d]);
    fprintf(f, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", *at, end);
    *at = end;
}

/* Its length and the JSON. free() it; NULL: no memory. Offsets follow from the shapes, so the
 * header comes before any value is known. */
static char *header(const struct adapter_write *w, size_t *ret_len)
{
    uint64_t at = 0;
    char *text = NULL;
    FILE *f = open_memstream(&text, ret_len);

    if (!f)
        return NULL;
    /* Room for the length, which is known at the end. */
    fwrite("\0\0\0\0\0\0\0", 8, 1, f);
    fputs("{\"__metadata__\":{", f);
    for (size_t i = 0; i < w->n_pairs; i++) {
        fputs(i ? "," : "", f);
        put_string(f, w->pairs[i].key);
        fputc(':', f);
        put_string(f, w->pairs[i].value);
    }
    fputc('}', f);
    for (size_t i = 0; i < w->n_tensors; i++) {
        fputc(',', f);
        put_tensor(f, &w->tensors[i], &at);
    }
    fputc('}', f);
    /* So tensors are aligned to 8 in the file; safetensors allows spaces here. */
    while (ftell(f) % 8)
        fputc(' ', f);
    /* No memory shows here, for all of the calls above. */
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    for (unsigned i = 0; i < 8; i++)
        text[i] = (char)((uint64_t)(*ret_len - 8) >> (8 * i));
    return text;
}

static int check(const char *path, const struct adapter_write *w, struct why *why)
{
    /* Early, so that nothing is computed in vain; who writes in between is met by give_name. */
    if (!w->replace && access(path, F_OK) == 0)
        return why_set(why, -EEXIST, "%s: %s", path, strerror(EEXIST));
    for (size_t i = 0; i < w->n_tensors; i++) {
        const struct adapter_write_tensor *t = &w->tensors[i];

        if (t->type >= SAFETENSORS_OTHER || t->n_dims > SAFETENSORS_DIMS_MAX)
            return why_set(why, -EINVAL, "%s: tensor %s has a type or shape that is not written",
                           path, t->name);
        /* Some hundreds: no table is needed. */
        for (size_t j = 0; j < i; j++)
            if (strcmp(t->name, w->tensors[j].name) == 0)
                return why_set(why, -EINVAL, "%s: tensor %s occurs twice", path, t->name);
    }
    return 0;
}

/* --- the tensors ------------------------------------------------------------------------------ */

/* On the heap: half is 128 KB. */
struct writer {
    const char *path;
    const struct adapter_write *w;
    struct why *why;
    FILE *f;
    float *fetched; /* (the most values of a tensor that is fetched) */
    uint16_t half[CHUNK];
};

static int fail_io(const struct writer *o)
{
    int r = errno ? -errno : -EIO;

    return why_set(o->why, r, "%s: %s", o->path, strerror(-r));
}

/* A number that is none stays so: its upper bits alone could be those of infinity. */
static uint16_t to_bf16(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    if (x != x)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static int put_values(struct writer *o, enum safetensors_type type, const float *x, uint64_t n)
{
    const void *out = type == SAFETENSORS_F32 ? (const void *)x : o->half;

    /* f32 goes out as it is. */
    for (uint64_t i = 0; type != SAFETENSORS_F32 && i < n; i++)
        o->half[i] = type == SAFETENSORS_F16 ? quant_f32_to_f16(x[i]) : to_bf16(x[i]);
    return fwrite(out, type_bytes(type), n, o->f) == n ? 0 : fail_io(o);
}

/* A tensor without values has them fetched, one at a time. */
static int put_data(struct writer *o, size_t i)
{
    const struct adapter_write_tensor *t = &o->w->tensors[i];
    const float *x = t->data;
    uint64_t left = n_values(t), n;
    int r = 0;

    if (!x) {
        r = o->w->fetch(o->w->arg, i, o->fetched, o->why);
        x = o->fetched;
    }
    for (; r == 0 && left > 0; left -= n, x += n) {
        n = left < CHUNK ? left : CHUNK;
        r = put_values(o, t->type, x, n);
    }
    return r;
}

static int put_all(struct writer *o)
{
    size_t len;
    char *text = header(o->w, &len);
    int r = 0;

    if (!text)
        return why_set(o->why, -ENOMEM, "%s: no memory", o->path);
    if (fwrite(text, len, 1, o->f) != 1)
        r = fail_io(o);
    free(text);
    for (size_t i = 0; r == 0 && i < o->w->n_tensors; i++)
        r = put_data(o, i);
    if (r == 0 && (fflush(o->f) != 0 || fsync(fileno(o->f)) < 0))
        r = fail_io(o);
    return r;
}

/* --- the file --------------------------------------------------------------------------------- */

static int give_name(const struct writer *o, const char *temp)
{
    /* What came to be since check looked stays, too. */
    unsigned flags = o->w->replace ? 0 : RENAME_NOREPLACE;

    if (renameat2(AT_FDCWD, temp, AT_FDCWD, o->path, flags) < 0)
        return fail_io(o);
    return files_sync_entry(o->path, o->why);
}

static int write_as(struct writer *o, char *temp)
{
    /* EXCL: nobody's file is written over, not even a link's. */
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666), r;

    if (fd < 0)
        return fail_io(o);
    /* The stream closes the descriptor. */
    o->f = fdopen(fd, "w");
    if (!o->f) {
        r = fail_io(o);
        (void)close(fd);
    } else {
        r = put_all(o);
        if (fclose(o->f) != 0 && r == 0)
            r = fail_io(o);
        /* While it still has the other name: a file that does not load replaces none that does. */
        if (r == 0 && o->w->check)
            r = o->w->check(o->w->arg, temp, o->why);
        if (r == 0)
            r = give_name(o, temp);
    }
    if (r < 0)
        (void)unlink(temp);
    return r;
}

int adapter_write(const char *path, const struct adapter_write *w, struct why *why)
{
    struct writer *o;
    uint64_t most = 0;
    char *temp = NULL;
    int r = check(path, w, why);

    if (r < 0)
        return r;
    for (size_t i = 0; i < w->n_tensors; i++)
        if (!w->tensors[i].data && n_values(&w->tensors[i]) > most)
            most = n_values(&w->tensors[i]);
    o = malloc(sizeof(*o));
    if (o)
        *o = (struct writer){ .path = path, .w = w, .why = why };
    if (o && most)
        o->fetched = malloc(most * sizeof(float));
    /* free() below takes NULLs. */
    if (!o || (most && !o->fetched) || asprintf(&temp, "%s.%ld.tmp", path, (long)getpid()) < 0)
        r = why_set(why, -ENOMEM, "%s: no memory", path);
    else
        r = write_as(o, temp);
    free(temp);
    if (o)
        free(o->fetched);
    free(o);
    return r;
}
