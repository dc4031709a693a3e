/* ctl/ctl_line.c - line editing by libedit, or plain lines.
 *
 * Between two lines the terminal neither echoes nor waits for Enter: what is typed ahead, while an
 * answer is printed, is not mixed into it and stands in the next line.
 *
 * libedit asks for one character at a time (get_char) and calls back for a key that is bound
 * (take_paste). What a paste brings is collected in one go, kept aside if it is long, and put into
 * the line when that is read (put_pastes). */
#include "ctl/ctl_line.h"

#include "ctl/ctl.h"

#include <errno.h>
#include <histedit.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#define HISTORY_LINES 1000
#define HISTORY_BYTES 4096u /* of one text: a book that was pasted is no line to look up again */

/* Bracketed paste: a terminal that is asked to puts these around what is pasted, so that a line end
 * in it does not pass for the Enter key. */
#define PASTE_ASK   "\033[?2004h"
#define PASTE_LEAVE "\033[?2004l"
#define PASTE_BEGIN "\033[200~"
#define PASTE_END   "\033[201~"

/* What is longer is shown as a mark, such as [pasted 1: 120 lines], and put in its place when the
 * line is read: the editor can't scroll within a line that is higher than the terminal. */
#define SHOWN_LINES 8u
#define SHOWN_BYTES 1024u
#define PASTES_MAX  8u

struct ctl_line {
    EditLine *edit; /* NULL: standard input is no terminal */
    History *history;
    char *history_path;
    const char *prompt;
    char *text; /* the last line, ours to cut */
    size_t cap;
    struct termios first; /* as we found it; edit only */
    bool asks_paste;      /* the terminal knows escape sequences */
    bool pasting;         /* bytes are read in blocks */
    char block[4096];     /* read, and not looked at yet: [block_at, block_n) */
    size_t block_at, block_n;
    struct {
        char mark[48];
        struct ctl_text text;
    } pastes[PASTES_MAX]; /* (n_pastes) of this line, those that stand as marks */
    unsigned n_pastes;
};

static char *get_prompt(EditLine *edit)
{
    struct ctl_line *l;

    el_get(edit, EL_CLIENTDATA, &l);
    return (char *)l->prompt;
}

/* The window has another size than the line was drawn for. */
static volatile sig_atomic_t resized;

/* The window has another size. Terminals wrap the line anew themselves, so it is taken away from
 * where it begins now, and drawn again. Columns are counted by characters: wide ones take two, and
 * the line is then drawn a row too low, no more. */
static void redraw(EditLine *edit)
{
    const LineInfo *info = el_line(edit);
    struct winsize size;
    size_t left = 2; /* columns in front of the cursor: the prompt's, and characters of the line */

    for (const char *p = info->buffer; p < info->cursor; p++)
        left += (*p & 0xc0) != 0x80;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && left >= size.ws_col)
        printf("\033[%zuA", left / size.ws_col);
    fputs("\r\033[J", stdout);
    el_resize(edit);
    el_set(edit, EL_REFRESH);
    fflush(stdout);
}

/* One byte of the keyboard: 1, 0 the end, -1 Ctrl-C. One at a time, so that what was typed behind
 * the last line is left to the shell; a paste in blocks. */
static int get_byte(EditLine *edit, struct ctl_line *l, char *ret)
{
    ssize_t n;

    while (l->block_at == l->block_n) {
        int ready = ctl_interrupt_wait(STDIN_FILENO, &resized);

        if (ready < 0)
            return -1;
        if (ready == 0) {
            resized = 0;
            redraw(edit);
            continue;
        }
        n = read(STDIN_FILENO, l->block, l->pasting ? sizeof(l->block) : 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return (int)n;
        l->block_at = 0;
        l->block_n = (size_t)n;
    }
    *ret = l->block[l->block_at++];
    return 1;
}

/* One character of the keyboard. libedit's own reader goes on after an interrupted read; here
 * Ctrl-C ends the line. A byte that is no UTF-8 is shown as U+FFFD, and stays that. */
static int get_char(EditLine *edit, wchar_t *ret)
{
    mbstate_t state = { 0 };
    struct ctl_line *l;

    el_get(edit, EL_CLIENTDATA, &l);
    for (;;) {
        char byte;
        int n = get_byte(edit, l, &byte);

        if (n <= 0)
            return n;
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

/* --- pasting ---------------------------------------------------------------------------------- */

/* All until the end of the paste, which is left out. Compared at the tail with each byte, since the
 * end may be cut by a block. */
static int read_paste(EditLine *edit, struct ctl_line *l, struct ctl_text *t)
{
    const size_t end = strlen(PASTE_END);

    while (t->len < end || memcmp(t->bytes + t->len - end, PASTE_END, end) != 0) {
        char byte;
        int n = get_byte(edit, l, &byte);

        if (n <= 0)
            return n < 0 ? -EINTR : -ENODATA;
        n = ctl_text_add(t, &byte, 1);
        if (n < 0)
            return n;
    }
    t->len -= end;
    t->bytes[t->len] = '\0';
    return 0;
}

/* Lines end with LF, whatever the terminal or the other program has; those at the end are left out,
 * and so are control characters, which the editor would show as they are. */
static unsigned clean_paste(struct ctl_text *t)
{
    unsigned lines = 1;
    size_t n = 0;

    for (size_t i = 0; i < t->len; i++) {
        unsigned char c = (unsigned char)t->bytes[i];

        if (c == '\r') {
            if (i + 1 < t->len && t->bytes[i + 1] == '\n')
                continue;
            c = '\n';
        }
        if (c == '\n' || c == '\t' || (c >= ' ' && c != 0x7f))
            t->bytes[n++] = (char)c;
    }
    while (n > 0 && t->bytes[n - 1] == '\n')
        n--;
    t->len = n;
    t->bytes[n] = '\0';
    for (size_t i = 0; i < n; i++)
        lines += t->bytes[i] == '\n';
    return lines;
}

/* Into the line, as it is or as a mark. Takes the text. */
static unsigned char insert_paste(EditLine *edit, struct ctl_line *l, struct ctl_text *t)
{
    unsigned lines = clean_paste(t);
    unsigned char r = CC_REFRESH;

    if ((lines > SHOWN_LINES || t->len > SHOWN_BYTES) && l->n_pastes < PASTES_MAX) {
        unsigned i = l->n_pastes++;

        (void)snprintf(l->pastes[i].mark, sizeof(l->pastes[i].mark), "[pasted %u: %u line%s]",
                       i + 1, lines, lines == 1 ? "" : "s");
        l->pastes[i].text = *t;
        *t = (struct ctl_text){ 0 };
        if (el_insertstr(edit, l->pastes[i].mark) < 0)
            r = CC_ERROR;
    } else if (t->len > 0 && el_insertstr(edit, t->bytes) < 0) {
        r = CC_ERROR;
    }
    return r;
}

/* The editor's command behind PASTE_BEGIN. */
static unsigned char take_paste(EditLine *edit, int key)
{
    struct ctl_text t = { 0 };
    struct ctl_line *l;
    unsigned char r;
    int n;

    (void)key;
    el_get(edit, EL_CLIENTDATA, &l);
    l->pasting = true;
    n = read_paste(edit, l, &t);
    l->pasting = false;
    r = n < 0 ? CC_EOF : insert_paste(edit, l, &t);
    ctl_text_fini(&t);
    return r;
}

static void forget_pastes(struct ctl_line *l)
{
    for (unsigned i = 0; i < l->n_pastes; i++)
        ctl_text_fini(&l->pastes[i].text);
    l->n_pastes = 0;
}

/* The line with what was pasted in place of its marks. A mark that was edited is text. */
static int put_pastes(const struct ctl_line *l, const char *line, size_t len, struct ctl_text *t)
{
    const char *end = line + len;
    int r = 0;

    while (r == 0 && line < end) {
        const char *at = end;
        unsigned first = 0;

        for (unsigned i = 0; i < l->n_pastes; i++) {
            const char *found =
                memmem(line, (size_t)(end - line), l->pastes[i].mark, strlen(l->pastes[i].mark));

            if (found && found < at) {
                at = found;
                first = i;
            }
        }
        r = ctl_text_add(t, line, (size_t)(at - line));
        if (r == 0 && at < end)
            r = ctl_text_add(t, l->pastes[first].text.bytes, l->pastes[first].text.len);
        line = at < end ? at + strlen(l->pastes[first].mark) : end;
    }
    return r;
}

/* --- opening ---------------------------------------------------------------------------------- */

static void on_resize(int sig)
{
    (void)sig;
    resized = 1;
}

/* Neither echo nor lines: what is typed ahead is kept by the terminal until it is read. */
static void hush(const struct ctl_line *l)
{
    struct termios quiet = l->first;

    quiet.c_lflag &= ~(tcflag_t)(ECHO | ICANON);
    quiet.c_cc[VMIN] = 1;
    quiet.c_cc[VTIME] = 0;
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &quiet);
}

/* What fails in here is taken back by ctl_line_close. */
static int open_edit(struct ctl_line *l)
{
    struct sigaction sa = { .sa_handler = on_resize };
    const char *term = getenv("TERM");
    HistEvent ev;

    if (tcgetattr(STDIN_FILENO, &l->first) < 0)
        return -errno;
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
    /* Wide, for el_set would copy the two texts and lose the copies. */
    el_wset(l->edit, EL_ADDFN, L"gistctl-paste", L"take what is pasted, as one", take_paste);
    el_set(l->edit, EL_BIND, PASTE_BEGIN, "gistctl-paste", NULL);
    el_source(l->edit, NULL); /* the user's ~/.editrc */
    l->asks_paste = isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0;
    sigaction(SIGWINCH, &sa, NULL);
    /* From here to the end: what is pasted while an answer is printed is one turn, too. */
    if (l->asks_paste)
        fputs(PASTE_ASK, stdout);
    fflush(stdout);
    hush(l);
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

/* The terminal as we found it, also the way in which it sends what is pasted. */
void ctl_line_close(struct ctl_line *l)
{
    if (!l)
        return;
    if (l->edit) {
        el_end(l->edit);
        if (l->asks_paste)
            fputs(PASTE_LEAVE, stdout);
        fflush(stdout);
        (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &l->first);
    }
    forget_pastes(l);
    if (l->history)
        history_end(l->history);
    free(l->history_path);
    free(l->text);
    free(l);
}

/* getline takes lines of any length, and NULs. */
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

/* A line of the editor, which keeps its newline, with its own buffer. */
static int take_line(struct ctl_line *l, const char *line)
{
    struct ctl_text t = { 0 };
    size_t len = strlen(line);
    int r;

    if (len > 0 && line[len - 1] == '\n')
        len--;
    r = ctl_text_add(&t, "", 0);
    if (r == 0)
        r = put_pastes(l, line, len, &t);
    if (r < 0) {
        ctl_text_fini(&t);
        return r;
    }
    free(l->text);
    l->text = t.bytes;
    return 0;
}

/* el_gets sets the terminal to editing and back, so it is hushed again behind it. */
int ctl_line_read(struct ctl_line *l, const char *prompt, const char **ret_text, size_t *ret_len)
{
    const char *line;
    int n, r;

    if (!l->edit)
        return read_plain(l, ret_text, ret_len);
    l->prompt = prompt;
    errno = 0;
    line = el_gets(l->edit, &n);
    hush(l);
    r = ctl_interrupt_came() ? -EINTR : !line || n <= 0 ? -ENODATA : take_line(l, line);
    forget_pastes(l);
    if (r < 0)
        return r;
    *ret_text = l->text;
    *ret_len = strlen(l->text);
    return 0;
}

void ctl_line_remember(struct ctl_line *l, const char *text)
{
    HistEvent ev;

    if (!l->history || *text == '\0' || strlen(text) > HISTORY_BYTES)
        return;
    history(l->history, &ev, H_ENTER, text);
    /* After each line: a lost connection or a closed terminal must not cost the history. */
    if (l->history_path)
        history(l->history, &ev, H_SAVE, l->history_path);
}
