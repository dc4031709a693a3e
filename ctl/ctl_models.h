/* ctl/ctl_models.h - the models of this machine: what can be fetched, and what lies in folders.
 *
 * Where they are looked for, none of which is changed
 *
 *     list           scripts/models, the list of scripts/fetch-model, and its cache folder
 *     folder         *.gguf of that folder, and of folders that the user names
 *     hugging face   $HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub
 *     ollama         $OLLAMA_MODELS, ~/.ollama/models, /usr/share/ollama/.ollama/models
 *
 * Ownership  a list owns its rows; ctl_models_fini frees them.
 * Errors     -errno; what is not there or can't be read is left out.
 */
#ifndef CTL_CTL_MODELS_H
#define CTL_CTL_MODELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ctl_model {
    char *name;
    char *path;         /* NULL: it is not on this machine */
    char *licence;      /* NULL: not known */
    const char *source; /* "list", "folder", "hugging face", "ollama" */
    uint64_t bytes;     /* of the file, or that it will have; 0: not known */
    uint32_t window;    /* tokens; 0: not known */
    char *why;          /* it can't be loaded: a sentence; NULL: it can, or is not there */
};

struct ctl_models {
    struct ctl_model *v; /* (n) */
    size_t n, cap;
};

/* All there are; folders (n) are the user's, beside the usual ones. */
int ctl_models_find(struct ctl_models *m, char *const *folders, size_t n);
void ctl_models_fini(struct ctl_models *m);

/* By its name; NULL: there is none. */
struct ctl_model *ctl_models_named(const struct ctl_models *m, const char *name);

/* Has gistd look at the file's head: window, or why it can't be loaded. */
int ctl_model_check(struct ctl_model *model);

/* A row, with copies of name, path and licence, which may be NULL. */
int ctl_models_add(struct ctl_models *m, const struct ctl_model *model);

/* A file or a name: the path of a file that can be loaded, the caller's. A model of the list that
 * is not here is fetched if may_fetch. CTL_OK, or the exit code of what was said. */
int ctl_model_path(const char *what, bool may_fetch, char **ret_path);
/* Of the list: fetched, unless it is there and whole. */
int ctl_model_fetch(const char *name, char **ret_path);

/* --- other programs' caches (ctl_caches.c) ---------------------------------------------------- */

int ctl_caches_find(struct ctl_models *m);
/* *.gguf of a folder, and of those below it: source "folder". */
int ctl_caches_folder(struct ctl_models *m, const char *folder);

#endif
