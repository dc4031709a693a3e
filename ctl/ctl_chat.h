/* ctl/ctl_chat.h - a conversation, for its commands (ctl_chat_cmd.c) and its turns (ctl_chat.c).
 *
 * Ownership  ctl_chat() opens and closes all of it; names that commands give are copied.
 * Errors     exit codes of ctl.h, behind a sentence on standard error.
 */
#ifndef CTL_CTL_CHAT_H
#define CTL_CTL_CHAT_H

#include "ctl/ctl.h"
#include "ctl/ctl_answer.h"
#include "ctl/ctl_memory.h"

#include <stdbool.h>

struct ctl_line;

struct ctl_chat {
    struct ctl_answer_opts answer;
    struct ctl_memory_opts memory_opts;
    struct gist_memory memory;
    gist_conn *conn;
    gist_session *session;
    struct ctl_opt_list docs;
    const char *resume, *save; /* save: kept under this name after each answer; NULL: it is not */
    char *given_save, *given_system; /* what save and answer.system point to after a command */
    bool begun;                      /* the system message was sent */
    struct gist_usage usage;         /* as the last answer, or text, found it */
    struct ctl_text last;            /* the last turn, which began behind last_at tokens; */
    uint32_t last_at;
    bool last_begun; /* and with begun as it was then; */
    bool answered;   /* and that is what the session ends with */
    struct ctl_line *lines;
};

/* A new session, with the options of the program. The one before is closed. */
int ctl_chat_open(struct ctl_chat *chat);
/* s, which was restored, in place of the one before. */
void ctl_chat_take(struct ctl_chat *chat, gist_session *s);
/* Keeps where it stands, if it has a name. */
int ctl_chat_keep(struct ctl_chat *chat, unsigned flags);
/* A text of the user's as messages, behind the system's if it is the first: how many. */
size_t ctl_chat_messages(const struct ctl_chat *chat, const char *text, struct gist_message ret[2]);
/* One turn and its answer. */
int ctl_chat_say(struct ctl_chat *chat, const char *text);
/* The session as `gistctl sessions` has it; CTL_OK, or why not. It lives until the next call. */
int ctl_chat_look(struct ctl_chat *chat, const struct gist_stats_session **ret,
                  struct gist_stats *ret_stats);

/* A line that begins with '/'. Sets *ret_end when it is the last one. */
int ctl_chat_command(struct ctl_chat *chat, char *line, bool *ret_end);

#endif
