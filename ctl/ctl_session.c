/* ctl/ctl_session.c - gistctl session: conversations that were saved (gistctl chat --save). */
#include "ctl/ctl_named.h"

static int session_ls(int argc, char **argv)
{
    return ctl_named_ls(GIST_SESSIONS, argc, argv);
}

static int session_rm(int argc, char **argv)
{
    return ctl_named_rm(GIST_SESSIONS, argc, argv);
}

int ctl_session(int argc, char **argv)
{
    static const struct ctl_sub_usage usage = {
        "session",
        "Saved sessions: `gistctl chat --save NAME` keeps one, `gistctl chat --resume NAME` goes\n"
        "on with it.\n"
    };
    static const struct ctl_sub subs[] = {
        { "ls", session_ls, "list your saved sessions" },
        { "rm", session_rm, "delete some" },
    };

    return ctl_sub_run(&usage, subs, sizeof(subs) / sizeof(subs[0]), argc, argv);
}
