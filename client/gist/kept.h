/* gist/kept.h - sessions that outlive their connection: a program that crashed, or was started
 * again, comes back to the answer that it waited for (a part of gist.h). */
#ifndef GIST_KEPT_H
#define GIST_KEPT_H

#ifndef GIST_H
#error "include <gist.h>, which has all of it"
#endif

#define GIST_TOKEN_BYTES 16

struct gist_kept {
    size_t size; /* sizeof(struct gist_kept), to be set before */
    /* Whoever has it, and is of this user, has the session: it is to be kept as a password is. */
    unsigned char token[GIST_TOKEN_BYTES];
    uint32_t seconds; /* fewer than asked for, if the daemon allows fewer */
    uint64_t bytes;   /* of an answer that nobody reads; then it waits */
};

/* From now on s stays when its connection ends, by gist_disconnect as by kill -9, for so many
 * seconds (0: the most that the daemon allows), and an answer that it writes goes on; what is read
 * into it is given up. gist_close ends it as ever. s must not be at work. Asked for once more it
 * has another token, and the one before is good for nothing. -ENOTSUP: the daemon is older, or
 * keeps none (gistd --detach-seconds). When the daemon is started again kept sessions are gone. */
GIST_API int gist_keep(gist_session *s, uint32_t seconds, struct gist_kept *ret_kept);
typedef void gist_kept_fn(void *arg, int err, const struct gist_kept *kept);
GIST_API int gist_keep_start(gist_session *s, uint32_t seconds, gist_kept_fn *on_kept, void *arg,
                             uint64_t *ret_request);

struct gist_attached {
    size_t size;       /* sizeof(struct gist_attached), to be set before */
    uint32_t n_tokens; /* of the session */
    uint32_t answers;  /* of the last gist_generate of it, for gist_resume; 0: there is none */
    /* Tokens of all these answers together: those that can't be had again, that the connection
     * before had read, that there are by now. */
    uint64_t first, unread, written;
    uint32_t seconds; /* as in gist_kept */
};

/* The session with this token, which is this connection's from here on. Another one that has it
 * loses it, and what it does with it is cancelled, but for its answer. realm: that of its policy,
 * or NULL. -ENOENT, always with the same sentence: the token is wrong, its time is over, it is of
 * another user or realm, or the daemon was started again. ret_attached may be NULL. */
GIST_API int gist_attach(gist_conn *c, const unsigned char *token, const char *realm,
                         gist_session **ret_session, struct gist_attached *ret_attached);
/* s, attached: NULL with an error. */
typedef void gist_attached_fn(void *arg, int err, gist_session *s,
                              const struct gist_attached *attached);
GIST_API int gist_attach_start(gist_conn *c, const unsigned char *token, const char *realm,
                               gist_attached_fn *on_attached, void *arg, uint64_t *ret_request);

/* The answer begins behind so many tokens, before any of its text is given. More than were asked
 * for: what is between can't be had again. Fewer: the piece of text that they ended in comes again.
 */
typedef void gist_resumed_fn(void *arg, uint64_t first);

#define GIST_SET_FROM 1u

struct gist_resume {
    size_t size; /* sizeof(struct gist_resume) */
    /* Tokens that are known already. Without GIST_SET_FROM and 0: those that callbacks of the
     * connection before have returned from. */
    uint64_t from;
    unsigned flags;              /* GIST_SET_FROM */
    gist_resumed_fn *on_resumed; /* these may be NULL; with on_text's arg */
    gist_answer_fn *on_answer;
    gist_logprob_fn *on_logprob;
};

/* What there is of the answer of a session that is kept, then the rest as it is written, then how
 * it ended: as gist_generate_several gives them, also of one that had ended before. how may be
 * NULL. -ENOENT: it has none. Who cancels this cancels the answer; who wants it to go on
 * disconnects. */
GIST_API int gist_resume(gist_session *s, const struct gist_resume *how, gist_answers_fn *on_text,
                         void *arg, struct gist_result *ret_result);
GIST_API int gist_resume_start(gist_session *s, const struct gist_resume *how,
                               gist_answers_fn *on_text, gist_done_fn *on_done, void *arg,
                               uint64_t *ret_request);

#endif
