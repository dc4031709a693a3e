/* gist/named.h - sessions and documents by name (a part of gist.h). */
#ifndef GIST_NAMED_H
#define GIST_NAMED_H

#ifndef GIST_H
#error "include <gist.h>, which has all of it"
#endif

/* Names are this user's, sessions' and documents' apart: 1 to 128 bytes of UTF-8 without control
 * characters and '/'. */

#define GIST_REPLACE 4u /* also where the name is taken; else GIST_E_NAME_EXISTS */

/* Keeps where s stands, on disk: gist_restore opens a session that stands there, also of another
 * connection, and after the daemon was started anew. flags: GIST_REPLACE. label NULL: as it was. */
GIST_API int gist_save(gist_session *s, const char *name, unsigned flags);
GIST_API int gist_restore(gist_conn *c, const char *name, const char *label,
                          gist_session **ret_session);
GIST_API int gist_save_start(gist_session *s, const char *name, unsigned flags,
                             gist_done_fn *on_done, void *arg, uint64_t *ret_request);
GIST_API int gist_restore_start(gist_conn *c, const char *name, const char *label,
                                gist_session_fn *on_session, void *arg, uint64_t *ret_request);

/* A document is a text that sessions begin with (gist_policy.documents): it is read once. The name
 * is there at once, also for other connections, while it is still read. */
#define GIST_PIN   8u  /* its memory is kept until it is deleted */
#define GIST_PLAIN 16u /* no chat message, though the model has a template */

struct gist_document {
    size_t size;      /* sizeof(struct gist_document) */
    uint32_t segment; /* as in gist_policy */
    const struct gist_memory *memory;
    enum gist_priority priority;   /* of reading it */
    const char *role;              /* of the chat message that the text becomes; NULL: "system" */
    gist_progress_fn *on_progress; /* may be NULL; gets the call's arg */
    void *arg;                     /* for on_progress of the blocking call */
    unsigned flags;                /* GIST_PIN, _PLAIN, _REPLACE, _PUBLIC, _SET_SEGMENT */
};

/* Waits until it was read. -ECANCELED and any other error, and the end of the connection: there is
 * no such document. document NULL: zeros. */
GIST_API int gist_document_add(gist_conn *c, const char *name, const char *text, size_t len,
                               const struct gist_document *document, struct gist_usage *ret_usage);
GIST_API int gist_document_add_start(gist_conn *c, const char *name, const char *text, size_t len,
                                     const struct gist_document *document, gist_done_fn *on_done,
                                     void *arg, uint64_t *ret_request);

enum gist_named { GIST_SESSIONS, GIST_DOCUMENTS };
enum gist_state {
    GIST_READY,
    GIST_READING,
    GIST_OTHER_MODEL, /* saved with another model or adapter than the daemon has now */
    GIST_DAMAGED      /* its file can't be read */
};
struct gist_row {
    const char *name, *label, *model; /* model: that it was saved with */
    enum gist_state state;
    uint32_t n_tokens, n_read;
    int pinned, kept; /* kept: on disk; else it goes with the daemon */
    uint64_t at_s;    /* when it was saved or added, seconds since 1970 */
    uint64_t bytes;   /* of its file */
};
/* In order of name; a later library's rows may be longer. Not 0 ends the list. */
typedef int gist_row_fn(void *arg, const struct gist_row *row);
GIST_API int gist_list(gist_conn *c, enum gist_named kind, gist_row_fn *on_row, void *arg);
GIST_API int gist_list_start(gist_conn *c, enum gist_named kind, gist_row_fn *on_row,
                             gist_done_fn *on_done, void *arg, uint64_t *ret_request);

/* Sessions that were restored from it, or begin with it, go on. */
GIST_API int gist_delete(gist_conn *c, enum gist_named kind, const char *name);
GIST_API int gist_delete_start(gist_conn *c, enum gist_named kind, const char *name,
                               gist_done_fn *on_done, void *arg, uint64_t *ret_request);

#endif
