/* examples/indexer.c - adds a text as a document that other programs of this user ask about.
 *
 *     indexer NAME FILE
 *
 * Other programs may begin with the document as soon as it has a name, which is long before it is
 * read: this one says so on standard output, and prints what it took in the end. If it ends early
 * the document is gone again, and nobody who has begun with it is the worse for it.
 */
#include <gist.h>

#include <err.h>
#include <stdio.h>
#include <stdlib.h>

/* What is in a file. free() it. */
static char *read_file(const char *path, size_t *ret_len)
{
    FILE *f = fopen(path, "re");
    char *text = NULL;
    size_t len = 0, cap = 0;

    if (!f)
        err(1, "%s", path);
    do {
        if (len == cap) {
            cap = cap ? 2 * cap : 65536;
            text = realloc(text, cap);
            if (!text)
                err(1, "%s", path);
        }
        len += fread(text + len, 1, cap - len, f);
    } while (!feof(f) && !ferror(f));
    if (ferror(f))
        err(1, "%s", path);
    (void)fclose(f);
    *ret_len = len;
    return text;
}

/* Called as the reading goes on: the first time it is known how long the text is in tokens. */
static void on_progress(void *arg, uint32_t n_read, uint32_t n_tokens)
{
    int *told = arg;

    (void)n_read;
    if ((*told)++)
        return;
    printf("indexer: reading %u tokens\n", n_tokens);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int told = 0;
    const struct gist_document doc = { .size = sizeof(doc),
                                       .priority = GIST_BACKGROUND,
                                       .on_progress = on_progress,
                                       .arg = &told,
                                       .flags = GIST_REPLACE };
    struct gist_usage usage;
    gist_conn *c;
    size_t len;
    char *text;

    if (argc != 3)
        errx(2, "usage: indexer NAME FILE");
    text = read_file(argv[2], &len);
    if (gist_connect(NULL, "indexer", &c) < 0)
        errx(1, "%s", gist_error(NULL));
    if (gist_document_add(c, argv[1], text, len, &doc, &usage) < 0)
        errx(1, "%s", gist_error(c));
    printf("indexer: %u tokens; %u computed, %u shared, %u restored\n", usage.prompt_tokens,
           usage.computed_tokens, usage.shared_tokens, usage.restored_tokens);
    gist_disconnect(c);
    free(text);
    return 0;
}
