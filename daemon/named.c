#include "daemon/named.h"

#include "daemon/sched.h"
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Names are cut in sentences, which have room for REQUEST_TEXT_MAX bytes. */
#define SHOWN "\"%.64s\""

/* STORE_PUBLIC is no user's number: who comes with it is refused as well. */
bool named_owner(struct sched *s, struct request *r, uint32_t *ret_owner)
{
    uid_t uid = r->client->uid;

    *ret_owner = uid;
    if (uid != s->served.stand_in && uid != STORE_PUBLIC)
        return true;
    request_fail(s, r, WIRE_E_UNSUPPORTED, REQUEST_NO_NUMBERS,
                 "names belong to a user, and the kernel knows this client's only as user %u, as "
                 "all whom it cannot tell apart",
                 (unsigned)uid);
    return false;
}

bool named_check(struct sched *s, struct request *r, const char *name)
{
    struct why why = { "" };

    if (names_check(name, &why) == 0)
        return true;
    request_fail(s, r, WIRE_E_BAD_REQUEST, (struct request_numbers){ 0, strlen(name), NAMES_MAX },
                 "%.200s", why.text);
    return false;
}

const char *named_word(enum wire_named kind)
{
    return kind == WIRE_NAMED_DOCUMENT ? "document" : "session";
}

/* On the disk. What is only in memory, or on its way, document_find and names_put_find know. */
bool named_exists(const struct sched *s, uint32_t owner, enum wire_named kind, const char *name)
{
    return s->served.store && store_name_has(s->served.store, owner, kind, name);
}

void named_fail_absent(struct sched *s, struct request *r, enum wire_named kind, const char *name)
{
    if (kind == WIRE_NAMED_SESSION && !s->served.store)
        request_fail(s, r, WIRE_E_STORAGE, REQUEST_NO_NUMBERS,
                     "there are no saved sessions: nothing is kept on disk: %.200s",
                     s->served.store_why.text);
    else
        request_fail(s, r, WIRE_E_NOT_FOUND, REQUEST_NO_NUMBERS, "this user has no %s " SHOWN,
                     kind == WIRE_NAMED_DOCUMENT ? "document" : "saved session", name);
}

void named_fail_exists(struct sched *s, struct request *r, enum wire_named kind, const char *name)
{
    request_fail(s, r, WIRE_E_NAME_EXISTS, REQUEST_NO_NUMBERS,
                 "this user has a %s " SHOWN " already; take another name, or ask to replace it",
                 named_word(kind), name);
}

/* Each errno of store_name_put is another thing that a user can do. */
void named_fail_put(struct sched *s, struct request *r, enum wire_named kind, const char *name,
                    int e)
{
    const char *word = named_word(kind);
    struct store_stats st;

    if (e == -ENOMEM) {
        request_fail_memory(s, r, e);
        return;
    }
    if (e == -EMFILE) {
        request_fail(s, r, WIRE_E_LIMIT,
                     (struct request_numbers){ STORE_NAMES_MAX, 1, STORE_NAMES_MAX },
                     "the %s " SHOWN " cannot be kept: this user has %u names, the most that it "
                     "may have; delete one",
                     word, name, STORE_NAMES_MAX);
        return;
    }
    if (e == -EDQUOT) {
        store_stats(s->served.store, &st);
        request_fail(s, r, WIRE_E_STORAGE, (struct request_numbers){ st.bytes, 0, st.limit },
                     "the %s " SHOWN " cannot be kept: what may be written today, or the store "
                     "itself, is full (--store-write-bytes, --store-bytes)",
                     word, name);
        return;
    }
    if (e == -EROFS) {
        store_stats(s->served.store, &st);
        request_fail(s, r, WIRE_E_STORAGE, REQUEST_NO_NUMBERS,
                     "the %s " SHOWN " cannot be kept: the store does not write at present: %.200s",
                     word, name, st.degraded);
        return;
    }
    request_fail(s, r, WIRE_E_STORAGE, REQUEST_NO_NUMBERS, "the %s " SHOWN " cannot be kept: %s",
                 word, name, strerror(-e));
}

static void fail_get(struct sched *s, struct request *r, enum wire_named kind, const char *name,
                     int e)
{
    if (e == -ENOENT)
        named_fail_absent(s, r, kind, name);
    else if (e == -ENOMEM)
        request_fail_memory(s, r, e);
    else
        request_fail(s, r, WIRE_E_STORAGE, REQUEST_NO_NUMBERS, "the %s " SHOWN " %s: %s",
                     named_word(kind), name, e == -EBADMSG ? "is damaged" : "cannot be read",
                     e == -EBADMSG ? "its file is not what was written" : strerror(-e));
}

/* Two ways to be of no use: the file is not what was written, or what was written is of another
 * model. */
static bool usable(struct sched *s, struct request *r, enum wire_named kind, const char *name,
                   const void *bytes, size_t len, struct names_file *ret, struct policy *ret_policy)
{
    struct why why = { "" };
    int e = names_decode(bytes, len, ret, &why);

    if (e < 0) {
        request_fail(s, r, WIRE_E_STORAGE, REQUEST_NO_NUMBERS,
                     "the %s " SHOWN " is damaged: %.200s", named_word(kind), name, why.text);
        return false;
    }
    e = names_policy(ret, &s->served, ret_policy, &why);
    if (e < 0)
        request_fail(s, r, e == -EMEDIUMTYPE ? WIRE_E_WRONG_MODEL : WIRE_E_BAD_REQUEST,
                     REQUEST_NO_NUMBERS, "the %s " SHOWN " is not for this daemon: %.280s",
                     named_word(kind), name, why.text);
    return e == 0;
}

bool named_load(struct sched *s, struct request *r, uint32_t owner, enum wire_named kind,
                const char *name, struct names_file *ret, void **ret_bytes,
                struct policy *ret_policy)
{
    void *bytes = NULL;
    size_t len;
    int e = s->served.store ? store_name_get(s->served.store, owner, kind, name, &bytes, &len)
                            : -ENOENT;

    if (e < 0) {
        fail_get(s, r, kind, name, e);
        return false;
    }
    if (!usable(s, r, kind, name, bytes, len, ret, ret_policy)) {
        free(bytes);
        return false;
    }
    *ret_bytes = bytes;
    return true;
}
