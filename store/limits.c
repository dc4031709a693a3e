/* What the store may take: bytes on the disk, bytes written a day, age, memory; and what goes
 * first.
 *
 * A record is worth the time that it saves, for each byte that it takes, and less the longer nobody
 * asked for it:
 *
 *     value = (cost_ns - time to read it) / bytes / (age + a minute)
 *
 * which needs no history and no counters that wear out. What the beginning of is gone is worth
 * nothing: it goes first. Else ends of chains go before what they stand on, since the beginning is
 * of use without its end and not the other way round.
 *
 * Before all that it is asked whose it is. Who writes most would else push out what others read now
 * and then, however little they have: while an owner has more than an even share of the bytes, what
 * goes is his, or that of others of whom the same is true.
 *
 * What goes leaves the index at once and is counted as `dying` until its file is gone. So s->bytes
 * is what the disk has, and s->bytes - s->dying_bytes what it will have. */
#include "store/inside.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define VICTIMS_SHARE 64u /* of the records, taken after one look at all */
#define VICTIMS_AGE   60u /* seconds, then it is looked again */
#define UNLINKS       8u  /* at once */
#define SHRINK        8u  /* an eighth goes when the disk is full */
#define SLICE         64u /* records that go at once: everybody's steps wait meanwhile */
#define UNLINK_AGAIN  (10 * CLOCK_S)
#define TOUCH_EVERY   (60 * CLOCK_S) /* times and the budget */
#define TOUCH_LOOK    512u           /* entries looked at in one pump */
#define TOUCH_CALLS   16u            /* files dated in one pump */
#define READ_BYTES_NS 1.0            /* bytes a nanosecond, until it is measured */
#define READ_MEASURED ((uint64_t)16 << 20)
#define NAMES_RESERVE 16u /* the last 16th of the write budget is for what people named */
#define OTHERS        16u /* and the last 16th of the bytes for another owner */

/* --- what goes first -------------------------------------------------------------------------- */

/* A few reads say little about a disk: until READ_MEASURED bytes have come, a gigabyte a second is
 * assumed. */
double limits_read_ns(const struct store *s, uint64_t bytes)
{
    if (s->counts.read_bytes < READ_MEASURED || s->counts.read_ns == 0)
        return (double)bytes / READ_BYTES_NS;
    return (double)bytes * (double)s->counts.read_ns / (double)s->counts.read_bytes;
}

/* Nanoseconds that a record saves, for each byte and second. A record that takes longer to read
 * than to compute is worth 0, and is kept only while nothing better wants the room. The minute
 * keeps what was used just now from being worth without end, and its order from changing with every
 * second. */
double limits_value(const struct store *s, const struct entry *e, uint64_t now_s)
{
    uint64_t len = record_len(&e->r), age = now_s > e->used_s ? now_s - e->used_s : 0;
    double saved = (double)e->r.cost_ns - limits_read_ns(s, len);

    if (index_is_orphan(e))
        return -1;
    return saved <= 0 ? 0 : saved / (double)len / (double)(age + 60);
}

/* Nobody is at work with it, and nothing needs it to be found. An orphan can't be found any more,
 * so it may go though others stand behind it. */
bool limits_may_go(const struct entry *e)
{
    return e->n_busy == 0 && (index_is_end(e) || index_is_orphan(e));
}

/* Found by an earlier look, with its use of then. NULL: it was used since, or went, or it may not
 * go any more. */
struct entry *limits_still(const struct store *s, uint64_t id, uint64_t used_s)
{
    struct entry *e = index_by_id(&s->index, id);

    return e && e->used_s == used_s && limits_may_go(e) ? e : NULL;
}

/* More than its share, or it would with what it wants now. What people named is nobody's share. The
 * share is an even part among those who have something and who asks now: with one owner alone it is
 * everything. */
static bool is_over(const struct store *s, uint32_t owner)
{
    uint64_t all = s->limits.bytes, has = shares_of(&s->shares, owner);

    all -= s->named_bytes < all ? s->named_bytes : all;
    if (owner == s->wants.owner)
        has += s->wants.len;
    return has > shares_even(&s->shares, s->wants.owner, all);
}

/* Equal values: the one that was not used for longer, then the older record. Whose it is comes
 * before what it is worth. */
static bool goes_before(const struct victims *v, uint32_t i, const struct entry *e, double value,
                        bool over)
{
    if (over != v->over[i])
        return over;
    if (value != v->value[i])
        return value < v->value[i];
    return e->used_s != v->e[i]->used_s ? e->used_s < v->e[i]->used_s : e->id < v->e[i]->id;
}

/* A short list in order, the one to go first in front; what would stand behind the last place is
 * let go. Nearly all records fail at its last entry, so a look costs little more than a walk. */
static void consider(struct victims *v, struct entry *e, double value, bool over)
{
    uint32_t at = v->n;

    while (at > 0 && goes_before(v, at - 1, e, value, over))
        at--;
    if (at == LIMITS_VICTIMS)
        return;
    if (v->n < LIMITS_VICTIMS)
        v->n++;
    for (uint32_t i = v->n - 1; i > at; i--) {
        v->e[i] = v->e[i - 1];
        v->value[i] = v->value[i - 1];
        v->over[i] = v->over[i - 1];
    }
    v->e[at] = e;
    v->value[at] = value;
    v->over[at] = over;
}

/* In a small store fewer are taken at a time, so that new ends have their turn. */
uint32_t limits_victims(const struct store *s)
{
    return 1 + s->index.n / VICTIMS_SHARE;
}

/* One look at all records finds the next few: a heap would have to be sorted anew with every second
 * that passes, and what goes makes new ends. */
static void find_victims(struct store *s, struct victims *ret)
{
    uint64_t now_s = when_s();
    struct entry *e;

    ret->n = ret->next = 0;
    ret->at_s = now_s;
    TAILQ_FOREACH (e, &s->index.lru, lru) {
        if ((!ret->of_one || e->r.key.owner == ret->owner) && limits_may_go(e))
            consider(ret, e, limits_value(s, e, now_s), !ret->of_one && is_over(s, e->r.key.owner));
    }
    if (ret->n > limits_victims(s))
        ret->n = limits_victims(s);
    for (uint32_t i = 0; i < ret->n; i++) {
        ret->id[i] = ret->e[i]->id;
        ret->used_s[i] = ret->e[i]->used_s;
    }
}

/* The next that may still go: others were used since they were found, or went, or their twin did
 * and they are needed now, or their owner has no more than its share any more. NULL: there is none.
 *
 * Two looks at most: the second follows when the list found first is used up or out of date, and if
 * a new one has nothing either, nothing may go. */
static struct entry *next_victim(struct store *s, struct victims *v)
{
    /* Values fall with time, and not all at the same pace. */
    if (when_s() > v->at_s + VICTIMS_AGE)
        v->n = v->next = 0;
    for (int looks = 0; looks < 2; looks++) {
        while (v->next < v->n) {
            uint32_t i = v->next++;
            struct entry *e = limits_still(s, v->id[i], v->used_s[i]);

            if (!e)
                continue;
            if (v->over[i] == (!v->of_one && is_over(s, e->r.key.owner)))
                return e;
            v->next = v->n; /* others are the next now */
        }
        find_victims(s, v);
    }
    return NULL;
}

/* What one call has let go of. */
struct evicted {
    uint64_t records, bytes;
};

/* Deletes until enough(s, gone so far, arg), of those whose v it is. False: no more may go. The
 * records leave the index here; their files follow in delete_step. */
static bool evict_until(struct store *s, struct victims *v,
                        bool (*enough)(const struct store *s, const struct evicted *gone,
                                       uint64_t arg),
                        uint64_t arg, struct evicted *gone)
{
    while (!enough(s, gone, arg)) {
        struct entry *e = next_victim(s, v);

        if (!e)
            return false;
        gone->records++;
        gone->bytes += record_len(&e->r);
        limits_delete(s, e);
    }
    return true;
}

/* --- bytes ------------------------------------------------------------------------------------ */

/* With what is dying: the limit holds on the disk, so a put waits until its room is really there.
 */
bool limits_fits(const struct store *s, uint64_t len)
{
    return s->bytes + len <= s->limits.bytes;
}

/* Of what may be shared a sixteenth always stays out of one owner's reach, so that a newcomer finds
 * room without anybody having lost something. */
uint64_t limits_of_owner(const struct store *s)
{
    uint64_t all = s->limits.bytes, most = s->limits.owner_bytes;

    if (most > 0)
        return most < all ? most : all;
    return s->limits.shared ? all - all / OTHERS : all;
}

bool limits_fits_owner(const struct store *s, uint32_t owner, uint64_t len)
{
    return shares_of(&s->shares, owner) + len <= limits_of_owner(s);
}

/* What is dying counts as gone here: it is on its way. */
static bool will_fit(const struct store *s, const struct evicted *gone, uint64_t len)
{
    (void)gone;
    return s->bytes - s->dying_bytes + len <= s->limits.bytes &&
           s->index.memory <= STORE_MEMORY_MAX;
}

/* The same, or as many went as one pump may do. */
static bool fits_or_slice(const struct store *s, const struct evicted *gone, uint64_t len)
{
    return gone->records >= SLICE || will_fit(s, gone, len);
}

/* Over the limit, which was lowered: a slice. */
static void go_below(struct store *s)
{
    struct evicted gone = { 0 };

    (void)evict_until(s, &s->victims, fits_or_slice, 0, &gone);
    s->counts.evicted += gone.records;
    s->more = s->more || gone.records >= SLICE;
}

static bool owner_fits(const struct store *s, const struct evicted *gone, uint64_t len)
{
    (void)gone;
    return limits_fits_owner(s, s->wants.owner, len);
}

/* Who goes first depends on who asks. Values do not depend on it, but whether an owner is over its
 * share does; so the victims found for another one are no longer the right ones. */
static void want(struct store *s, uint32_t owner, uint64_t len)
{
    if (owner != s->wants.owner) {
        s->victims.n = s->victims.next = 0;
        s->victims_own = (struct victims){ .of_one = true, .owner = owner };
    }
    s->wants = (struct wants){ owner, len };
}

/* own: the owner's own records go until it has no more than one owner may. A name is not counted
 * against that, so for a name this is left out. */
static bool make_room(struct store *s, uint32_t owner, uint64_t len, bool own)
{
    struct evicted gone = { 0 };
    bool yes;

    want(s, owner, len);
    yes = (!own || evict_until(s, &s->victims_own, owner_fits, len, &gone)) &&
          evict_until(s, &s->victims, will_fit, len, &gone);
    s->counts.evicted += gone.records;
    s->wants.len = 0; /* what is reserved is in the shares */
    return yes;
}

bool limits_make_room(struct store *s, uint32_t owner, uint64_t len)
{
    return make_room(s, owner, len, true);
}

bool limits_make_room_for_name(struct store *s, uint32_t owner, uint64_t len)
{
    return make_room(s, owner, len, false);
}

static bool gone_enough(const struct store *s, const struct evicted *gone, uint64_t bytes)
{
    (void)s;
    return gone->bytes >= bytes;
}

static bool gone_or_slice(const struct store *s, const struct evicted *gone, uint64_t bytes)
{
    return gone->records >= SLICE || gone_enough(s, gone, bytes);
}

/* As much as a slice has: a disk that is still full says so to the next put. A disk is full before
 * the store's limit when others write to it. An eighth, so that not every put comes here, and not
 * all that is kept goes for what somebody else wrote. */
void limits_shrink(struct store *s)
{
    struct evicted gone = { 0 };

    (void)evict_until(s, &s->victims, gone_or_slice, s->index.bytes / SHRINK, &gone);
    s->counts.evicted += gone.records;
}

/* --- deleting --------------------------------------------------------------------------------- */

/* The file is gone, so its bytes are free. An operation that still has the entry keeps it:
 * limits_unbusy frees it then. */
static void bury(struct store *s, struct entry *e)
{
    uint64_t len = record_len(&e->r);

    TAILQ_REMOVE(&s->dying, e, lru);
    s->bytes -= len;
    s->dying_bytes -= len;
    e->buried = true;
    if (e->n_busy == 0)
        index_free(e);
}

void limits_unbusy(struct store *s, struct entry *e)
{
    (void)s;
    e->n_busy--;
    if (e->buried && e->n_busy == 0)
        index_free(e);
}

/* The owner's share is free at once. The bytes are not: the disk still has them. */
static void put_dying(struct store *s, struct entry *e)
{
    s->dying_bytes += record_len(&e->r);
    shares_take(&s->shares, e->r.key.owner, record_len(&e->r));
    e->retry_ns = 0;
    TAILQ_INSERT_TAIL(&s->dying, e, lru);
    s->more = true;
}

/* No answer from the disk is needed: from here on nobody finds it. */
void limits_delete(struct store *s, struct entry *e)
{
    index_take(&s->index, e);
    put_dying(s, e);
}

void limits_delete_all(struct store *s, struct entries *list)
{
    struct entry *e;

    while ((e = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, e, lru);
        put_dying(s, e);
    }
}

/* A put of the same record must wait for that, or its new file would be deleted in place of the old
 * one. */
bool limits_is_dying(const struct store *s, uint32_t owner, const char *name)
{
    const struct entry *e;

    TAILQ_FOREACH (e, &s->dying, lru) {
        if (e->r.key.owner == owner && strcmp(e->name, name) == 0)
            return true;
    }
    return false;
}

/* An operation carries one pointer, so the entry has the store's (of). */
static void on_unlinked(void *job, uint32_t what, int64_t result)
{
    struct entry *e = job;
    struct store *s = e->of;

    (void)what;
    s->n_unlinking--;
    e->unlinking = false;
    if (result == 0 || result == -ENOENT) {
        bury(s, e);
        return;
    }
    /* It stays counted, and is tried again: at the next start it would be a record as before. */
    e->retry_ns = when_ns() + UNLINK_AGAIN;
}

/* Those that failed and wait for another try don't count: nobody should wait for these. */
bool limits_deletes(const struct store *s)
{
    const struct entry *e;

    TAILQ_FOREACH (e, &s->dying, lru) {
        if (e->retry_ns == 0)
            return true;
    }
    return false;
}

/* In order, UNLINKS at once: deletions of large files take the disk's time, which others want too.
 * Gives up its turn as soon as there is no room, since those behind would not find any either. */
static void delete_step(struct store *s)
{
    uint64_t now = 0;
    struct entry *e, *next;

    for (e = TAILQ_FIRST(&s->dying); e; e = next) {
        struct folder *d;
        int err;

        next = TAILQ_NEXT(e, lru);
        if (e->unlinking)
            continue;
        if (s->n_unlinking >= UNLINKS || !ops_room_to_write(&s->ops, 1))
            return;
        if (e->retry_ns != 0 && now == 0) /* the clock is asked once at most */
            now = when_ns();
        if (e->retry_ns > now)
            continue;
        d = folders_get(&s->folders, e->r.key.owner, false, &err);
        /* The owner's folder is gone, and the file with it. */
        if (!d) {
            bury(s, e);
            continue;
        }
        e->of = s;
        e->unlinking = true;
        s->n_unlinking++;
        ops_queue(&s->ops, &(struct io_op){ .code = IO_UNLINK, .fd = d->fd, .path = e->name },
                  on_unlinked, e, 0);
    }
}

/* --- age and last use ------------------------------------------------------------------------- */

/* What others go on from is as young as they are: who finds the beginning in memory asks the store
 * for the end alone. So a beginning whose end is still young stays (may_go), though it was not
 * asked for itself. Looks once a second; the list is in order of last use, so it ends at the first
 * that is young enough. */
static void expire_step(struct store *s, uint64_t now_s, uint64_t now_ns)
{
    struct entry *e, *next;
    uint32_t n = 0;

    s->next_expire_ns = now_ns + CLOCK_S;
    if (s->limits.age_s == 0)
        return;
    for (e = TAILQ_FIRST(&s->index.lru); e && e->used_s + s->limits.age_s < now_s; e = next) {
        if (n == SLICE) { /* all of a store may be too old at once, after a holiday */
            s->next_expire_ns = now_ns;
            s->more = true;
            return;
        }
        next = TAILQ_NEXT(e, lru);
        if (!limits_may_go(e))
            continue;
        limits_delete(s, e);
        s->counts.expired++;
        n++;
    }
}

/* A budget that could not be written is no error of anybody's: the next change writes it again. */
static void on_budget(void *job, uint32_t what, int64_t result)
{
    struct store *s = job;

    (void)what, (void)result;
    s->budget_saving = false;
    if (s->budget_gone)
        limits_again(s);
}

/* By an operation, since nobody may wait for a disk here; not synced, since the kernel writes it
 * back in its time. What a kill or a power cut loses of it is what was written in the last minute
 * and has gone again: records that are there are counted by their dates. */
static void budget_step(struct store *s, uint64_t now_ns)
{
    uint64_t off;

    if (!s->budget_dirty || s->budget_saving || s->budget_fd < 0 || now_ns < s->next_budget_ns ||
        !ops_room_to_write(&s->ops, 1))
        return;
    off = budget_save(&s->budget, s->budget_slot);
    s->budget_dirty = false;
    s->budget_saving = true;
    ops_queue(&s->ops,
              &(struct io_op){ .code = IO_WRITE,
                               .fd = s->budget_fd,
                               .mem = s->budget_slot,
                               .len = BUDGET_SLOT,
                               .off = off,
                               .aside = true },
              on_budget, s, 0);
}

static void on_dated(void *job, uint32_t what, int64_t result)
{
    struct entry *e = job;

    (void)what, (void)result;
    limits_unbusy(e->of, e);
}

/* The file's time is when the record was last used. It is for the next start, so it may be late,
 * and a call that fails costs an age, nothing else. */
static void date(struct store *s, struct entry *e)
{
    int err;
    struct folder *d = folders_get(&s->folders, e->r.key.owner, false, &err);

    e->used_dirty = false;
    if (!d)
        return;
    e->of = s;
    e->n_busy++; /* its name is borrowed */
    ops_queue(&s->ops,
              &(struct io_op){ .code = IO_DATE, .fd = d->fd, .path = e->name, .off = e->used_s },
              on_dated, e, 0);
}

/* Goes through by_id once a minute, a few entries a pump. A deletion moves others to before
 * touch_at: those are dated a minute later. */
static void date_step(struct store *s, uint64_t now_ns)
{
    uint32_t calls = 0, looks = 0;

    if (now_ns < s->next_touch_ns)
        return;
    while (s->touch_at < s->index.n_ids && calls < TOUCH_CALLS && looks < TOUCH_LOOK &&
           ops_room_to_write(&s->ops, 1)) {
        struct entry *e = s->index.by_id[s->touch_at++].e;

        looks++;
        if (e && e->used_dirty) {
            date(s, e);
            calls++;
        }
    }
    if (s->touch_at >= s->index.n_ids) {
        s->touch_at = 0;
        s->next_touch_ns = now_ns + TOUCH_EVERY;
    }
}

/* Each part does a bounded amount of work, for everybody's step waits for it. */
void limits_step(struct store *s)
{
    uint64_t now_ns = when_ns();

    if (now_ns >= s->next_expire_ns)
        expire_step(s, when_s(), now_ns);
    if (s->bytes - s->dying_bytes > s->limits.bytes || s->index.memory > STORE_MEMORY_MAX)
        go_below(s);
    if (!TAILQ_EMPTY(&s->dying))
        delete_step(s);
    date_step(s, now_ns);
    budget_step(s, now_ns);
}

/* Dates everything that was used, whatever the minute says. False when the io was too full: the
 * caller waits and comes again. */
bool limits_finish(struct store *s)
{
    uint64_t now_ns = when_ns();
    bool all = true;

    expire_step(s, when_s(), now_ns);
    if (!TAILQ_EMPTY(&s->dying))
        delete_step(s);
    s->next_budget_ns = now_ns;
    budget_step(s, now_ns);
    for (uint32_t i = 0; i < s->index.n_ids && all; i++) {
        struct entry *e = s->index.by_id[i].e;

        if (!e || !e->used_dirty)
            continue;
        all = ops_room(&s->ops, 1);
        if (all)
            date(s, e);
    }
    return all;
}

/* --- bytes written a day ---------------------------------------------------------------------- */

/* A copy is summed, since summing moves hours on. The last part of the budget is only for names:
 * what people saved by name they miss, what was kept by itself is computed again. */
static bool is_left(const struct store *s, uint64_t len, bool is_name)
{
    struct budget budget = s->budget;
    uint64_t limit = s->limits.write_a_day;
    uint64_t most = is_name ? limit : limit - limit / NAMES_RESERVE;

    return limit == 0 || (len <= most && budget_sum(&budget, when_s()) <= most - len);
}

/* Remembers what was refused, for the sentence that people see. */
bool limits_may_write(struct store *s, uint64_t len, bool is_name)
{
    bool yes = is_left(s, len, is_name);

    s->spent_len = yes ? 0 : len;
    return yes;
}

bool limits_is_spent(const struct store *s)
{
    return s->spent_len > 0 && !is_left(s, s->spent_len, false);
}

/* A minute after the first change, not the last: else a daemon that writes all the time would never
 * get to it. */
static void budget_changed(struct store *s)
{
    if (!s->budget_dirty)
        s->next_budget_ns = when_ns() + TOUCH_EVERY;
    s->budget_dirty = true;
}

void limits_wrote(struct store *s, uint64_t len)
{
    s->counts.written += len;
    budget_add(&s->budget, when_s(), len);
    budget_changed(s);
}

/* What was counted too early. It goes back to the hours it came from, or nearly so. */
void limits_not_written(struct store *s, uint64_t len)
{
    if (len == 0)
        return;
    s->counts.written -= len;
    budget_take_back(&s->budget, when_s(), len);
    budget_changed(s);
}

/* Records that are there were written, whatever the file says: without it the budget is at least
 * what they add up to. */
static void count_records(struct store *s)
{
    uint64_t bytes[BUDGET_HOURS] = { 0 }, now_s = when_s();
    struct entry *e;

    TAILQ_FOREACH (e, &s->index.lru, lru) {
        uint64_t made_s = e->r.made_s;

        if (made_s <= now_s && now_s / 3600 - made_s / 3600 < BUDGET_HOURS)
            bytes[made_s / 3600 % BUDGET_HOURS] += record_len(&e->r);
    }
    budget_at_least(&s->budget, bytes, now_s);
}

/* Without the file (-1) the budget is kept in memory, and starts from the records' dates. */
static void open_file(struct store *s)
{
    s->budget_fd = openat(s->folders.root_fd, "written",
                          O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
}

/* A file that is short or missing leaves zeros, which budget_load takes for nothing. */
void limits_open(struct store *s)
{
    uint8_t file[BUDGET_FILE] = { 0 };

    s->victims_own.of_one = true;
    open_file(s);
    if (s->budget_fd >= 0)
        (void)!pread(s->budget_fd, file, sizeof(file), 0);
    (void)budget_load(&s->budget, file);
    count_records(s);
}

void limits_again(struct store *s)
{
    /* Not while an operation has the descriptor: its number would be another file's. */
    s->budget_gone = s->budget_saving;
    if (s->budget_saving)
        return;
    limits_close(s);
    open_file(s);
    s->budget_dirty = true;
}

void limits_close(struct store *s)
{
    if (s->budget_fd >= 0)
        (void)close(s->budget_fd);
    s->budget_fd = -1;
}
