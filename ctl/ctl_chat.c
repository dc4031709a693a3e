/* ctl/ctl_chat.c - gistctl chat: a conversation in one session of the daemon.
 *
 * Each turn appends to the session's KV, so nothing is read twice. Ctrl-C ends an answer; what was
 * said of it stays part of the conversation. Without a terminal every line of standard input is a
 * turn, whatever it begins with: a program's text must not be able to give commands.
 */
#include "ctl/ctl_chat.h"

#include "base/files.h"
#include "base/shown.h"
#include "ctl/ctl_line.h"
#include "ctl/ctl_named.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct ctl_opt_usage usage = {
    "chat [OPTIONS]",
    "A conversation with the model. Ctrl-C ends an answer, Ctrl-D the conversation; a line that\n"
    "ends with \\ continues in the next, and what is pasted is one turn. /help lists commands. "
    "From\n"
    "a pipe each line is a turn.\n"
};

/* The folder that the file is to lie in, for this user alone. */
static bool make_folder_of(const char *path)
{
    char folder[PATH_MAX];

    (void)snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path), path);
    return files_make_path(folder, NULL) == 0;
}

/* $XDG_STATE_HOME/gistd/chat_history. A history that can't be kept is no reason not to talk. */
static bool find_history(char ret[PATH_MAX])
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n;

    if (state && state[0] == '/')
        n = snprintf(ret, PATH_MAX, "%s/gistd/chat_history", state);
    else if (home && home[0] == '/')
        n = snprintf(ret, PATH_MAX, "%s/.local/state/gistd/chat_history", home);
    else
        return false;
    return n > 0 && n < PATH_MAX && make_folder_of(ret);
}

/* The old session goes first: two of one conversation would need twice the pages. */
int ctl_chat_open(struct ctl_chat *chat)
{
    struct gist_policy policy = { .size = sizeof(policy),
                                  .segment = chat->memory_opts.segment,
                                  .label = "chat",
                                  .memory = &chat->memory,
                                  .flags = ctl_answer_policy_flags(&chat->answer),
                                  .documents = chat->docs.v,
                                  .n_documents = chat->docs.n };
    int r;

    gist_close(chat->session);
    chat->session = NULL;
    chat->begun = chat->answered = false;
    chat->usage = (struct gist_usage){ 0 };
    r = gist_open(chat->conn, &policy, &chat->session);
    if (r < 0)
        return chat->docs.n ? ctl_named_fail(chat->conn, GIST_DOCUMENTS, r)
                            : ctl_fail_gist(chat->conn, r);
    ctl_answer_began(chat->session, &chat->answer);
    return 0;
}

/* Where the conversation stands: after each answer, so that nothing is lost with the terminal. */
int ctl_chat_keep(struct ctl_chat *chat, unsigned flags)
{
    int r = chat->save ? gist_save(chat->session, chat->save, flags) : 0;

    return r < 0 ? ctl_fail_gist(chat->conn, r) : 0;
}

void ctl_chat_take(struct ctl_chat *chat, gist_session *s)
{
    gist_close(chat->session);
    chat->session = s;
    chat->answered = false;
    ctl_answer_began(s, &chat->answer);
    gist_session_usage(s, &chat->usage);
    chat->begun = chat->usage.prompt_tokens > 0;
}

/* A name is taken at once, empty as the conversation is: to hear behind the first answer that it
 * is another's would be late. */
static int begin_session(struct ctl_chat *chat)
{
    gist_session *s;
    int r;

    if (!chat->resume) {
        r = ctl_chat_open(chat);
        if (r == 0)
            r = ctl_chat_keep(chat, 0);
        if (r != 0 && gist_error_code(chat->conn) == GIST_E_NAME_EXISTS)
            (void)ctl_fail(CTL_FAILED, "--resume \"%s\" goes on with it.", chat->save);
        return r;
    }
    r = gist_restore(chat->conn, chat->resume, NULL, &s);
    if (r < 0)
        return ctl_named_fail(chat->conn, GIST_SESSIONS, r);
    ctl_chat_take(chat, s);
    if (!chat->save)
        chat->save = chat->resume;
    return strcmp(chat->save, chat->resume) == 0 ? 0 : ctl_chat_keep(chat, 0);
}

/* A turn: lines as long as they end with a backslash. Errors of ctl_line_read, and -EILSEQ: a NUL,
 * behind which a message, a C string in libgist, would be lost without a word. */
static int read_turn(struct ctl_chat *chat, struct ctl_text *t)
{
    const char *line;
    int r;

    for (;;) {
        size_t len;
        bool more;

        r = ctl_line_read(chat->lines, t->len ? ". " : "> ", &line, &len);
        if (r < 0)
            return r;
        if (memchr(line, '\0', len))
            return -EILSEQ;
        more = len > 0 && line[len - 1] == '\\';
        r = ctl_text_add(t, line, len - more);
        if (r == 0 && more)
            r = ctl_text_add(t, "\n", 1);
        if (r < 0 || !more)
            return r;
    }
}

int ctl_chat_look(struct ctl_chat *chat, const struct gist_stats_session **ret,
                  struct gist_stats *ret_stats)
{
    int r = gist_stats(chat->conn, ret_stats);

    if (r < 0)
        return ctl_fail_gist(chat->conn, r);
    for (uint32_t i = 0; i < ret_stats->n_sessions; i++) {
        *ret = &ret_stats->sessions[i];
        if ((*ret)->id == gist_session_id(chat->session))
            return CTL_OK;
    }
    return ctl_fail(CTL_FAILED, "the daemon does not list this conversation.");
}

/* How many tokens the session has; what an interrupted turn leaves is not known otherwise. */
static int count_tokens(struct ctl_chat *chat, uint32_t *ret)
{
    const struct gist_stats_session *s;
    struct gist_stats stats;
    int r = ctl_chat_look(chat, &s, &stats);

    if (r == CTL_OK)
        *ret = s->n_tokens;
    return r;
}

/* What /retry goes back to. */
static int remember_turn(struct ctl_chat *chat, const char *text)
{
    chat->last.len = 0;
    chat->last_begun = chat->begun;
    if (ctl_text_add(&chat->last, text, strlen(text)) < 0)
        return ctl_fail(CTL_FAILED, "out of memory.");
    return count_tokens(chat, &chat->last_at);
}

size_t ctl_chat_messages(const struct ctl_chat *chat, const char *text, struct gist_message ret[2])
{
    size_t n = 0;

    if (chat->answer.system && !chat->begun)
        ret[n++] = (struct gist_message){ "system", chat->answer.system };
    ret[n++] = (struct gist_message){ "user", text };
    return n;
}

/* What /retry needs is remembered before anything changes. After the answer the session's own count
 * says whether the turn is there: a Ctrl-C may have come before, while or behind it was read. */
int ctl_chat_say(struct ctl_chat *chat, const char *text)
{
    struct gist_message msgs[2];
    size_t n = ctl_chat_messages(chat, text, msgs);
    int r = remember_turn(chat, text);

    if (r != CTL_OK)
        return r;
    ctl_interrupt_forget();
    r = ctl_answer_run(chat->conn, chat->session, &(struct ctl_prompt){ .msgs = msgs, .n_msgs = n },
                       &chat->answer);
    ctl_interrupt_forget();
    if (r == CTL_OK || r == CTL_INTERRUPTED) {
        uint32_t now = chat->last_at;
        int e = count_tokens(chat, &now);

        /* Interrupted while it was read, nothing of the turn is there. */
        chat->answered = now > chat->last_at;
        chat->begun |= chat->answered;
        if (e == CTL_OK)
            e = ctl_chat_keep(chat, GIST_REPLACE);
        return e == CTL_OK ? r : e;
    }
    if (gist_error_code(chat->conn) == GIST_E_CONTEXT_LENGTH_EXCEEDED)
        fputs("gistctl: /new starts a new conversation.\n", stderr);
    return r;
}

/* To a person, before the first prompt. */
static void greet(const struct ctl_chat *chat)
{
    struct gist_info info;

    gist_info(chat->conn, &info);
    shown_line(stderr, "%s. Type a question and press Enter; /help lists commands, Ctrl-D ends.",
               info.model);
}

static int fail_read(int err)
{
    if (err == -EILSEQ)
        return ctl_fail(CTL_FAILED, "standard input is not text: a line has a NUL byte.");
    return ctl_fail(CTL_FAILED, "cannot read standard input: %s", strerror(-err));
}

/* A failed turn ends a conversation that nobody watches; a person may go on unless the daemon is
 * gone. */
static int converse(struct ctl_chat *chat)
{
    bool person = isatty(STDIN_FILENO), end = false;
    struct ctl_text turn = { 0 };
    int r = CTL_OK;

    while (!end && r != CTL_NO_DAEMON && (r == CTL_OK || person)) {
        int got;

        turn.len = 0;
        ctl_interrupt_forget();
        got = read_turn(chat, &turn);
        if (got == -EINTR && !person) {
            r = CTL_INTERRUPTED;
        } else if (got == -EINTR) {
            fputc('\n', stdout);
        } else if (got == -ENODATA) {
            end = true;
            r = CTL_OK;
        } else if (got < 0) {
            r = fail_read(got);
        } else if (turn.len > 0) {
            ctl_line_remember(chat->lines, turn.bytes);
            ctl_interrupt_forget();
            r = person && turn.bytes[0] == '/' ? ctl_chat_command(chat, turn.bytes, &end)
                                               : ctl_chat_say(chat, turn.bytes);
        }
    }
    if (person)
        fputc('\n', stdout);
    ctl_text_fini(&turn);
    return r;
}

/* Connected, until the end of the conversation. The order of the end: the session while the
 * connection is there, then the signal, then the terminal. */
static int talk(struct ctl_chat *chat)
{
    char history[PATH_MAX];
    /* Lines that the editor keeps would outlive a private conversation. */
    bool keeps = !chat->answer.is_private && find_history(history);
    int r = ctl_line_open(keeps ? history : NULL, &chat->lines);

    if (r < 0)
        return ctl_fail(CTL_FAILED, "cannot edit lines: %s", strerror(-r));
    ctl_interrupt_catch(chat->conn, false);
    r = begin_session(chat);
    if (r == 0 && isatty(STDIN_FILENO) && isatty(STDERR_FILENO))
        greet(chat);
    if (r == 0)
        r = converse(chat);
    gist_close(chat->session);
    ctl_interrupt_catch(NULL, false);
    ctl_line_close(chat->lines);
    return r;
}

/* What no option alone can say. */
static int check_options(const struct ctl_chat *chat)
{
    if (chat->resume && (chat->docs.n > 0 || ctl_memory_said(&chat->memory_opts)))
        return ctl_fail(CTL_USAGE,
                        "--resume goes on with the documents and memory options that the "
                        "conversation began with; leave %s out.",
                        chat->docs.n > 0 ? "--doc" : "those options");
    if (chat->answer.is_private && (chat->save || chat->resume))
        return ctl_fail(CTL_USAGE, "--private keeps nothing of the conversation: leave --%s out.",
                        chat->save ? "save" : "resume");
    return CTL_OK;
}

int ctl_chat(int argc, char **argv)
{
    struct ctl_chat chat = { 0 };
    const struct ctl_opt opts[] = {
        { "doc", 'd', CTL_OPT_LIST, "NAME", &chat.docs, 0, 0,
          "begin with this document of `gistctl doc add`; several in any order" },
        { "save", 0, CTL_OPT_STRING, "NAME", &chat.save, 0, 0,
          "keep the conversation under this name, after each answer" },
        { "resume", 0, CTL_OPT_STRING, "NAME", &chat.resume, 0, 0,
          "go on with a saved one, and keep it under its name" },
        CTL_MEMORY_OPTIONS(&chat.memory_opts),
        CTL_ANSWER_OPTIONS(&chat.answer),
        { "json", 'j', CTL_OPT_FLAG, NULL, &chat.answer.json, 0, 0,
          "an object a turn, on a line of its own: answer, reason, usage" },
    };
    int first, r;

    ctl_answer_defaults(&chat.answer);
    ctl_memory_defaults(&chat.memory_opts, true);
    first = ctl_opt_parse(&usage, opts, sizeof(opts) / sizeof(opts[0]), argc, argv, &r);
    if (first < 0)
        return r;
    if (first < argc)
        return ctl_fail(
            CTL_USAGE,
            "chat takes no arguments, but got '%s'; to ask one question, use `gistctl ask`.",
            argv[first]);
    r = check_options(&chat);
    if (r != CTL_OK)
        return r;
    /* Documents bring the memory options that they were added with. */
    chat.memory_opts.automatic = chat.docs.n == 0;
    chat.answer.usage = &chat.usage;
    r = ctl_memory_read(&chat.memory_opts, &chat.memory);
    if (r == 0)
        r = ctl_answer_read(&chat.answer);
    umask(077); /* what a person says is theirs alone, the history too */
    if (r == 0)
        r = ctl_connect(&chat.conn);
    if (r == 0) {
        r = talk(&chat);
        gist_disconnect(chat.conn);
    }
    ctl_answer_fini(&chat.answer);
    ctl_text_fini(&chat.last);
    free(chat.given_save);
    free(chat.given_system);
    return r;
}
