/* ctl/ctl_caches.c - models that other programs have fetched, found by their manifests.
 *
 * Hugging Face's cache has a folder a repository, with links from file names to blobs; Ollama's has
 * a manifest a model, a JSON object whose layer of the type below names the blob with the weights.
 */
#include "ctl/ctl.h"
#include "ctl/ctl_models.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fts.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OLLAMA_LAYER   "\"application/vnd.ollama.image.model\""
#define OLLAMA_LIBRARY "registry.ollama.ai/library/"
#define MANIFEST_MAX   (1u << 20)
#define DEPTH_MAX      8 /* folders below the one that was named: a link to / must end */
#define SHA256_HEX     64u

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);

    return n >= k && strcasecmp(text + n - k, end) == 0;
}

/* Calls fn for each plain file, behind links, with its path and what is behind `folder` in it. */
typedef int file_fn(struct ctl_models *m, const char *path, const char *below, uint64_t bytes,
                    void *arg);

/* FTS_PHYSICAL does not go into links to folders, so there is no circle; a link to a file is looked
 * at behind it. A folder that can't be opened has no files. */
static int each_file(struct ctl_models *m, const char *folder, file_fn *fn, void *arg)
{
    char *roots[] = { (char *)folder, NULL };
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    size_t skip = strlen(folder) + 1;
    FTSENT *e;
    int r = 0;

    if (!walk)
        return errno == ENOMEM ? -ENOMEM : 0;
    while (r == 0 && (e = fts_read(walk))) {
        struct stat st;

        if (e->fts_info == FTS_D && e->fts_level > DEPTH_MAX)
            (void)fts_set(walk, e, FTS_SKIP);
        if ((e->fts_info == FTS_F || e->fts_info == FTS_SL) && stat(e->fts_path, &st) == 0 &&
            S_ISREG(st.st_mode) && e->fts_pathlen >= skip)
            r = fn(m, e->fts_path, e->fts_path + skip, (uint64_t)st.st_size, arg);
    }
    (void)fts_close(walk);
    return r;
}

/* --- folders ---------------------------------------------------------------------------------- */

static int add_file(struct ctl_models *m, const char *path, const char *below, uint64_t bytes,
                    void *arg)
{
    (void)arg;
    if (!ends_with(path, ".gguf"))
        return 0;
    return ctl_models_add(
        m, &(struct ctl_model){
               .name = (char *)below, .path = (char *)path, .source = "folder", .bytes = bytes });
}

int ctl_caches_folder(struct ctl_models *m, const char *folder)
{
    return each_file(m, folder, add_file, NULL);
}

/* --- Hugging Face ----------------------------------------------------------------------------- */

struct repository {
    char name[NAME_MAX + 1]; /* "owner/name" */
    bool has_gguf, has_safetensors;
};

/* below: snapshots/COMMIT/FILE. Of several commits the same file is listed again and again only if
 * it differs: those are links to one blob, and the list leaves doubles out. */
static int add_snapshot(struct ctl_models *m, const char *path, const char *below, uint64_t bytes,
                        void *arg)
{
    struct repository *repository = arg;
    const char *file = strchr(below, '/');
    char name[2 * PATH_MAX];

    file = file ? strchr(file + 1, '/') : NULL;
    if (!file || strncmp(below, "snapshots/", strlen("snapshots/")) != 0)
        return 0;
    repository->has_safetensors |= ends_with(path, ".safetensors");
    if (!ends_with(path, ".gguf"))
        return 0;
    repository->has_gguf = true;
    (void)snprintf(name, sizeof(name), "%s%s", repository->name, file);
    return ctl_models_add(
        m, &(struct ctl_model){
               .name = name, .path = (char *)path, .source = "hugging face", .bytes = bytes });
}

/* folder/models--OWNER--NAME Two dashes are a slash there. A repository without a GGUF file is
 * listed with what is the matter, for people look for what they have fetched. */
static int add_repository(struct ctl_models *m, const char *folder, const char *entry)
{
    struct repository repository = { .name = "" };
    char path[PATH_MAX];
    size_t n = 0;
    int r;

    for (const char *p = entry + strlen("models--"); *p; p++) {
        bool slash = p[0] == '-' && p[1] == '-';

        repository.name[n++] = slash ? '/' : *p;
        p += slash;
    }
    if (snprintf(path, sizeof(path), "%s/%s", folder, entry) >= (int)sizeof(path))
        return 0;
    r = each_file(m, path, add_snapshot, &repository);
    if (r == 0 && !repository.has_gguf && repository.has_safetensors)
        r = ctl_models_add(
            m, &(struct ctl_model){ .name = repository.name,
                                    .path = path,
                                    .source = "hugging face",
                                    .why = "it has safetensors and no GGUF file, which gistd "
                                           "reads; many models have a GGUF repository beside "
                                           "theirs" });
    return r;
}

/* The same variables, in the same order, as its own library looks at. */
static int find_hugging_face(struct ctl_models *m)
{
    const char *hub = getenv("HF_HUB_CACHE"), *base = getenv("HF_HOME"), *home = getenv("HOME");
    char folder[PATH_MAX];
    struct dirent *e;
    int r = 0;
    DIR *dir;

    if (hub && *hub)
        (void)snprintf(folder, sizeof(folder), "%s", hub);
    else if (base && *base)
        (void)snprintf(folder, sizeof(folder), "%s/hub", base);
    else if (home && *home)
        (void)snprintf(folder, sizeof(folder), "%s/.cache/huggingface/hub", home);
    else
        return 0;
    dir = opendir(folder);
    if (!dir)
        return 0;
    while (r == 0 && (e = readdir(dir)))
        if (strncmp(e->d_name, "models--", strlen("models--")) == 0)
            r = add_repository(m, folder, e->d_name);
    (void)closedir(dir);
    return r;
}

/* --- Ollama ----------------------------------------------------------------------------------- */

/* The digest of the layer with the weights: of the innermost object around its type, which holds no
 * other object, the 64 digits behind "sha256:". Not a parser of JSON: one file of a known program,
 * of which one value is wanted. What is not as expected is not found. */
static bool find_digest(const char *json, char ret[SHA256_HEX + 1])
{
    const char *type = strstr(json, OLLAMA_LAYER), *begin = type, *end, *at;
    size_t n = 0;

    if (!type)
        return false;
    while (begin > json && *begin != '{')
        begin--;
    end = strchr(type, '}');
    at = strstr(begin, "\"sha256:");
    if (!end || !at || at > end)
        return false;
    at += strlen("\"sha256:");
    while (n < SHA256_HEX && isxdigit((unsigned char)at[n])) {
        ret[n] = at[n];
        n++;
    }
    ret[n] = '\0';
    return n == SHA256_HEX && at[n] == '"';
}

/* "registry.ollama.ai/library/llama3.2/1b" is what Ollama's users call "llama3.2:1b". */
static void name_manifest(const char *below, char *ret, size_t cap)
{
    size_t skip = strlen(OLLAMA_LIBRARY);
    char *slash;

    (void)snprintf(ret, cap, "%s",
                   strncmp(below, OLLAMA_LIBRARY, skip) == 0 ? below + skip : below);
    slash = strrchr(ret, '/');
    if (slash)
        *slash = ':';
}

static int add_manifest(struct ctl_models *m, const char *path, const char *below, uint64_t bytes,
                        void *arg)
{
    const char *folder = arg;
    char digest[SHA256_HEX + 1], name[PATH_MAX], blob[2 * PATH_MAX];
    struct ctl_model model = { .name = name, .path = blob, .source = "ollama" };
    struct ctl_text json = { 0 };
    struct stat st;
    int r = 0;

    if (bytes > MANIFEST_MAX || ctl_text_add_file(&json, path) < 0 || json.len == 0 ||
        !find_digest(json.bytes, digest)) {
        ctl_text_fini(&json);
        return 0; /* of an embedding's adapter, say, or not a manifest */
    }
    name_manifest(below, name, sizeof(name));
    (void)snprintf(blob, sizeof(blob), "%s/blobs/sha256-%s", folder, digest);
    if (stat(blob, &st) == 0)
        model.bytes = (uint64_t)st.st_size;
    else
        model.why = "its blob is not there: Ollama has not fetched all of it";
    r = ctl_models_add(m, &model);
    ctl_text_fini(&json);
    return r;
}

/* The user's own models, and those of the service. OLLAMA_MODELS is instead of both. */
static int find_ollama(struct ctl_models *m)
{
    const char *own = getenv("OLLAMA_MODELS"), *home = getenv("HOME");
    char folders[2][PATH_MAX] = { "", "/usr/share/ollama/.ollama/models" };
    int r = 0;

    if (own && *own) {
        (void)snprintf(folders[0], PATH_MAX, "%s", own);
        folders[1][0] = '\0';
    } else if (home && *home) {
        (void)snprintf(folders[0], PATH_MAX, "%s/.ollama/models", home);
    }
    for (int i = 0; r == 0 && i < 2; i++) {
        char manifests[PATH_MAX];
        int n = snprintf(manifests, sizeof(manifests), "%s/manifests", folders[i]);

        if (folders[i][0] && n < PATH_MAX && access(manifests, R_OK) == 0)
            r = each_file(m, manifests, add_manifest, folders[i]);
    }
    return r;
}

int ctl_caches_find(struct ctl_models *m)
{
    int r = find_hugging_face(m);

    return r < 0 ? r : find_ollama(m);
}
