/* ctl/ctl_chat_cmd.c - the commands of a conversation: what a person types behind a '/'.
 *
 * A command answers on standard error, as all that is not the model's word: standard output has
 * the answers alone, and may be a file.
 */
#include "base/shown.h"
#include "ctl/ctl_chat.h"
#include "ctl/ctl_human.h"
#include "ctl/ctl_named.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the answer again where the options say none: at 0 it would be the same. */
#define RETRY_TEMPERATURE 0.8f

static int out_of_memory(void)
{
    return ctl_fail(CTL_FAILED, "out of memory.");
}

/* --- new, system ------------------------------------------------------------------------------ */

static int cmd_new(struct ctl_chat *chat, char *arg)
{
    bool named = chat->save != NULL;
    int r;

    (void)arg;
    chat->save = NULL; /* the next answer would be kept in its place */
    r = ctl_chat_open(chat);
    if (r == CTL_OK)
        fprintf(stderr, "A new conversation.%s\n",
                named ? " The one before is kept; /save NAME keeps this one." : "");
    return r;
}

static int cmd_system(struct ctl_chat *chat, char *arg)
{
    char *copy;

    if (!*arg) {
        shown_line(stderr, "%s",
                   chat->answer.system ? chat->answer.system
                                       : "There is none, or the model's own. /system TEXT begins "
                                         "a new conversation with one.");
        return CTL_OK;
    }
    copy = strdup(arg);
    if (!copy)
        return out_of_memory();
    free(chat->given_system);
    chat->answer.system = chat->given_system = copy;
    return cmd_new(chat, NULL);
}

/* --- file ------------------------------------------------------------------------------------- */

/* As terminals write a file that is dropped on them: in quotes, or with a backslash in front of
 * what a shell would take for its own; ~/ is the user's folder. arg is changed. -ENAMETOOLONG. */
static int read_path(char *arg, char ret[PATH_MAX])
{
    size_t len = strlen(arg), n = 0;
    const char *home = getenv("HOME");
    bool quoted = len > 1 && (arg[0] == '\'' || arg[0] == '"') && arg[len - 1] == arg[0];

    if (quoted) {
        arg[len - 1] = '\0';
        arg++;
    } else if (arg[0] == '~' && arg[1] == '/' && home) {
        n = (size_t)snprintf(ret, PATH_MAX, "%s", home);
        arg++;
    }
    for (; *arg && n + 1 < PATH_MAX; arg++) {
        if (!quoted && *arg == '\\' && arg[1])
            arg++;
        ret[n++] = *arg;
    }
    if (n + 1 >= PATH_MAX)
        return -ENAMETOOLONG;
    ret[n] = '\0';
    return 0;
}

/* Read at once and not with the question, so that its time shows where it belongs; a question is
 * then answered at once. */
static int hear_file(struct ctl_chat *chat, const struct ctl_text *t)
{
    struct gist_message msgs[2];
    size_t n = ctl_chat_messages(chat, t->bytes, msgs);
    int r = ctl_answer_hear(chat->conn, chat->session, msgs, n, &chat->answer);

    if (r != CTL_OK)
        return r;
    chat->begun = true;
    chat->answered = false;
    fprintf(stderr, "%u tokens so far. Now ask about the text.\n", chat->usage.prompt_tokens);
    return ctl_chat_keep(chat, GIST_REPLACE);
}

static int cmd_file(struct ctl_chat *chat, char *arg)
{
    struct ctl_text t = { 0 };
    char path[PATH_MAX];
    int r;

    if (!*arg)
        return ctl_fail(CTL_USAGE, "say which: /file PATH");
    r = read_path(arg, path) < 0 ? ctl_fail(CTL_USAGE, "the path is too long.")
                                 : ctl_text_read(&t, path);
    if (r == 0 && t.len > 0 && memchr(t.bytes, '\0', t.len))
        r = ctl_fail(CTL_FAILED, "%s is not text: it has a NUL byte.", path);
    else if (r == 0 && t.len == 0)
        r = ctl_fail(CTL_FAILED, "%s is empty.", path);
    if (r == 0)
        r = hear_file(chat, &t);
    ctl_text_fini(&t);
    return r;
}

/* --- save, load ------------------------------------------------------------------------------- */

/* A copy: the line that the name came in is gone with the next one. */
static int take_name(struct ctl_chat *chat, const char *name)
{
    char *copy = strdup(name);

    if (!copy)
        return out_of_memory();
    free(chat->given_save);
    chat->save = chat->given_save = copy;
    return CTL_OK;
}

static int refuse_private(const struct ctl_chat *chat)
{
    return chat->answer.is_private
               ? ctl_fail(CTL_FAILED, "this conversation is --private: nothing of it is kept.")
               : CTL_OK;
}

/* A name that this conversation has already is replaced; another's is not. */
static int cmd_save(struct ctl_chat *chat, char *arg)
{
    const char *name = *arg ? arg : chat->save;
    bool again = chat->save && name && strcmp(name, chat->save) == 0;
    int r = refuse_private(chat);

    if (r != CTL_OK)
        return r;
    if (!name)
        return ctl_fail(CTL_USAGE, "say under which name: /save NAME");
    r = gist_save(chat->session, name, again ? GIST_REPLACE : 0);
    if (r < 0) {
        r = ctl_fail_gist(chat->conn, r);
        if (gist_error_code(chat->conn) == GIST_E_NAME_EXISTS)
            (void)ctl_fail(r, "/load %s goes on with it; `gistctl session rm` deletes it.", name);
        return r;
    }
    shown_line(stderr, "Kept as \"%s\", and again after each answer.", name);
    return again ? CTL_OK : take_name(chat, name);
}

/* Under its name it is kept on from here: what is loaded is the conversation itself, no copy. */
static int cmd_load(struct ctl_chat *chat, char *arg)
{
    gist_session *s;
    int r = refuse_private(chat);

    if (r != CTL_OK)
        return r;
    if (!*arg)
        return ctl_fail(CTL_USAGE, "say which: /load NAME; `gistctl session ls` lists them.");
    r = gist_restore(chat->conn, arg, NULL, &s);
    if (r < 0)
        return ctl_named_fail(chat->conn, GIST_SESSIONS, r);
    ctl_chat_take(chat, s);
    r = take_name(chat, arg);
    if (r == CTL_OK)
        shown_line(stderr, "Going on with \"%s\", %u tokens; kept again after each answer.", arg,
                   chat->usage.prompt_tokens);
    return r;
}

/* --- retry, memory, stats --------------------------------------------------------------------- */

/* The session goes back to before the question, which is then said again with another seed; at
 * temperature 0 that alone would change nothing. */
static int cmd_retry(struct ctl_chat *chat, char *arg)
{
    float temperature = chat->answer.sampling.temperature;
    struct ctl_text again = chat->last;
    int r;

    (void)arg;
    if (!chat->answered)
        return ctl_fail(CTL_USAGE, "there is no answer yet to try again.");
    r = gist_rewind(chat->session, chat->last_at);
    if (r < 0)
        return ctl_fail_gist(chat->conn, r);
    chat->begun = chat->last_begun;
    chat->last = (struct ctl_text){ 0 }; /* saying it puts it back */
    if (temperature == 0)
        chat->answer.sampling.temperature = RETRY_TEMPERATURE;
    chat->answer.sampling.seed++;
    r = ctl_chat_say(chat, again.bytes);
    chat->answer.sampling.temperature = temperature;
    ctl_text_fini(&again);
    return r;
}

static int cmd_memory(struct ctl_chat *chat, char *arg)
{
    const struct gist_stats_session *s;
    struct gist_stats stats;
    char bytes[CTL_HUMAN_CAP];
    struct gist_info info;
    int r;

    (void)arg;
    r = ctl_chat_look(chat, &s, &stats);
    if (r != CTL_OK)
        return r;
    gist_info(chat->conn, &info);
    fprintf(stderr, "%u tokens in %s; the model's window has %u.\n", s->n_tokens,
            ctl_human_bytes((uint64_t)s->pages * stats.page_bytes, bytes), info.context_max);
    if (chat->usage.gist_tokens > 0)
        fprintf(stderr, "Of the last prompt %u tokens were there as they are",
                chat->usage.raw_tokens);
    else
        fputs("All of them are there as they are", stderr);
    if (chat->usage.hydrated_tokens > 0)
        fprintf(stderr, ", %u of these brought back for the question", chat->usage.hydrated_tokens);
    if (chat->usage.gists > 0)
        fprintf(stderr, "; %u older ones as %u gists, keys that stand for several tokens each",
                chat->usage.gist_tokens, chat->usage.gists);
    else if (chat->usage.gist_tokens > 0)
        fprintf(stderr, "; %u are forgotten", chat->usage.gist_tokens);
    fputs(".\n", stderr);
    if (chat->save)
        shown_line(stderr, "Kept on disk as \"%s\".", chat->save);
    else
        fputs("It has no name: /save NAME keeps it.\n", stderr);
    return CTL_OK;
}

static int cmd_stats(struct ctl_chat *chat, char *arg)
{
    (void)arg;
    chat->answer.stats = !chat->answer.stats;
    fprintf(stderr, "Times after each answer are %s.\n", chat->answer.stats ? "on" : "off");
    return CTL_OK;
}

/* --- the table -------------------------------------------------------------------------------- */

static int cmd_help(struct ctl_chat *chat, char *arg);

static const struct command {
    const char *name, *arg; /* arg NULL: it takes none */
    int (*run)(struct ctl_chat *chat, char *arg);
    const char *help;
} commands[] = {
    { "help", NULL, cmd_help, "this list" },
    { "file", "PATH", cmd_file, "read a text of any length, to ask about it" },
    { "retry", NULL, cmd_retry, "answer the last question again, in other words" },
    { "memory", NULL, cmd_memory, "what the conversation holds, and in what form" },
    { "save", "NAME", cmd_save, "keep the conversation, now and after each answer" },
    { "load", "NAME", cmd_load, "go on with one that was kept" },
    { "system", "TEXT", cmd_system, "begin anew, with a message that says how to answer" },
    { "new", NULL, cmd_new, "begin anew" },
    { "stats", NULL, cmd_stats, "times after each answer, on or off" },
    { "quit", NULL, NULL, "end the conversation, as Ctrl-D does" },
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int cmd_help(struct ctl_chat *chat, char *arg)
{
    char left[32];

    (void)chat;
    (void)arg;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        (void)snprintf(left, sizeof(left), "/%s %s", commands[i].name,
                       commands[i].arg ? commands[i].arg : "");
        fprintf(stderr, "%-14s %s\n", left, commands[i].help);
    }
    fputs(
        "A line that ends with \\ goes on in the next; what is pasted is one turn. Ctrl-C ends an\n"
        "answer. A question that begins with / has a space before it.\n",
        stderr);
    return CTL_OK;
}

/* Takes the command's name off the line; what is behind it, without spaces around it. */
static char *cut_name(char *line)
{
    char *arg = line + strcspn(line, " \t\n"), *end;

    if (*arg)
        *arg++ = '\0';
    arg += strspn(arg, " \t\n");
    end = arg + strlen(arg);
    while (end > arg && strchr(" \t\n", end[-1]))
        *--end = '\0';
    return arg;
}

int ctl_chat_command(struct ctl_chat *chat, char *line, bool *ret_end)
{
    char *arg = cut_name(line);

    if (strcmp(line, "/exit") == 0)
        line = "/quit"; /* what other programs have */
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(line + 1, commands[i].name) != 0)
            continue;
        if (!commands[i].arg && *arg)
            return ctl_fail(CTL_USAGE, "%s takes nothing behind it, but got '%s'.", line, arg);
        *ret_end = !commands[i].run;
        return *ret_end ? CTL_OK : commands[i].run(chat, arg);
    }
    return ctl_fail(CTL_USAGE,
                    "there is no command %s; /help lists them. To say it to the model, put a space "
                    "before it.",
                    line);
}
