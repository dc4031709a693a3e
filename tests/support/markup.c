#include "tests/support/markup.h"

#include <stdio.h>
#include <string.h>

#define DEPTH_MAX 16

bool markup_is_nested(const char *text, const char *empty)
{
    char open[DEPTH_MAX][16], name[16];
    int depth = 0;

    while ((text = strchr(text, '<'))) {
        const char *end = strchr(text, '>');
        bool closes = text[1] == '/';

        if (!end || sscanf(text, closes ? "</%15[a-z0-9]" : "<%15[a-z0-9]", name) != 1)
            return false;
        if (closes) {
            if (depth == 0 || strcmp(open[--depth], name) != 0)
                return false;
        } else if (end[-1] != '/' && (!empty || strcmp(name, empty) != 0)) {
            if (depth == DEPTH_MAX)
                return false;
            memcpy(open[depth++], name, sizeof(name));
        }
        text = end;
    }
    return depth == 0;
}
