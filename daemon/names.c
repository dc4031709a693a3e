#include "daemon/names.h"

#include "base/shown.h"
#include "base/utf8.h"
#include "daemon/served.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEX_LEN 32u

/* As it lies in the file. Host and file are little-endian, as the pages in the store are. Behind it
 * the ids, then the marks. */
struct stored {
    char magic[8];
    uint32_t version, flags;
    uint32_t compressor, ratio, sinks, keep_tail, budget, segment, priority, chat_at, pending;
    uint32_t n_ids, n_marks, hydrate;
    char model_digest[HEX_LEN], adapter_digest[HEX_LEN];
    char model[128], adapter[64], label[64];
    uint8_t zeros[128];
};
_Static_assert(offsetof(struct stored, flags) == 12, "layout");
_Static_assert(offsetof(struct stored, compressor) == 16, "layout");
_Static_assert(offsetof(struct stored, model_digest) == 64, "layout");
_Static_assert(offsetof(struct stored, model) == 128, "layout");
_Static_assert(offsetof(struct stored, adapter) == 256, "layout");
_Static_assert(offsetof(struct stored, label) == 320, "layout");
_Static_assert(sizeof(struct stored) == 512, "layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file is little-endian");
_Static_assert(sizeof(struct session_mark) == 8 && sizeof(enum chat_at) == 4, "layout");
_Static_assert(sizeof(((struct names_file *)0)->adapter) == 64, "layout");
_Static_assert(sizeof(((struct names_file *)0)->label) == 64, "layout");

enum {
    FLAG_PENDING = 1,
    FLAG_PUBLIC = 2,
    FLAG_PIN = 4,
    FLAG_LATE = 8,
    FLAG_FIXED = 16,
    FLAG_AUTOMATIC = 32
};
#define FLAGS_ALL 63u

/* --- names ------------------------------------------------------------------------------------ */

/* C0, C1 and DEL would garble the terminal that a list is printed on, and '/' would be a folder to
 * whoever makes a file of the name. */
static bool allowed(uint32_t c)
{
    return c >= 0x20 && c != '/' && !(c >= 0x7f && c < 0xa0);
}

/* In this order, so that what is said of a character is said of a whole one. */
int names_check(const char *name, struct why *why)
{
    size_t n = strlen(name), len;

    if (n < 1 || n > NAMES_MAX)
        return why_set(why, -EINVAL, "a name of %zu bytes is not possible: 1 to %u are allowed", n,
                       NAMES_MAX);
    for (size_t i = 0; i < n; i += len) {
        const uint8_t *p = (const uint8_t *)name + i;

        if (utf8_check(p, n - i, &len) != UTF8_OK)
            return why_set(why, -EINVAL, "the name is not UTF-8");
        if (!allowed(utf8_get(p, len)))
            return why_set(why, -EINVAL, "the name has a %s in it",
                           *p == '/' ? "'/'" : "control character");
    }
    return 0;
}

/* Names of models and adapters are whatever their files say: here they become what take_string
 * takes. */
static void put_string(char *to, size_t cap, const char *from)
{
    size_t n = shown_put(SHOWN_LINE, from, strlen(from), to, cap - 1);

    memset(to + n, 0, cap - n);
}

/* --- policies --------------------------------------------------------------------------------- */

void names_describe(const struct served *b, const struct policy *p, struct names_file *ret)
{
    const struct adapter *a = p->spec.adapter;

    *ret = (struct names_file){ .segment = p->seg_len,
                                .memory = { .compressor = (enum wire_compressor)p->spec.method,
                                            .has_ratio = true,
                                            .ratio = p->spec.ratio,
                                            .has_sinks = true,
                                            .sinks = p->spec.sinks,
                                            .keep_tail = p->keep_tail,
                                            .late = p->late,
                                            .fixed = p->fixed,
                                            .automatic = p->automatic,
                                            .has_hydrate = true,
                                            .hydrate = p->hydrate } };
    /* All of the context stays so when the daemon is started with a larger one. */
    ret->memory.has_budget = p->budget != b->context_max;
    ret->memory.budget = ret->memory.has_budget ? p->budget : 0;
    put_string(ret->model, sizeof(ret->model), b->model->name);
    memcpy(ret->model_digest, b->model->digest, sizeof(ret->model_digest));
    if (!a)
        return;
    put_string(ret->adapter, sizeof(ret->adapter), a->name);
    memcpy(ret->adapter_digest, a->digest, sizeof(ret->adapter_digest));
}

/* By its content: a file may have been given another name since. */
static const struct adapter *find_adapter(const struct served *b, const char *digest)
{
    for (uint32_t i = 0; i < b->n_adapters; i++)
        if (strcmp(b->adapters[i]->digest, digest) == 0)
            return b->adapters[i];
    return NULL;
}

/* Through policy_read, as what a client says: a daemon with another context, or without that
 * compressor, refuses it in the same words. */
int names_policy(const struct names_file *f, const struct served *b, struct policy *ret,
                 struct why *why)
{
    struct wire_memory m = f->memory;
    const struct adapter *a = NULL;

    if (strcmp(f->model_digest, b->model->digest) != 0)
        return why_set(why, -EMEDIUMTYPE,
                       "it is of the model %.100s (%.8s), and this daemon serves %.100s (%.8s)",
                       f->model, f->model_digest, b->model->name, b->model->digest);
    if (f->adapter_digest[0]) {
        a = find_adapter(b, f->adapter_digest);
        if (!a)
            return why_set(why, -EMEDIUMTYPE,
                           "it is of the adapter %.63s (%.8s), which this daemon does not have; it "
                           "has: %.150s",
                           f->adapter, f->adapter_digest,
                           b->n_adapters ? b->adapter_names : "none");
        m.adapter = a->name;
    }
    return policy_read(&m, &f->segment, f->segment, b, ret, why);
}

/* --- encoding --------------------------------------------------------------------------------- */

/* What is yes or no is a bit: unknown ones are refused when they are read (FLAGS_ALL), since they
 * would change what the rest means. */
static uint32_t flags_of(const struct names_file *f)
{
    return (f->has_pending ? FLAG_PENDING : 0) | (f->is_public ? FLAG_PUBLIC : 0) |
           (f->pin ? FLAG_PIN : 0) | (f->memory.late ? FLAG_LATE : 0) |
           (f->memory.fixed ? FLAG_FIXED : 0) | (f->memory.automatic ? FLAG_AUTOMATIC : 0);
}

/* calloc: padding and what is behind strings goes to the disk as zeros, and two equal names are
 * equal bytes. */
int names_encode(const struct names_file *f, void **ret_bytes, size_t *ret_len)
{
    size_t ids_len = f->n_ids * sizeof(*f->ids), marks_len = f->n_marks * sizeof(*f->marks);
    struct stored *s = calloc(1, sizeof(*s) + ids_len + marks_len);
    uint8_t *p;

    if (!s)
        return -ENOMEM;
    memcpy(s->magic, NAMES_MAGIC, sizeof(s->magic));
    s->version = NAMES_VERSION;
    s->flags = flags_of(f);
    s->compressor = f->memory.compressor;
    s->ratio = f->memory.ratio;
    s->sinks = f->memory.sinks;
    s->keep_tail = f->memory.keep_tail;
    s->budget = f->memory.has_budget ? f->memory.budget : 0;
    s->hydrate = f->memory.hydrate;
    s->segment = f->segment;
    s->priority = f->priority;
    s->chat_at = f->chat_at;
    s->pending = f->has_pending ? f->pending : 0;
    s->n_ids = f->n_ids;
    s->n_marks = f->n_marks;
    memcpy(s->model_digest, f->model_digest, HEX_LEN);
    memcpy(s->adapter_digest, f->adapter_digest, HEX_LEN);
    put_string(s->model, sizeof(s->model), f->model);
    put_string(s->adapter, sizeof(s->adapter), f->adapter);
    put_string(s->label, sizeof(s->label), f->label);
    p = (uint8_t *)(s + 1);
    if (ids_len)
        memcpy(p, f->ids, ids_len);
    if (marks_len)
        memcpy(p + ids_len, f->marks, marks_len);
    *ret_bytes = s;
    *ret_len = sizeof(*s) + ids_len + marks_len;
    return 0;
}

/* --- decoding --------------------------------------------------------------------------------- */

static bool all_zero(const void *mem, size_t n)
{
    const uint8_t *p = mem;

    while (n > 0 && *p == 0) {
        p++;
        n--;
    }
    return n == 0;
}

/* A field of cap bytes, as put_string fills one. */
static bool take_string(char *to, const char *from, size_t cap)
{
    if (!memchr(from, '\0', cap))
        return false;
    put_string(to, cap, from);
    return memcmp(to, from, cap) == 0;
}

/* Stored without a zero behind it. */
static bool take_digest(char to[HEX_LEN + 1], const char from[HEX_LEN], bool may_be_none)
{
    memset(to, 0, HEX_LEN + 1);
    if (may_be_none && all_zero(from, HEX_LEN))
        return true;
    for (size_t i = 0; i < HEX_LEN; i++)
        if (!memchr("0123456789abcdef", from[i], 16))
            return false;
    memcpy(to, from, HEX_LEN);
    return true;
}

static bool take_strings(const struct stored *s, struct names_file *f)
{
    return take_digest(f->model_digest, s->model_digest, false) &&
           take_digest(f->adapter_digest, s->adapter_digest, true) &&
           take_string(f->model, s->model, sizeof(s->model)) &&
           take_string(f->adapter, s->adapter, sizeof(s->adapter)) &&
           take_string(f->label, s->label, sizeof(s->label)) &&
           !f->adapter[0] == !f->adapter_digest[0];
}

/* Whether a policy is possible is for policy_read to say; what it does not look at is looked at
 * here. */
static bool take_numbers(const struct stored *s, struct names_file *f)
{
    if (s->compressor >= WIRE_COMPRESSOR__N || s->priority > WIRE_BACKGROUND ||
        s->chat_at > CHAT_AT_OPEN_TURN || s->n_ids > POLICY_TOKENS_MAX ||
        s->n_marks > POLICY_TOKENS_MAX || s->flags & ~FLAGS_ALL)
        return false;
    f->memory = (struct wire_memory){ .compressor = (enum wire_compressor)s->compressor,
                                      .has_ratio = true,
                                      .ratio = s->ratio,
                                      .has_sinks = true,
                                      .sinks = s->sinks,
                                      .keep_tail = s->keep_tail,
                                      .has_budget = s->budget != 0,
                                      .budget = s->budget,
                                      .late = s->flags & FLAG_LATE,
                                      .fixed = s->flags & FLAG_FIXED,
                                      .automatic = s->flags & FLAG_AUTOMATIC,
                                      .has_hydrate = true,
                                      .hydrate = s->hydrate };
    f->segment = s->segment;
    f->priority = (enum wire_priority)s->priority;
    f->chat_at = (enum chat_at)s->chat_at;
    f->has_pending = s->flags & FLAG_PENDING;
    f->is_public = s->flags & FLAG_PUBLIC;
    f->pin = s->flags & FLAG_PIN;
    f->pending = s->pending;
    f->n_ids = s->n_ids;
    f->n_marks = s->n_marks;
    return f->has_pending || f->pending == 0;
}

/* session_rewind goes through them from the end, and takes chat_at from one. Ascending, and within
 * the text. */
static bool marks_valid(const struct names_file *f)
{
    uint32_t most = f->n_ids + f->has_pending, last = 0;

    for (uint32_t i = 0; i < f->n_marks; i++) {
        const struct session_mark *m = &f->marks[i];

        if (m->n_tokens < last || m->n_tokens > most || (uint32_t)m->chat_at > CHAT_AT_OPEN_TURN)
            return false;
        last = m->n_tokens;
    }
    return true;
}

/* Version before anything else of the head: another one may mean other things by the same places.
 * Lengths are compared in 64 bits, and ids and marks stay where they are in the bytes. */
int names_decode(const void *bytes, size_t len, struct names_file *ret, struct why *why)
{
    struct names_file f = { .ids = NULL };
    struct stored s;

    if (len < sizeof(s))
        return why_set(why, -EBADMSG, "the file has %zu bytes, which is too short", len);
    memcpy(&s, bytes, sizeof(s));
    if (memcmp(s.magic, NAMES_MAGIC, sizeof(s.magic)) != 0)
        return why_set(why, -EBADMSG, "the file does not begin as one of a name");
    if (s.version != NAMES_VERSION)
        return why_set(why, -ENOTSUP,
                       "the file has version %u, and gistd " GISTD_VERSION
                       " reads %u: it was written by another release",
                       s.version, NAMES_VERSION);
    if (!take_numbers(&s, &f) || !take_strings(&s, &f) || !all_zero(s.zeros, sizeof(s.zeros)))
        return why_set(why, -EBADMSG, "the file's head is damaged");
    if (len !=
        sizeof(s) + (uint64_t)f.n_ids * sizeof(*f.ids) + (uint64_t)f.n_marks * sizeof(*f.marks))
        return why_set(why, -EBADMSG, "the file has %zu bytes, and its head says otherwise", len);
    f.ids = (const uint32_t *)bytes + sizeof(s) / sizeof(*f.ids);
    f.marks = (const struct session_mark *)(const void *)(f.ids + f.n_ids);
    if (!marks_valid(&f))
        return why_set(why, -EBADMSG, "the file's marks are damaged");
    *ret = f;
    return 0;
}
