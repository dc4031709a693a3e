#include "http/page.h"

#include "page_data.h" /* made of http/page/ by the Makefile: an array for each file */
#include <string.h>

#define FILE_(path, type, bytes)                                                                   \
    {                                                                                              \
        path, type, bytes, sizeof(bytes)                                                           \
    }

static const struct page_file files[] = {
    FILE_("/", "text/html; charset=utf-8", page_html),
    FILE_("/page/page.css", "text/css; charset=utf-8", page_css),
    FILE_("/page/page.js", "text/javascript; charset=utf-8", page_js),
    FILE_("/page/map.js", "text/javascript; charset=utf-8", map_js),
    FILE_("/page/wire.js", "text/javascript; charset=utf-8", wire_js),
    FILE_("/page/words.js", "text/javascript; charset=utf-8", words_js),
    FILE_("/page/keep.js", "text/javascript; charset=utf-8", keep_js),
    FILE_("/page/icon.svg", "image/svg+xml", icon_svg),
};

const struct page_file *page_find(const char *path)
{
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        if (strcmp(files[i].path, path) == 0)
            return &files[i];
    return NULL;
}
