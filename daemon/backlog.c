/* daemon/backlog.c - a line of frames and not a ring: what is left of it is moved to the front when
 * the end is reached, so that each frame lies in one piece, as it is sent. All of its memory is
 * there from the beginning: an answer does not fail halfway for want of it. */

#include "daemon/backlog.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

struct head {
    uint32_t len, n_tokens;
    uint32_t number; /* behind it was sent: of the reader's next message */
    uint32_t unused;
};
_Static_assert(sizeof(struct head) == 16, "frames stand at multiples of 8");

/* Heads stand at multiples of 8. */
static size_t span(size_t len)
{
    return sizeof(struct head) + ((len + 7) & ~(size_t)7);
}

static struct head *head_at(const struct backlog *b, size_t at)
{
    return (struct head *)(void *)(b->mem + at);
}

int backlog_init(struct backlog *b, struct held_account *account, size_t size)
{
    void *mem = NULL;
    int r;

    *b = (struct backlog){ .account = account };
    r = held_resize(account, &mem, &b->size, size);
    b->mem = mem;
    return r;
}

void backlog_fini(struct backlog *b)
{
    void *mem = b->mem;

    if (!b->account)
        return;
    if (mem)
        explicit_bzero(mem, b->size); /* it may be of a private session */
    (void)held_resize(b->account, &mem, &b->size, 0);
    *b = (struct backlog){ .mem = NULL };
}

/* The memory stays: it is charged for as long as the session is kept. */
void backlog_clear(struct backlog *b)
{
    b->taken = b->at = b->end = 0;
    b->first = b->unread = b->written = 0;
}

/* The oldest ones go until a quarter is free: each time costs a move of all the rest. */
static void make_room(struct backlog *b, size_t need)
{
    size_t want = need > b->size / 4 ? need : b->size / 4, gone = 0;

    while (gone < b->taken && b->size - b->end + gone < want) {
        const struct head *h = head_at(b, gone);

        b->first += h->n_tokens;
        gone += span(h->len);
    }
    if (gone == 0) /* an answer that waits for its reader comes by here in every step */
        return;
    memmove(b->mem, b->mem + gone, b->end - gone);
    b->taken -= gone;
    b->at -= gone;
    b->end -= gone;
}

/* The caller packs a frame right here, so that it is not copied once more. */
int backlog_room(struct backlog *b, size_t len, uint8_t **ret)
{
    size_t need = span(len);

    if (len > UINT32_MAX / 2 || need > b->size)
        return -EMSGSIZE;
    if (b->size - b->end < need)
        make_room(b, need);
    if (b->size - b->end < need)
        return -EAGAIN;
    *ret = b->mem + b->end + sizeof(struct head);
    return 0;
}

void backlog_add(struct backlog *b, size_t len, uint32_t n_tokens)
{
    assert(b->size - b->end >= span(len));
    *head_at(b, b->end) = (struct head){ .len = (uint32_t)len, .n_tokens = n_tokens };
    b->end += span(len);
    b->written += n_tokens;
}

const uint8_t *backlog_next(const struct backlog *b, size_t *ret_len)
{
    if (b->at == b->end)
        return NULL;
    *ret_len = head_at(b, b->at)->len;
    return b->mem + b->at + sizeof(struct head);
}

/* Of frames between `taken` and `at`, which are on their way, the tokens count as read. */
uint64_t backlog_place(const struct backlog *b)
{
    uint64_t n = b->unread;

    for (size_t at = b->taken; at < b->at; at += span(head_at(b, at)->len))
        n += head_at(b, at)->n_tokens;
    return n;
}

void backlog_sent(struct backlog *b, uint32_t number)
{
    struct head *h = head_at(b, b->at);

    assert(b->at < b->end);
    /* It is taken when the reader has taken so many messages: this one and all before it. */
    h->number = number + 1;
    b->at += span(h->len);
}

void backlog_took(struct backlog *b, uint32_t number)
{
    while (b->taken < b->at) {
        const struct head *h = head_at(b, b->taken);

        /* Modulo 2^32: numbers lie at most a ring apart, so the difference tells which came first.
         */
        if ((int32_t)(number - h->number) < 0)
            break;
        b->unread += h->n_tokens;
        b->taken += span(h->len);
    }
}

size_t backlog_unread(const struct backlog *b)
{
    return b->end - b->taken;
}

/* What is on its way to the old reader may have arrived or not: nobody knows, so it is sent again.
 */
void backlog_again(struct backlog *b)
{
    b->at = b->taken;
}

/* Also back to what was taken: as far as make_room has left it there. */
uint64_t backlog_seek(struct backlog *b, uint64_t place)
{
    uint64_t n = b->first;
    size_t at = 0;

    while (at < b->end) {
        const struct head *h = head_at(b, at);

        if (n >= place || n + h->n_tokens > place)
            break;
        n += h->n_tokens;
        at += span(h->len);
    }
    b->taken = b->at = at;
    b->unread = n;
    return n;
}
