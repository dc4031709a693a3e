/* ctl/ctl_line.c - line editing by libedit, or plain lines. */
#include "ctl/ctl_line.h"

#include "ctl/ctl.h"

#include <errno.h>
#include <histedit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#define HISTORY_LINES 1000

struct ctl_line {
    EditLine *edit; /* NULL: standard input is no terminal */
    History *history;
    char *history_path;
    const char *prompt;
    char *text; /* the last line, ours to cut */
    size_t cap;
};

static char *get_prompt(EditLine *edit)
{
    struct ctl_line *l;

    el_get(edit, EL_CLIENTDATA, &l);
    return (char *)l->prompt;
}

/* One character of the keyboard. libedit's own reader goes on after an interrupted read; here
 * Ctrl-C ends the line. */
static int get_char(EditLine *edit, wchar_t *ret)
{
    mbstate_t state = { 0 };

    (void)edit;
    for (;;) {
        char byte;
        ssize_t n;

        if (!ctl_interrupt_wait(STDIN_FILENO))
            return -1;
        n = read(STDIN_FILENO, &byte, 1);
        if (n < 0 && errno == EINTR)
            continue; /* the window changed its size, say */
        if (n <= 0)
            return (int)n;
        switch (mbrtowc(ret, &byte, 1, &state)) {
        case (size_t)-1:
            *ret = L'\xfffd';
            return 1;
        case (size_t)-2:
            continue;
        default:
            return 1;
        }
    }
}

static int open_edit(struct ctl_line *l)
{
    HistEvent ev;

    l->edit = el_init("gistctl", stdin, stdout, stderr);
    l->history = history_init();
    if (!l->edit || !l->history)
        return -ENOMEM;
    el_set(l->edit, EL_CLIENTDATA, l);
    el_set(l->edit, EL_EDITOR, "emacs");
    el_set(l->edit, EL_PROMPT, get_prompt);
    el_set(l->edit, EL_GETCFN, get_char);
    el_set(l->edit, EL_HIST, history, l->history);
    el_set(l->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(l->edit, NULL); /* the user's ~/.editrc */
    history(l->history, &ev, H_SETSIZE, HISTORY_LINES);
    history(l->history, &ev, H_SETUNIQUE, 1);
    if (l->history_path)
        history(l->history, &ev, H_LOAD, l->history_path); /* absent at first: an empty one */
    return 0;
}

int ctl_line_open(const char *history_path, struct ctl_line **ret)
{
    struct ctl_line *l = calloc(1, sizeof(*l));
    int r = 0;

    if (!l)
        return -ENOMEM;
    if (history_path && !(l->history_path = strdup(history_path)))
        r = -ENOMEM;
    if (r == 0 && isatty(STDIN_FILENO))
        r = open_edit(l);
    if (r < 0) {
        ctl_line_close(l);
        return r;
    }
    *ret = l;
    return 0;
}

void ctl_line_close(struct ctl_line *l)
{
    if (!l)
        return;
    if (l->edit)
        el_end(l->edit);
    if (l->history)
        history_end(l->history);
    free(l->history_path);
    free(l->text);
    free(l);
}

static int read_plain(struct ctl_line *l, const char **ret_text, size_t *ret_len)
{
    ssize_t n;

    errno = 0;
    n = getline(&l->text, &l->cap, stdin);
    if (n < 0)
        return ferror(stdin) || errno == ENOMEM ? -errno : -ENODATA;
    if (n > 0 && l->text[n - 1] == '\n')
        n -= n > 1 && l->text[n - 2] == '\r' ? 2 : 1;
    l->text[n] = '\0';
    *ret_text = l->text;
    *ret_len = (size_t)n;
    return 0;
}

int ctl_line_read(struct ctl_line *l, const char *prompt, const char **ret_text, size_t *ret_len)
{
    const char *line;
    char *copy;
    int n;

    if (!l->edit)
        return read_plain(l, ret_text, ret_len);
    l->prompt = prompt;
    errno = 0;
    line = el_gets(l->edit, &n);
    if (ctl_interrupt_came())
        return -EINTR;
    if (!line || n <= 0)
        return -ENODATA;
    /* libedit keeps the newline, in its own buffer. */
    copy = strndup(line, strcspn(line, "\n"));
    if (!copy)
        return -ENOMEM;
    free(l->text);
    l->text = copy;
    *ret_text = copy;
    *ret_len = strlen(copy);
    return 0;
}

void ctl_line_remember(struct ctl_line *l, const char *text)
{
    HistEvent ev;

    if (!l->history || *text == '\0')
        return;
    history(l->history, &ev, H_ENTER, text);
    /* After each line: a lost connection or a closed terminal must not cost the history. */
    if (l->history_path)
        history(l->history, &ev, H_SAVE, l->history_path);
}
