/* train/gist_train.c - gist-train: trains adapters (docs/training.md). */
#include "train/run.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { OK, FAILED, USAGE };

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

static int fail(int code, const struct why *why)
{
    fprintf(stderr, "gist-train: %s\n", why->text);
    return code;
}

int main(int argc, char **argv)
{
    static struct recipe recipe;
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
    struct why why = { "" };

    if (recipe_load(&recipe, argc, argv, &why) < 0)
        return fail(USAGE, &why);
    if (recipe.action == RECIPE_HELP) {
        recipe_print_help(stdout);
        return OK;
    }
    if (recipe.action == RECIPE_SHOW) {
        recipe_print(&recipe, stdout);
        return OK;
    }
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (run_train(&recipe, &stop, &why) < 0)
        return fail(FAILED, &why);
    return OK;
}
