/* gist/session.h - sessions, and what they read (a part of gist.h). */
#ifndef GIST_SESSION_H
#define GIST_SESSION_H

#ifndef GIST_H
#error "include <gist.h>, which has all of it"
#endif

enum gist_priority { GIST_INTERACTIVE, GIST_BACKGROUND };

/* All that the session reads and writes is no secret: it takes over what sessions of any user with
 * this flag have read, and they what it has. Without it sessions of one user do so among
 * themselves. */
#define GIST_PUBLIC 1u

/* Nothing of the session is kept when it is closed, in the daemon's memory or on disk, and no other
 * session takes anything over from it. It may take over itself what earlier sessions of this user
 * have read. Not with GIST_PUBLIC. */
#define GIST_PRIVATE 2u

struct gist_policy {
    size_t size;      /* sizeof(struct gist_policy): later versions may grow it */
    uint32_t segment; /* tokens; 0: the adapter's, or the daemon's default */
    enum gist_priority priority;
    const char *label;                /* for status; may be NULL */
    const struct gist_memory *memory; /* NULL: GIST_FULL, or GIST_AUTO of flags */
    unsigned flags;                   /* GIST_AUTO, GIST_PUBLIC, GIST_PRIVATE, GIST_SET_SEGMENT */
    /* (n_documents) names: the session begins with them, under what the first was added with.
     * memory, segment and GIST_PUBLIC are that then; who says them all the same must say the same.
     * Several, of the same options, stand in any order, each as it was read alone; automatic ones,
     * and any with GIST_AUTO or longer than the window, are read as one text of any length. */
    const char *const *documents;
    size_t n_documents;
    /* At most 127 bytes: sessions of one user take over what others have read within one realm
     * alone, so that a program that serves several people gives each his own, and none can tell by
     * usage or speed what another has sent. NULL, "": that of all sessions that name none. Not with
     * GIST_PUBLIC or documents; what is saved by name comes back without one. */
    const char *realm;
};

#define GIST_RATIOS 6 /* 2 and its doubles, up to 64 */

struct gist_usage {
    uint32_t prompt_tokens, computed_tokens, generated_tokens;
    uint64_t prompt_ns, first_token_ns, generate_ns;
    uint32_t raw_tokens, gist_tokens; /* of prompt_tokens: there as they are, there as gists */
    uint32_t gists;                   /* keys that stand for gist_tokens */
    uint32_t shared_tokens;           /* not computed: an earlier session had read them */
    uint32_t restored_tokens;         /* not computed: they came back from the disk */
    /* of prompt_tokens: of documents that were read alone, and not behind what stands before them
     */
    uint32_t approximate_tokens;
    /* of raw_tokens: of compressed segments that are there as they were read, for this prompt; of
     * these: read back from the disk for it, computed again */
    uint32_t hydrated_tokens, hydrated_disk_tokens, recomputed_tokens;
    uint32_t missed_tokens; /* of gist_tokens: the prompt points to them, but they can't come back
                             */
    uint32_t ratio;         /* tokens a gist stands for at first; 0: there are none */
    uint32_t at_ratio[GIST_RATIOS]; /* of gist_tokens: at that ratio, at twice, four times ... it */
    uint32_t drafted_tokens;        /* guessed ahead */
    uint32_t accepted_tokens;       /* and right: each a step of the model less */
};

GIST_API int gist_open(gist_conn *c, const struct gist_policy *policy, gist_session **ret_session);
/* Without waiting. s: NULL with an error. */
typedef void gist_session_fn(void *arg, int err, gist_session *s);
GIST_API int gist_open_start(gist_conn *c, const struct gist_policy *policy,
                             gist_session_fn *on_session, void *arg, uint64_t *ret_request);
GIST_API void gist_close(gist_session *s); /* does not wait; the daemon frees its pages */
GIST_API uint64_t gist_session_id(const gist_session *s);
/* What it took to open s: its documents, or what gist_restore read. Zeros of any other. */
GIST_API void gist_session_usage(const gist_session *s, struct gist_usage *ret_usage);

/* A session that goes on from where s is: tokens, policy and logits are the same, memory is shared
 * as long as both leave it as it is. label may be NULL. */
GIST_API int gist_fork(gist_session *s, const char *label, gist_session **ret_session);
GIST_API int gist_fork_start(gist_session *s, const char *label, gist_session_fn *on_session,
                             void *arg, uint64_t *ret_request);
/* Takes s back to its first n_tokens (of gist_usage.prompt_tokens), as if nothing had come behind
 * them. */
GIST_API int gist_rewind(gist_session *s, uint32_t n_tokens);
GIST_API int gist_rewind_start(gist_session *s, uint32_t n_tokens, gist_done_fn *on_done, void *arg,
                               uint64_t *ret_request);

/* role: "system", "user", "assistant". And of tools: "tools", before all others, is what may be
 * called, a line of JSON each, as OpenAI's API has them; "calls", behind what the assistant says
 * beside them, if anything, is what it calls, a line for each of its name, a space and its
 * arguments as JSON; "tool" is what came of a call. */
struct gist_message {
    const char *role;
    const char *text;
};

/* n_read of n_tokens are there; both 0: the text is still being encoded. */
typedef void gist_progress_fn(void *arg, uint32_t n_read, uint32_t n_tokens);

/* From now on appends to s tell how far they are: at first how many tokens need not be computed,
 * since they were read before or another session is reading them now, then after each step. NULL:
 * not any more. */
GIST_API void gist_on_progress(gist_session *s, gist_progress_fn *on_progress, void *arg);

#define GIST_SPECIAL     1u /* special tokens in the text are special */
#define GIST_OPEN_ANSWER 2u /* chat: end with the head of an assistant's turn */

/* Read into the session all that is given, or nothing, if they fail. Texts and lists of any length
 * are sent in parts and read as one: the tokens are those of the whole. */
GIST_API int gist_append_text(gist_session *s, const char *text, size_t len, unsigned flags,
                              struct gist_usage *ret_usage);
GIST_API int gist_append_tokens(gist_session *s, const uint32_t *ids, size_t n,
                                struct gist_usage *ret_usage);
GIST_API int gist_append_chat(gist_session *s, const struct gist_message *msgs, size_t n,
                              unsigned flags, struct gist_usage *ret_usage);

/* The same without waiting. */
GIST_API int gist_append_text_start(gist_session *s, const char *text, size_t len, unsigned flags,
                                    gist_done_fn *on_done, void *arg, uint64_t *ret_request);
GIST_API int gist_append_tokens_start(gist_session *s, const uint32_t *ids, size_t n,
                                      gist_done_fn *on_done, void *arg, uint64_t *ret_request);
GIST_API int gist_append_chat_start(gist_session *s, const struct gist_message *msgs, size_t n,
                                    unsigned flags, gist_done_fn *on_done, void *arg,
                                    uint64_t *ret_request);

#endif
