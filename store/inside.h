/* store/inside.h - the store as its own parts see it.
 *
 *     store_put, store_get, store_name_put      a job each, which goes on when its operations came
 *            |                                  back, and is called back from store_pump
 *            v
 *     jobs -- step, step, step --> done -- the caller's callback
 *
 * Steps queue operations and do a bounded amount of hashing; they never wait, and never call the
 * caller. A file that is deleted leaves the index at once and the disk when its turn comes:
 * `dying`.
 *
 * Bytes  `bytes` is what the files take: records, temporary files, those that are dying, names. A
 *        put has its own counted before it writes the first of them, so that limits.bytes is never
 *        passed.
 *
 * Threads    one.
 */
#ifndef STORE_INSIDE_H
#define STORE_INSIDE_H

#include "store/budget.h"
#include "store/folders.h"
#include "store/health.h"
#include "store/index.h"
#include "store/shares.h"
#include "store/warm.h"
#include "store/when.h"

#define STORE_JOBS_MAX 256u
#define STORE_NOTE_MAX 1024u
#define STORE_HASH_STEP                                                                            \
    ((size_t)8 << 20)                      /* bytes hashed in one store_pump: about a millisecond  \
                                            */
#define STORE_TRANSFER   ((size_t)1 << 20) /* bytes: neighbouring pages go together up to this */
#define STORE_MEMORY_MAX ((uint64_t)256 << 20) /* bytes of entries: ids and sums */
#define STORE_TEMP_MAX   32u

enum job_kind { JOB_PUT, JOB_GET, JOB_NAME };

struct job {
    TAILQ_ENTRY(job) next;
    struct store *s;
    enum job_kind kind;
    void (*step)(struct job *j);
    void (*drop)(struct job *j); /* frees it and what it has */
    store_done_fn *done;
    void *arg;
    uint32_t n_out; /* operations */
    bool cancelled; /* by store_cancel: ends as soon as nothing is out */
    int result;
};
TAILQ_HEAD(jobs, job);

struct named {
    uint32_t owner, kind;
    char name[STORE_NAME_MAX + 1];
    uint64_t len, at_s, id;
};

/* What goes next, found by one look at all records. */
#define LIMITS_VICTIMS 32u
struct victims {
    bool of_one; /* of that owner's records, else of all */
    uint32_t owner;
    uint64_t id[LIMITS_VICTIMS], used_s[LIMITS_VICTIMS], at_s;
    struct entry *e[LIMITS_VICTIMS]; /* valid during that look */
    double value[LIMITS_VICTIMS];
    bool over[LIMITS_VICTIMS]; /* its owner has more than its share */
    uint32_t n, next;
};

/* Who wants so many bytes more. */
struct wants {
    uint32_t owner;
    uint64_t len;
};

struct store {
    struct store_limits limits;
    struct wants wants;                  /* who wanted something last */
    struct victims victims, victims_own; /* for that one: of all owners, and of its own */
    struct shares shares;
    struct ops ops;
    struct folders folders;
    struct index index;
    struct jobs jobs, done;
    struct jobs *calling;    /* those whose callbacks are being made; NULL: none */
    uint32_t n_jobs, n_puts; /* n_puts: and names that are being written */
    struct entries dying;
    uint32_t n_unlinking;
    uint64_t bytes, dying_bytes, named_bytes;
    struct budget budget;
    int budget_fd;
    bool budget_dirty;  /* not in its file yet */
    bool budget_saving; /* an operation has budget_slot and budget_fd */
    bool budget_gone;   /* and its folder vanished meanwhile */
    uint64_t next_budget_ns;
    uint8_t budget_slot[BUDGET_SLOT];
    uint64_t spent_len; /* of the last write, when the budget had no room for it; else 0 */
    struct health health;
    struct named **names; /* (counts.names of names_cap) in order of owner, kind and name */
    size_t names_cap;
    uint64_t next_name_id, n_temps;
    size_t hash_left; /* of this store_pump */
    bool no_direct;   /* the file system knows no O_DIRECT */
    struct warm warm;
    bool more, closing; /* more: a step has something to do though nothing is out */
    uint32_t n_reading; /* reads that are out, since */
    uint64_t reading_since_ns;
    uint32_t touch_at; /* how far by_id is looked through for times to write */
    uint64_t next_touch_ns, next_expire_ns;
    struct store_stats counts;
    char note[STORE_NOTE_MAX];
};

/* --- jobs (store.c) --------------------------------------------------------------------------- */

/* Takes its first step. */
void job_start(struct store *s, struct job *j);
/* Nothing of it is out: its callback is next. */
void job_end(struct job *j, int result);
/* Nothing is begun while the disk does not answer. */
static inline bool job_may_write(const struct store *s)
{
    return !s->closing && !s->health.silent && health_writes(&s->health, when_ns());
}
/* len more bytes may be hashed in this pump. */
bool job_may_hash(struct store *s, size_t len);

/* --- limits.c --------------------------------------------------------------------------------- */

/* Deletes records of little value until the owner may write len more bytes, and memory is within
 * its bounds. False: what is left is in use. */
bool limits_make_room(struct store *s, uint32_t owner, uint64_t len);
bool limits_make_room_for_name(struct store *s, uint32_t owner, uint64_t len); /* no record's */
/* There are as many bytes on the disk now; and within what the owner's records may have. */
bool limits_fits(const struct store *s, uint64_t len);
bool limits_fits_owner(const struct store *s, uint32_t owner, uint64_t len);
/* The most that an owner's records may take. */
uint64_t limits_of_owner(const struct store *s);
/* The disk has less room than the limit: an eighth of what there is goes. */
void limits_shrink(struct store *s);
/* Whether nothing needs it to be found; what it is worth; and how many go after one look at all. */
bool limits_may_go(const struct entry *e);
struct entry *limits_still(const struct store *s, uint64_t id, uint64_t used_s);
double limits_value(const struct store *s, const struct entry *e, uint64_t now_s);
uint32_t limits_victims(const struct store *s);
void limits_delete(struct store *s, struct entry *e);
void limits_delete_all(struct store *s, struct entries *list); /* taken already */
/* e is no longer open. */
void limits_unbusy(struct store *s, struct entry *e);
/* Deletions that wait, times and the budget to write, what is too old. */
void limits_step(struct store *s);
/* At last: the times and the budget that were not written yet. False: once more when there is room.
 */
bool limits_finish(struct store *s);
bool limits_deletes(const struct store *s); /* some are on their way to the disk */
/* The file of that name is still to be deleted. */
bool limits_is_dying(const struct store *s, uint32_t owner, const char *name);
/* Nanoseconds to read so many bytes, as measured. */
double limits_read_ns(const struct store *s, uint64_t bytes);

bool limits_may_write(struct store *s, uint64_t len, bool is_name);
/* The last write was refused for that reason, and would be now. */
bool limits_is_spent(const struct store *s);
/* It will be written: what is under way together can't pass the budget together. */
void limits_wrote(struct store *s, uint64_t len);
/* So much of it did not get to the disk. */
void limits_not_written(struct store *s, uint64_t len);
void limits_open(struct store *s);  /* the budget file */
void limits_again(struct store *s); /* it was in a folder that vanished */
void limits_close(struct store *s);

/* --- put.c, get.c, names.c, scan.c ------------------------------------------------------------ */

void put_forget(struct store *s, uint32_t owner); /* those under way are not published */

int scan_all(struct store *s);
/* The folder vanished: makes it anew, and forgets what went with it. */
int scan_again(struct store *s);
void names_scan(struct store *s, struct folder *d);
void names_close(struct store *s);
void names_forget(struct store *s, uint32_t owner);

#endif
