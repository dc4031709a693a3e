/* daemon/served.h - the engine's parts that serve one model, opened in two steps.
 *
 * backend_load makes threads and reads the file with them (long: it reports progress);
 * backend_start makes the memory to serve from. Both on the thread that will run the forward pass.
 *
 * Threads    see each part's header. backend, forward, compressor and pool are the scheduler's.
 * Ownership  owns all of it.
 */
#ifndef DAEMON_SERVED_H
#define DAEMON_SERVED_H

#include "daemon/config.h"
#include "engine/backend.h"
#include "engine/file/adapter.h"
#include "engine/file/model.h"
#include "engine/forward.h"
#include "engine/kv/compress.h"
#include "engine/kv/pool.h"
#include "engine/text/chat.h"
#include "engine/text/vocab.h"

#include <sys/types.h>

struct io;
struct keep;
struct prefix;
struct rank_words;
struct store;
struct tier;
struct weight_image;

#define SERVED_ADAPTERS_MAX 16u
#define SERVED_CPU_MAX      16u

struct served {
    struct backend *backend;
    struct backend_info info; /* when all is open; scratch as it will be */
    struct model *model;
    struct weight_image *image; /* that is being written for the next start; NULL: none is */
    struct vocab *vocab;
    struct rank_words *rank; /* by which prompts find segments */
    struct chat *chat;       /* NULL: no template, or one we don't know */
    struct why chat_why;     /* then the reason */
    struct forward forward;
    struct compressor *compressor;
    struct adapter *adapters[SERVED_ADAPTERS_MAX];
    uint32_t n_adapters;
    char adapter_names[SERVED_ADAPTERS_MAX * (ADAPTER_NAME_MAX + 1) + 1];
    struct pool pool;
    struct prefix *prefix; /* NULL: sessions share nothing */
    struct io *io;
    struct store *store;   /* NULL: nothing is kept on a disk */
    struct why store_why;  /* then the reason, a sentence */
    struct tier *tier;     /* joins sessions to it and to host memory; NULL: there is neither */
    uid_t stand_in;        /* what the kernel calls users whom it can't name here: nobody's own */
    uint32_t context_max;  /* tokens a session may hold */
    uint32_t client_pages; /* pages a client may hold */
    size_t token_max;      /* bytes of the longest token */
};

/* What a backend is opened with, but for the device; into cpu goes a text that it points to. */
struct backend_options served_backend_options(const struct config *c, char cpu[SERVED_CPU_MAX]);

/* keep: weights of an earlier process, or for the next one; may be NULL. */
int served_load(struct served *b, const struct config *c, struct keep *keep,
                const struct model_progress *progress, struct why *why);
int served_start(struct served *b, const struct config *c, struct why *why);
void served_close(struct served *b);

/* The device was lost (engine/backend.h): whatever failed, that is why. */
bool served_lost(const struct served *b);
/* Then: all of its memory is given back. Nobody has anything of the compressor's. */
void served_leave(struct served *b);
/* It is opened anew, and has all that it had but what is in pages. After an error as before. */
int served_again(struct served *b, const struct config *c, const struct model_progress *progress,
                 struct why *why);

/* --- nobody wants the model for a while (daemon/idle.h) ----------------------------------------
 *
 * Where the backend gives parts of its memory back the weights go, and the pages that are free; its
 * other pages stay. Else, of a device, all goes, so that no page may be in use. false: neither.
 */
bool served_can_rest(const struct served *b);
/* The bytes that were given back. */
uint64_t served_rest(struct served *b, struct keep *keep);
/* All of it is there again, as it was. After an error as before. */
int served_wake(struct served *b, const struct config *c, struct keep *keep,
                const struct model_progress *progress, struct why *why);

/* Pages that can be had: free ones, and those that are only kept in case they are of use again. */
uint32_t served_pages_free(const struct served *b);

/* n pages can't be had now, but as soon as the disk is done with some: nobody fails for want of
 * pages that are only being written. */
bool served_pages_come(const struct served *b, const struct pool_account *a, uint64_t n);

/* The adapter of that name, or NULL. */
const struct adapter *served_adapter(const struct served *b, const char *name);
size_t served_adapter_bytes(const struct served *b);

#endif
